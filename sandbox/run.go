package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	// Devices, if not nil, answer what the command and its children ask and set by
	// SIOCETHTOOL, the system call of ethtool and its like, of the interfaces that it
	// finds. Calls for others go to the kernel. Generic netlink, by which ethtool would
	// ask the kernel of them first, is refused to programs of that name.
	Devices Devices
	// Unserved is called if that cannot be, with the reason; the command runs all the
	// same. It is nil or must not block.
	Unserved func(error)
}

// files returns the command's standard files.
func (c *Command) files() []*os.File {
	files := []*os.File{c.Stdin, c.Stdout, c.Stderr}
	for i, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if files[i] == nil {
			files[i] = f
		}
	}
	return files
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
	files := cmd.files()
	if cmd.Devices != nil {
		theirs, stop, err := cmd.serve(ctx)
		if err != nil {
			return exitFailure, err
		}
		defer stop()
		defer theirs.Close()
		files = append(files, theirs)
	}
	w := newWatch()
	defer w.end()
	req := message{Exec: &execRequest{Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir}}
	done, err := s.send(&req, files...)
	if err != nil {
		return exitFailure, err
	}
	closeFiles(files[3:]) // only the command has it now
	r, ok := wait(ctx, w, done, func(sig syscall.Signal) {
		// If the helper is gone, done is about to be closed.
		s.conn.send(message{Signal: &signalRequest{Command: req.ID, Signal: sig}})
	})
	if !ok {
		return exitFailure, ErrClosed
	}
	return r.msg.Exit, r.msg.err()
}

// Exec runs a command as [Sandbox.Run] does, but in the namespaces of this process: for
// the sake of [Command.Devices].
func Exec(ctx context.Context, cmd Command) (exit int, err error) {
	if len(cmd.Args) == 0 {
		return exitNotExecutable, errors.New("start command: no program is named")
	}
	path, err := lookPath(cmd.Args[0], cmd.Dir, mergeEnv(os.Environ(), cmd.Env))
	if errors.Is(err, fs.ErrNotExist) {
		return exitNotFound, err
	}
	if err != nil {
		return exitNotExecutable, err
	}
	attr := &os.ProcAttr{Dir: cmd.Dir, Env: mergeEnv(os.Environ(), cmd.Env), Files: cmd.files()}
	args := cmd.Args
	if cmd.Devices != nil {
		theirs, stop, err := cmd.serve(ctx)
		if err != nil {
			return exitFailure, err
		}
		defer stop()
		defer theirs.Close()
		attr.Files = append(attr.Files, theirs)
		path, args = "/proc/self/exe", append([]string{filterName, path}, args...)
	}
	w := newWatch()
	defer w.end()
	p, err := os.StartProcess(path, args, attr)
	if err != nil {
		return exitNotExecutable, fmt.Errorf("start %s: %w", cmd.Args[0], err)
	}
	closeFiles(attr.Files[3:]) // only the command has it now
	done := make(chan syscall.WaitStatus, 1)
	go func() {
		defer close(done)
		if state, err := p.Wait(); err == nil {
			done <- state.Sys().(syscall.WaitStatus)
		}
	}()
	status, ok := wait(ctx, w, done, func(sig syscall.Signal) { p.Signal(sig) })
	if !ok {
		return exitFailure, fmt.Errorf("wait for %s: it is gone", cmd.Args[0])
	}
	return exitStatus(status), nil
}

// serve makes a socket for the second step of the command's start, and serves the command
// on what comes through it until stop is called.
func (c *Command) serve(ctx context.Context) (theirs *os.File, stop func(), err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	// What ends ctx is for the command to obey, and it is served until it has.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		listener, err := receiveListener(ours)
		if err != nil && c.Unserved != nil {
			c.Unserved(err)
		}
		if listener != nil {
			serveEthtool(ctx, listener, c.Devices)
		}
	}()
	return theirs, func() {
		cancel()
		ours.Close()
		<-ended
	}, nil
}

// A watch takes the signals that are for a command while it runs.
type watch struct {
	terminal terminal
	signals  chan os.Signal
}

func newWatch() *watch {
	w := &watch{openTerminal(), make(chan os.Signal, 8)}
	signal.Notify(w.signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	return w
}

func (w *watch) end() {
	signal.Stop(w.signals)
	w.terminal.restore()
}

// wait returns what comes from done, or false if it is closed. Meanwhile it passes on
// signals by kill, and when ctx ends it ends the command.
func wait[T any](ctx context.Context, w *watch, done <-chan T, kill func(syscall.Signal)) (result T, ok bool) {
	stop := ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case result, ok = <-done:
			return result, ok
		case sig := <-w.signals:
			if n, ok := sig.(syscall.Signal); ok && !w.terminal.sends(n) {
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
