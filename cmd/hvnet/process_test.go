package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// patience is how long a test waits for what should come at once.
const patience = 30 * time.Second

// A process is a program that runs beside a test, in a process group of its own.
type process struct {
	name     string
	cmd      *exec.Cmd
	out, err output
	ended    chan struct{} // closed when it has ended
}

// spawn starts a program. It is killed when the test process dies.
func spawn(name, dir string, env, argv []string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait()
	}()
	return p, nil
}

// await waits until the program has printed what matches.
func (p *process) await(ctx context.Context, pattern string) error {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for over := false; ; {
		out, moreOut := p.out.read()
		errs, moreErr := p.err.read()
		switch {
		case re.Match(out) || re.Match(errs):
			return nil
		case over:
			return fmt.Errorf("%s ended without printing %q: %w", p.name, pattern, p.said())
		}
		select {
		case <-moreOut:
		case <-moreErr:
		case <-p.ended:
			over = true
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to print %q: %w: %w", p.name, pattern, ctx.Err(), p.said())
		}
	}
}

// end waits until the program has ended and returns its exit status, 128+n if
// signal n ended it.
func (p *process) end(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-p.ended:
	case <-ctx.Done():
		return -1, fmt.Errorf("wait for the end of %s: %w: %w", p.name, ctx.Err(), p.said())
	}
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// signal sends a signal to the program alone, not to its group.
func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// kill ends the program and all that it started in its group.
func (p *process) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// said returns what the program printed, as an error.
func (p *process) said() error {
	out, _ := p.out.read()
	errs, _ := p.err.read()
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

// A netns is a network namespace of a test.
type netns struct {
	name  string
	close func() error
}

var netnsCount struct {
	sync.Mutex
	n int
}

// newNetns makes a network namespace. It is removed, with the processes in it, at
// close, or when the test process dies in whatever way: a shell waits for that.
func newNetns() (*netns, error) {
	netnsCount.Lock()
	netnsCount.n++
	ns := &netns{name: fmt.Sprintf("hvnet-%d-%d", os.Getpid(), netnsCount.n)}
	netnsCount.Unlock()
	cmd := exec.Command("sh", "-c",
		`ip netns add "$1" && ip -n "$1" link set lo up && echo made; read x
		 ip netns pids "$1" | xargs -r kill -9; ip netns del "$1"`, "sh", ns.name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ns.close = func() error {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			said, _ := said.read()
			return fmt.Errorf("remove network namespace %s: %w: %s", ns.name, err, said)
		}
		return nil
	}
	wait := time.NewTimer(patience)
	defer wait.Stop()
	for {
		text, more := said.read()
		if string(text) == "made\n" {
			return ns, nil
		}
		if len(text) > 0 {
			return nil, errors.Join(fmt.Errorf("make network namespace %s: %s", ns.name, text), ns.close())
		}
		select {
		case <-more:
		case <-wait.C:
			return nil, errors.Join(fmt.Errorf("make network namespace %s: no answer", ns.name), ns.close())
		}
	}
}

// in returns the command line that runs argv in the namespace.
func (ns *netns) in(argv ...string) []string {
	return append([]string{"ip", "netns", "exec", ns.name}, argv...)
}
