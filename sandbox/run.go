package sandbox

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long a command may take to end after SIGTERM.
const grace = 5 * time.Second

// A Command is a program to run in the sandbox.
type Command struct {
	Args []string // the first is the program
	Env  []string // NAME=value, over the environment that this process had in New
	Dir  string   // "" means the directory that this process had in New
	// The standard files; nil: this process' own.
	Stdin, Stdout, Stderr *os.File
}

// Run runs a command in the sandbox and returns its exit status as a shell gives
// it: 127 not found and 126 not executable, both with an error that says why, and
// 128+n if signal n killed it. If the sandbox is closed meanwhile the status is 1
// and the error ErrClosed.
//
// The command is in the process group and on the terminal of this process, so that
// Ctrl-C and Ctrl-Z work as if it had been started directly. While it runs, HUP,
// INT, QUIT, TERM, USR1 and USR2 do nothing to this process but go to the command,
// unless the terminal has sent them to both. So ctx must not be one that ends by
// such a signal; when it ends the command gets SIGTERM, five seconds later
// SIGKILL, and its status is returned.
func (s *Sandbox) Run(ctx context.Context, cmd Command) (exit int, err error) {
	t := openTerminal()
	defer t.restore()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	files := []*os.File{cmd.Stdin, cmd.Stdout, cmd.Stderr}
	for i, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if files[i] == nil {
			files[i] = f
		}
	}
	req := message{Exec: &execRequest{Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir}}
	done, err := s.send(&req, files...)
	if err != nil {
		return 1, err
	}
	kill := func(sig syscall.Signal) {
		// If the helper is gone, done is about to be closed.
		s.conn.send(message{Signal: &signalRequest{Command: req.ID, Signal: sig}})
	}
	stop := ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case r, ok := <-done:
			if !ok {
				return 1, ErrClosed
			}
			return r.msg.Exit, r.msg.err()
		case sig := <-signals:
			if n, ok := sig.(syscall.Signal); ok && !t.sends(n) {
				kill(n)
			}
		case <-stop:
			stop = nil
			late = time.After(grace)
			kill(syscall.SIGTERM)
		case <-late:
			kill(syscall.SIGKILL)
		}
	}
}

// A terminal is the controlling terminal, if this process is in front of it.
type terminal struct {
	file *os.File // nil: it is not
}

func openTerminal() terminal {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return terminal{}
	}
	if group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		f.Close()
		return terminal{}
	}
	return terminal{f}
}

// sends reports whether a signal that this process got came from the terminal,
// which sends it to the command too.
func (t terminal) sends(sig syscall.Signal) bool {
	return t.file != nil && (sig == syscall.SIGINT || sig == syscall.SIGQUIT)
}

// restore puts this process in front again: a shell takes the terminal for itself,
// and one in another process namespace cannot name whom to give it back to.
func (t terminal) restore() {
	if t.file == nil {
		return
	}
	defer t.file.Close()
	own := unix.Getpgrp()
	if group, err := unix.IoctlGetInt(int(t.file.Fd()), unix.TIOCGPGRP); err == nil && group != own {
		// Who is not in front is stopped for trying, unless it ignores that.
		signal.Ignore(syscall.SIGTTOU)
		defer signal.Reset(syscall.SIGTTOU)
		unix.IoctlSetPointerInt(int(t.file.Fd()), unix.TIOCSPGRP, own)
	}
}
