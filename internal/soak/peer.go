package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/hv/attach"
)

// A reply answers a command.
type reply struct {
	Err    string
	Counts Counts
}

// A peer is a guest of the soak during one life of it, wherever it runs.
type peer interface {
	// do has the station do something and returns what it has seen until then.
	// After "leave" and "die" the peer is gone.
	do(ctx context.Context, c command) (Counts, error)
}

// A local peer is a station of this process.
type local struct{ s *station }

func (p local) do(ctx context.Context, c command) (Counts, error) {
	err := p.s.do(ctx, c)
	return p.s.counts(), err
}

// joinPipe joins a guest that shares the process with the host.
func joinPipe(ctx context.Context, w *world, number int, seed uint64) (peer, error) {
	part, far, err := hv.Pipe(vps)
	if err != nil {
		return nil, err
	}
	go w.host.Serve(far, host.PortConfig{Name: names[number]})
	s, err := join(ctx, number, seed, func(c guest.Config) (*guest.Guest, error) { return guest.Start(ctx, part, c) })
	if err == nil {
		s.cut = func() { far.Close() }
	}
	return local{s}, err
}

// joinAttached joins a guest that is attached by the host's socket.
func joinAttached(ctx context.Context, w *world, number int, seed uint64) (peer, error) {
	s, err := attachStation(ctx, w.path, number, seed)
	return local{s}, err
}

// attachStation attaches a station by a host's socket. A guest that has just left
// may still have the port.
func attachStation(ctx context.Context, path string, number int, seed uint64) (*station, error) {
	return join(ctx, number, seed, func(c guest.Config) (*guest.Guest, error) {
		for {
			g, err := guest.Dial(ctx, path, c, nil)
			if !errors.Is(err, attach.ErrRefused) || ctx.Err() != nil {
				return g, err
			}
			pause(ctx, 5*time.Millisecond)
		}
	})
}

// A process is a station in a process of its own, which reads commands from its
// standard input and writes replies to its standard output.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder

	mu   sync.Mutex // one command at a time
	last Counts
}

// environment is how a process is told that it is a station: path, number, seed.
const environment = "HVNET_SOAK_STATION"

// joinProcess joins a guest in a process of its own.
func joinProcess(ctx context.Context, w *world, number int, seed uint64) (peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %s", environment, number, seed, w.path))
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(bufio.NewReader(out))
	if _, err := p.reply(); err != nil { // that it has joined
		return nil, errors.Join(err, p.end(true))
	}
	return p, nil
}

// end ends the process and waits until it is gone.
func (p *process) end(kill bool) error {
	p.in.Close()
	if kill {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		return nil
	}
	return p.cmd.Wait()
}

func (p *process) reply() (Counts, error) {
	var r reply
	if err := p.out.Decode(&r); err != nil {
		return p.last, fmt.Errorf("reply of a process: %w", err)
	}
	p.last = r.Counts
	if r.Err != "" {
		return p.last, errors.New(r.Err)
	}
	return p.last, nil
}

func (p *process) do(ctx context.Context, c command) (Counts, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch c.Do {
	case "die":
		return p.last, p.end(true)
	case "freeze":
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return p.last, err
		}
		pause(ctx, time.Duration(c.N)*time.Millisecond)
		return p.last, p.cmd.Process.Signal(syscall.SIGCONT)
	}
	// A station that hangs is a failure, not a soak that hangs.
	hung := time.AfterFunc(2*step, func() { p.cmd.Process.Kill() })
	defer hung.Stop()
	if err := json.NewEncoder(p.in).Encode(c); err != nil {
		return p.last, err
	}
	counts, err := p.reply()
	if c.Do == "leave" {
		err = errors.Join(err, p.end(false))
	}
	return counts, err
}

// stationMain is the process of a station. It returns its exit status.
func stationMain(what string) int {
	var number int
	var seed uint64
	var path string
	if _, err := fmt.Sscanf(what, "%d %d %s", &number, &seed, &path); err != nil {
		fmt.Fprintf(os.Stderr, "soak: %s=%s: %v\n", environment, strconv.Quote(what), err)
		return 2
	}
	ctx := context.Background()
	joining, cancel := context.WithTimeout(ctx, step)
	defer cancel()
	out := json.NewEncoder(os.Stdout)
	tell := func(c Counts, err error) {
		r := reply{Counts: c}
		if err != nil {
			r.Err = err.Error()
		}
		out.Encode(r)
	}
	s, err := attachStation(joining, path, number, seed)
	tell(Counts{}, err)
	if err != nil {
		return 1
	}
	in := json.NewDecoder(os.Stdin)
	for {
		var c command
		if err := in.Decode(&c); err != nil {
			return 1 // the soak is gone
		}
		err := s.do(ctx, c)
		tell(s.counts(), err)
		if c.Do == "leave" {
			return 0
		}
	}
}
