package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"

	"hvnet/control"
	"hvnet/top"
)

// topCmd shows the rates of an interface's channels.
type topCmd struct {
	ifaceArg
	Interval time.Duration `default:"1s" help:"How long rates are taken over, and how often they are shown."`
	Once     bool          `help:"Print one page and end."`
	JSON     bool          `name:"json" help:"Print a line of JSON each time."`
}

// minInterval is as often as a driver is asked at most.
const minInterval = 100 * time.Millisecond

// Run shows them until its user leaves, or the driver ends.
func (c *topCmd) Run(ctx context.Context, s streams) error {
	if c.Interval < minInterval {
		return usagef("--interval %v: want at least %v", c.Interval, minInterval)
	}
	if !c.Once && !c.JSON && !newReport(s.out).terminal {
		return usagef("this is no terminal: want --once, --json, or both")
	}
	d, err := c.driver(ctx)
	if err != nil {
		return err
	}
	var mark uint32
	gone, err := c.show(ctx, s, func(ctx context.Context) (top.Snapshot, error) { return c.snapshot(ctx, d, &mark) })
	if gone {
		fmt.Fprintf(s.err, "%s: the driver has ended\n", c.Iface)
	}
	return err
}

// show shows the interface as the flags have it.
func (c *topCmd) show(ctx context.Context, s streams, fetch top.Fetch) (gone bool, err error) {
	if !c.Once && !c.JSON {
		screen, err := tcell.NewScreen()
		if err != nil {
			return false, fmt.Errorf("use the terminal (TERM=%s): %w", os.Getenv("TERM"), err)
		}
		return top.Run(ctx, screen, c.Iface, c.Interval, fetch)
	}
	var written error
	gone, err = top.Watch(ctx, c.Iface, c.Interval, fetch, func(v top.View) bool {
		written = c.print(s.out, &v)
		return written == nil && !c.Once
	})
	if err == nil {
		err = written
	}
	if err == nil && c.Once && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return gone, err
}

// print prints a view.
func (c *topCmd) print(w io.Writer, v *top.View) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(v)
	}
	page := v.Page(top.ByQueue, false)
	_, err := fmt.Fprintln(w, strings.Join(page.Lines(), "\n"))
	return err
}

// answerTime is how long a driver may take to show what it has counted.
const answerTime = 5 * time.Second

// snapshot asks a driver. mark is where it stood with its flows at the last one.
func (c *topCmd) snapshot(ctx context.Context, d *control.Client, mark *uint32) (top.Snapshot, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("the driver has not answered within %v", answerTime))
	defer cancel()
	if err := d.Refresh(ctx); err != nil {
		return top.Snapshot{}, err
	}
	flows, err := d.Flows(ctx, *mark, 2*c.Interval+answerTime)
	if err != nil && !errors.Is(err, control.ErrUnknownMethod) {
		return top.Snapshot{}, err
	}
	*mark = flows.Mark
	return top.Snapshot{At: time.Now(), Channels: d.Channels(), Levels: d.HashLevels(), RSS: d.RSS(), Stats: d.Stats(), Flows: flows.Channels}, nil
}
