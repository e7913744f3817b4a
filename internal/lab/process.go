// Package lab is what the tests of the whole program share: programs that run
// beside a test, network namespaces, iperf3, and a host with two guests. All of it
// goes when the test ends, in whatever way.
package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long a test waits for what should come at once.
const Patience = 30 * time.Second

// A Process is a program that runs beside a test, in a process group of its own.
// The group ends with it.
type Process struct {
	name     string // for errors
	cmd      *exec.Cmd
	out, err output
	ended    chan struct{} // closed when it has ended
}

// Spawn starts a program in a directory, with an environment (nil: this process's).
// It is killed when the test process dies.
func Spawn(name, dir string, env, argv []string) (*Process, error) {
	p := &Process{name: name, cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		// What it leaves behind goes before its process id, which is also the
		// group's, can become another's.
		pid := p.cmd.Process.Pid
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		syscall.Kill(-pid, syscall.SIGKILL)
		p.cmd.Wait()
	}()
	return p, nil
}

// Await waits until the program has printed what matches.
func (p *Process) Await(ctx context.Context, pattern string) error {
	return p.AwaitFor(ctx, int(Patience/time.Second), pattern)
}

// AwaitFor is Await for what takes a number of seconds.
func (p *Process) AwaitFor(ctx context.Context, seconds int, pattern string) error {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	for over := false; ; {
		out, moreOut := p.out.read()
		errs, moreErr := p.err.read()
		switch {
		case re.Match(out) || re.Match(errs):
			return nil
		case over:
			return fmt.Errorf("%s ended without printing %q: %w", p.name, pattern, p.Said())
		}
		select {
		case <-moreOut:
		case <-moreErr:
		case <-p.ended:
			over = true
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to print %q: %w: %w", p.name, pattern, ctx.Err(), p.Said())
		}
	}
}

// End waits until the program has ended and returns its exit status, 128+n if
// signal n ended it.
func (p *Process) End(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	select {
	case <-p.ended:
	case <-ctx.Done():
		return -1, fmt.Errorf("wait for the end of %s: %w: %w", p.name, ctx.Err(), p.Said())
	}
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// Signal sends a signal to the program alone, not to its group.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the program and all that it started in its group.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// Output returns what the program has printed so far.
func (p *Process) Output() (stdout, stderr []byte) {
	stdout, _ = p.out.read()
	stderr, _ = p.err.read()
	return stdout, stderr
}

// PID returns the process id of the program.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Said returns what the program printed, as an error.
func (p *Process) Said() error {
	out, errs := p.Output()
	return fmt.Errorf("it printed %q and %q", out, errs)
}

// output keeps what a program prints, and tells when there is more.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // closed when something comes
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.buf.Write(b)
}

// read returns all that was printed, and what is closed when there is more.
func (o *output) read() ([]byte, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return bytes.Clone(o.buf.Bytes()), o.more
}
