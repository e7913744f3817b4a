package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hvnet/conform"
	"hvnet/rule"
)

// watchFlags say what is to be told of what guests do.
type watchFlags struct {
	Trace   bool          `help:"Print what guests and host say to each other, decoded, with the stages that guests reach and the rules that they break."`
	Until   string        `placeholder:"STAGE" help:"End when a guest has reached a stage, with status 0: ${stages}. A guest that breaks a rule before, or none in time, makes it 1."`
	Timeout time.Duration `placeholder:"60s" help:"How long --until waits; default: as long as it takes."`
}

// A verdict is what --until ends with.
type verdict struct {
	until conform.Stage // empty: there is nothing to wait for

	mu   sync.Mutex
	out  io.Writer
	last map[string]conform.Stage // the last stage of each port
	end  context.CancelCauseFunc
}

// errReached is why the host ends when a guest has reached the stage.
var errReached = errors.New("reached")

// errLate is why the host ends when no guest has reached it.
var errLate = errors.New("late")

// begin checks the flags. The context ends when there is a verdict. The verdict is nil
// if nobody wants to know anything.
func (f *watchFlags) begin(ctx context.Context, out io.Writer) (context.Context, *verdict, error) {
	if f.Until == "" && f.Timeout != 0 {
		return ctx, nil, usagef("--timeout is how long --until waits: want both")
	}
	if f.Until == "" && !f.Trace {
		return ctx, nil, nil
	}
	v := &verdict{last: map[string]conform.Stage{}}
	if f.Trace {
		v.out = out
	}
	if f.Until != "" {
		var err error
		if v.until, err = conform.ParseStage(f.Until); err != nil {
			return ctx, nil, usagef("--until: %w", err)
		}
	}
	ctx, v.end = context.WithCancelCause(ctx)
	if f.Timeout > 0 {
		timer := time.AfterFunc(f.Timeout, func() { v.end(errLate) })
		context.AfterFunc(ctx, func() { timer.Stop() })
	}
	return ctx, v, nil
}

// watch is the host's Watch.
func (v *verdict) watch(port string) conform.Config {
	return conform.Config{
		Line: func(s string) {
			v.mu.Lock()
			defer v.mu.Unlock()
			if v.out != nil {
				fmt.Fprintf(v.out, "%s: %s\n", port, s)
			}
		},
		Reached: func(s conform.Stage) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.last[port] = s
			if s == v.until {
				v.end(errReached)
			}
		},
		Broken: func(err error) {
			if v.until != "" {
				v.end(fmt.Errorf("%s broke a rule: %s", port, rule.Explain(err)))
			}
		},
	}
}

// err returns what the command ends with, after ctx has ended.
func (v *verdict) err(ctx context.Context, f *watchFlags) error {
	why := context.Cause(ctx)
	if v.until == "" || why == nil || errors.Is(why, errReached) {
		return nil
	}
	var signal interrupted
	if !errors.Is(why, errLate) && !errors.As(why, &signal) {
		return why
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var far []string
	for _, port := range slices.Sorted(maps.Keys(v.last)) {
		far = append(far, fmt.Sprintf("%s came as far as %s", port, v.last[port]))
	}
	if far == nil {
		far = []string{"no guest came as far as version"}
	}
	if errors.Is(why, errLate) {
		return fmt.Errorf("stage %s was not reached within %v: %s", v.until, f.Timeout, strings.Join(far, ", "))
	}
	return fmt.Errorf("stage %s was not reached before the host was ended: %s", v.until, strings.Join(far, ", "))
}
