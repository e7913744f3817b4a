package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"hvnet/doctor"
	"hvnet/doctor/gather"
)

// doctorCmd examines the netvsc interfaces of a guest.
type doctorCmd struct {
	JSON  bool     `name:"json" xor:"form" help:"Findings and facts as JSON."`
	Facts bool     `xor:"form" help:"Only the facts, as JSON, to be examined with --from elsewhere."`
	From  string   `placeholder:"FILE" help:"Examine the facts in a file, as --facts writes them, not this machine."`
	Iface []string `arg:"" optional:"" name:"if" help:"Interfaces; default: all of this network namespace that have a netvsc driver, hvnet's or the kernel's."`
}

// Run prints the findings. The exit status tells the severity of the worst.
func (c *doctorCmd) Run(ctx context.Context, s streams) error {
	f, err := c.facts(ctx)
	if err != nil {
		return fmt.Errorf("doctor: %w", err)
	}
	if c.Facts {
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		return e.Encode(f)
	}
	findings := doctor.Examine(f)
	if c.JSON {
		if err := doctor.WriteJSON(s.out, f, findings); err != nil {
			return err
		}
	} else {
		doctor.WriteText(s.out, f, findings)
	}
	if status := doctor.Worst(findings).ExitStatus(); status != 0 {
		return exitError{status: status}
	}
	return nil
}

// facts returns those of the machine, or of the file.
func (c *doctorCmd) facts(ctx context.Context) (*doctor.Facts, error) {
	if c.From == "" {
		f, err := gather.Facts(ctx, c.Iface)
		if errors.Is(err, gather.ErrNone) {
			err = fmt.Errorf("%w; 'hvnet run -- hvnet doctor' has one to look at", err)
		}
		return f, err
	}
	text, err := os.ReadFile(c.From)
	if err != nil {
		return nil, err
	}
	f := new(doctor.Facts)
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("read facts of %s: %w", c.From, err)
	}
	return f, f.Keep(c.Iface)
}
