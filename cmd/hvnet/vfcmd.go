package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"hvnet/control"
	"hvnet/host"
	"hvnet/link/function"
	"hvnet/netvsp"
	"hvnet/nic"
	"hvnet/sandbox"
)

// hostVFCmd changes the virtual function of a port.
type hostVFCmd struct {
	Do string `arg:"" name:"do" help:"add: make a virtual function beside the guest's NIC; remove: take it away, announced, so that nothing is lost; flap: take it away and give it back; lose: have it vanish without a word, as hardware does."`
	portArgs
}

// vfArgs are the arguments of the method vf.
type vfArgs struct {
	Do   string `json:"do"`
	Port string `json:"port"`
}

// Run asks the host for the change.
func (v *hostVFCmd) Run(ctx context.Context, c *commands) error {
	switch v.Do {
	case "add", "remove", "flap", "lose":
	default:
		return usagef("vf %s: want add, remove, flap or lose", v.Do)
	}
	return c.Host.Ctl.Path.ask(ctx, "vf", vfArgs{v.Do, v.Port}, nil)
}

// A vfMaker makes a virtual function for a guest, whose end of it is where the guest is.
type vfMaker func(ctx context.Context, to host.Peer, serial uint32) (host.VF, error)

// vfs gives virtual functions to the ports of a host, and takes them.
type vfs struct {
	host   *host.Host
	make   vfMaker
	serial atomic.Uint32 // of the last one
}

// handle does for a host what hostVFCmd asks for.
func (v *vfs) handle(ctx context.Context, b []byte) (any, error) {
	var a vfArgs
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("arguments: %w: %w", control.ErrMalformed, err)
	}
	switch a.Do {
	case "add":
		return nil, v.add(ctx, a.Port)
	case "remove":
		return nil, v.host.RemoveVF(ctx, a.Port)
	case "flap":
		return nil, v.host.FlapVF(ctx, a.Port)
	case "lose":
		return nil, v.host.LoseVF(a.Port)
	}
	return nil, fmt.Errorf("vf %s: %w", a.Do, control.ErrMalformed)
}

// add makes a function for a port.
func (v *vfs) add(ctx context.Context, port string) error {
	to, err := v.host.MayHaveVF(port)
	if errors.Is(err, netvsp.ErrNoSRIOV) {
		return fmt.Errorf("%w: it was started without --sriov", err)
	}
	if err != nil {
		return err
	}
	serial := v.serial.Add(1)
	f, err := v.make(ctx, to, serial)
	if err != nil {
		return fmt.Errorf("make a VF for port %s: %w", port, err)
	}
	return v.host.AddVF(port, serial, f)
}

// vfNextTo makes functions in the network namespace of the guest's process. With wire frames
// come to them as on one.
func vfNextTo(wire bool) vfMaker {
	return func(_ context.Context, to host.Peer, serial uint32) (host.VF, error) {
		return makeNextTo(to, function.Config{MAC: to.MAC, Serial: serial, Wire: wire})
	}
}

func makeNextTo(to host.Peer, cfg function.Config) (host.VF, error) {
	if to.Process == 0 {
		return nil, errors.New("its guest is no process that this host sees, and a virtual function is made in the network namespace of one")
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", to.Process))
	if err != nil {
		return nil, mayNot(to, err)
	}
	defer ns.Close()
	select {
	case <-to.Done: // so the number may be that of another process by now
		return nil, host.ErrNoGuest
	default:
	}
	files, err := function.Make(ns, cfg)
	if err != nil {
		return nil, mayNot(to, err)
	}
	return function.NewHost(files, cfg)
}

// mayNot says what it takes to make a function where a guest is, if its maker lacks that.
func mayNot(to host.Peer, err error) error {
	if errors.Is(err, function.ErrPermission) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("in the network namespace of process %d: %w; it takes root, and 'hvnet run --vf' does without", to.Process, err)
	}
	return err
}

// vfIn makes functions in a sandbox. With wire frames come to them as on one.
func vfIn(box *sandbox.Sandbox, wire bool) vfMaker {
	return func(ctx context.Context, to host.Peer, serial uint32) (host.VF, error) {
		return box.MakeFunction(ctx, function.Config{MAC: to.MAC, Serial: serial, Wire: wire})
	}
}

// printVFs prints a table of what there is of virtual functions, nothing on a host without.
func printVFs(w io.Writer, ports []host.PortInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := "\nPORT\tVF\tPATH\tSWITCHES\tREFUSED\tIN\tOUT\tSTATE"
	for _, p := range ports {
		if p.Guest == nil || !p.Guest.VF.Host {
			continue
		}
		if head != "" {
			fmt.Fprintln(t, head)
			head = ""
		}
		v := p.Guest.VF
		serial, path, in, out := "-", "synthetic", "-", "-"
		if v.Present {
			serial = fmt.Sprint(v.Serial)
		}
		if v.Active {
			path = "vf"
		}
		if x := p.Switch.Path; x != nil {
			in, out = fmt.Sprint(x.InFrames), fmt.Sprint(x.OutFrames)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%v\n", p.Switch.Name, serial, path, v.Switches, v.Refused, in, out, v)
	}
	return t.Flush()
}

// vfCmd are the commands about the virtual function of an interface.
type vfCmd struct {
	Timeline vfTimelineCmd `cmd:"" help:"When the data path of an interface has moved between its synthetic device and its virtual function, why, and who moved first."`
}

// vfTimelineCmd shows the moves of an interface's data path.
type vfTimelineCmd struct {
	ifaceArg
	JSON bool `name:"json" help:"The same as JSON, times in nanoseconds."`
}

// Run prints the last moves, the oldest first.
func (c *vfTimelineCmd) Run(ctx context.Context, s streams) error {
	d, err := c.driver(ctx)
	if err != nil {
		return err
	}
	moves, err := d.VFTimeline(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, append([]nic.VFMove{}, moves...))
	}
	if len(moves) == 0 {
		fmt.Fprintf(s.out, "%s has sent by its synthetic device all the time\n", c.Iface)
		return nil
	}
	t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tTO\tFIRST\tHOST\tHELD\tIN FLIGHT\tWHY")
	for _, m := range moves {
		answer := "-" // has yet to come
		if m.Took > 0 {
			answer = short(m.Took)
		}
		why := m.Why
		if m.Failed != "" {
			why = "not moved: " + m.Why
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.At.Format("15:04:05.000"), m.To, m.First, answer, short(m.Held), inFlight(m.InFlight, m.Undrained), why)
	}
	return t.Flush()
}

// inFlight says how many frames were under way, and how many of them may be overtaken.
func inFlight(frames, undrained int) string {
	if undrained > 0 {
		return fmt.Sprintf("%d (%d not waited for)", frames, undrained)
	}
	return fmt.Sprint(frames)
}

// short is a time with as much of it as people look at.
func short(d time.Duration) string {
	if d < time.Millisecond {
		return d.Round(time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// printJSON prints a value for programs.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
