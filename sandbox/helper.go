package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"hvnet/link/tap"
)

// The helper is this program, started with this name, this variable in its
// environment and the socket as its descriptor 3.
const (
	helperName = "hvnet-sandbox"
	helperEnv  = "HVNET_SANDBOX_HELPER"
	helperFD   = 3
)

// MaybeHelper must be the first call in main of every program that makes sandboxes or
// uses [Exec]. In a process that the program started as its helper it does the
// helper's work and does not return; in every other it does nothing.
func MaybeHelper() {
	if os.Args[0] == filterName {
		err := becomeFiltered()
		fmt.Fprintf(os.Stderr, "hvnet: %v\n", err)
		os.Exit(exitNotExecutable)
	}
	if os.Args[0] != helperName || os.Getenv(helperEnv) == "" {
		return
	}
	os.Unsetenv(helperEnv)
	// Commands get a signal when the thread that started them ends: this one
	// ends with the process.
	runtime.LockOSThread()
	if err := help(); err != nil && !errors.Is(err, ErrClosed) { // the owner has left: nobody to tell
		fmt.Fprintf(os.Stderr, "%s: %v\n", helperName, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// help serves requests until the owner closes the socket.
func help() error {
	c, err := newConn(os.NewFile(helperFD, "sandbox"))
	if err != nil {
		return err
	}
	// The terminal sends its signals to everyone in front of it, but they are
	// for the command alone. They are caught, not ignored, for what is ignored
	// stays so in the command.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)

	h := &helper{conn: c}
	var msg message
	msg.Hello, err = h.prepare()
	msg.Error = toWire(err)
	if err := c.send(msg); err != nil || msg.Error != nil {
		return err
	}
	h.commands = startCommands(c)
	for {
		msg, files, err := c.receive()
		if err != nil {
			return nil
		}
		if err := h.serve(msg, files); err != nil {
			return err
		}
	}
}

// helper is the state of the helper process.
type helper struct {
	conn     *conn
	resolver resolver
	commands *commands
}

// prepare makes the fresh namespaces usable.
func (h *helper) prepare() (hello, error) {
	if err := privateMounts(); err != nil {
		return hello{}, err
	}
	if err := Configure(Interface{Name: "lo", Up: true}); err != nil {
		return hello{}, err
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/net", &st); err != nil {
		return hello{}, fmt.Errorf("find network namespace: %w", err)
	}
	return hello{NetNS: st.Ino}, nil
}

// serve does one request. Only a failure to answer is an error of its own.
func (h *helper) serve(req message, files []*os.File) error {
	defer closeFiles(files)
	answer := message{ID: req.ID}
	switch {
	case req.TAP != nil:
		queues, ctl, err := tap.OpenFiles(*req.TAP)
		answer.Error = toWire(err)
		var out []*os.File
		if err == nil {
			out = append(queues, ctl)
		}
		// The interface must go when the owner closes it, so nothing is kept.
		defer closeFiles(out)
		if len(out) > maxFiles {
			answer.Error = toWire(fmt.Errorf("make interface %s: at most %d queues in a sandbox", req.TAP.Name, maxFiles-1))
			out = nil
		}
		return h.conn.send(answer, out...)
	case req.Functions:
		return h.functions(answer)
	case req.Function != nil:
		return h.function(answer, *req.Function)
	case req.Socket != nil:
		return h.socket(answer, *req.Socket)
	case req.Interface != nil:
		answer.Error = toWire(Configure(*req.Interface))
	case req.Resolver != nil:
		answer.Error = toWire(h.resolver.set(req.Resolver))
	case req.Exec != nil:
		started, exit, err := h.commands.start(req.ID, *req.Exec, files)
		if started {
			return nil // answered at its end
		}
		answer.Exit, answer.Error = exit, toWire(err)
	case req.Signal != nil:
		h.commands.signal(*req.Signal)
		return nil
	default:
		answer.Error = toWire(fmt.Errorf("empty request"))
	}
	return h.conn.send(answer)
}
