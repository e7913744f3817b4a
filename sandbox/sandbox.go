// Package sandbox makes a network namespace with a process in it that has the
// rights of root there, and lets the caller, who stays outside, use them: open
// TAP interfaces, configure them, run commands.
//
// Go cannot unshare a user namespace in a running process, so the program starts
// itself again as a helper with clone flags: new network, mount and process
// namespaces for root, and a new user namespace in front of them for everyone
// else. The helper does what needs rights in the namespace and passes descriptors
// back over a socket; a TAP queue or a socket works from anywhere and belongs to
// the namespace that it was made in.
//
// Everything ends with the sandbox: the helper is the init process of its process
// namespace, so when it exits the kernel kills every process inside and removes
// the namespaces. It exits at Close, and when the process that made it dies, in
// whatever way.
//
// A program that uses the package calls [MaybeHelper] first thing in main.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/link/tap"
)

// ErrForbidden says that the machine does not let the caller make namespaces.
// What the sandbox is wanted for can be had without: the in-process IP stack needs
// no right at all.
var ErrForbidden = errors.New("this machine forbids user namespaces; the in-process IP stack does without")

// ErrClosed says that the sandbox is closed or its helper has died.
var ErrClosed = errors.New("the sandbox is closed")

// helloTimeout bounds how long the helper may take to start, closeTimeout how
// long to exit.
const (
	helloTimeout = 20 * time.Second
	closeTimeout = 5 * time.Second
)

// Config says how the sandbox is made.
type Config struct {
	// Stderr gets what the helper says if it crashes; nil: os.Stderr.
	Stderr *os.File
}

// A Sandbox is a set of namespaces of its own. Its methods may be called from
// several goroutines.
type Sandbox struct {
	conn  *conn
	hello hello

	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]chan reply // nil once the helper is gone

	process *os.Process
	exited  chan struct{} // closed when the helper is gone and reaped
	close   sync.Once
}

// reply is what the helper answered, with the descriptors that came along.
type reply struct {
	msg   message
	files []*os.File
}

// New makes a sandbox: a network namespace in which only lo is there and up. ctx
// bounds the making alone. The error is ErrForbidden where the machine does not
// allow it.
func New(ctx context.Context, cfg Config) (*Sandbox, error) {
	if os.Getenv(helperEnv) != "" {
		// Or helpers would start helpers without end.
		return nil, errors.New("make sandbox: this process is a helper itself: the program does not call sandbox.MaybeHelper")
	}
	flags := uintptr(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID)
	attempts := []uintptr{flags | unix.CLONE_NEWUSER}
	if os.Geteuid() == 0 {
		// Root without capabilities, as in a container, is like anyone else.
		attempts = []uintptr{flags, flags | unix.CLONE_NEWUSER}
	}
	var err error
	for _, flags := range attempts {
		var s *Sandbox
		if s, err = start(ctx, cfg, flags); err == nil {
			return s, nil
		}
		if !forbidden(err) {
			return nil, fmt.Errorf("make sandbox: %w", err)
		}
	}
	return nil, fmt.Errorf("make sandbox: %w (%w)", ErrForbidden, err)
}

// forbidden reports whether err is one of the ways in which kernels and their
// security modules refuse namespaces.
func forbidden(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// start starts the helper with the clone flags and waits for its hello.
func start(ctx context.Context, cfg Config, flags uintptr) (*Sandbox, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{helperName},
		Env:        append(os.Environ(), helperEnv+"=1"),
		ExtraFiles: []*os.File{theirs},
		Stderr:     os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: flags,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
	if cfg.Stderr != nil {
		cmd.Stderr = cfg.Stderr
	}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}

	s := &Sandbox{conn: ours, pending: make(map[uint64]chan reply), exited: make(chan struct{})}
	greeting := make(chan reply, 1)
	s.pending[0] = greeting

	// The parent-death signal comes when the thread that forked ends, so that
	// thread has to live as long as the helper.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(s.exited)
		err := cmd.Start()
		theirs.Close()
		if err == nil {
			s.process = cmd.Process
		}
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		ours.Close()
		return nil, fmt.Errorf("start helper: %w", err)
	}
	go s.receive()

	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	select {
	case r, ok := <-greeting:
		if !ok {
			s.Close()
			return nil, errors.New("the helper died before it was ready; does the program call sandbox.MaybeHelper?")
		}
		if err := r.msg.err(); err != nil {
			s.Close()
			return nil, fmt.Errorf("start helper: %w", err)
		}
		s.hello = r.msg.Hello
		return s, nil
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("wait for the helper to start: %w", context.Cause(ctx))
	}
}

// receive hands the helper's answers to whoever waits for them, until the helper
// is gone.
func (s *Sandbox) receive() {
	for {
		msg, files, err := s.conn.receive()
		s.mu.Lock()
		if err != nil {
			for _, ch := range s.pending {
				close(ch)
			}
			s.pending = nil
			s.mu.Unlock()
			return
		}
		ch := s.pending[msg.ID]
		delete(s.pending, msg.ID)
		s.mu.Unlock()
		if ch == nil { // its caller stopped waiting
			closeFiles(files)
			continue
		}
		ch <- reply{msg, files}
	}
}

// send sends a request and returns the channel that its answer comes on, which is
// closed if the helper dies first.
func (s *Sandbox) send(msg *message, files ...*os.File) (<-chan reply, error) {
	ch := make(chan reply, 1)
	s.mu.Lock()
	if s.pending == nil {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	s.nextID++
	msg.ID = s.nextID
	s.pending[msg.ID] = ch
	s.mu.Unlock()
	if err := s.conn.send(*msg, files...); err != nil {
		s.forget(msg.ID, ch)
		return nil, err
	}
	return ch, nil
}

// forget gives up waiting for an answer.
func (s *Sandbox) forget(id uint64, ch <-chan reply) {
	s.mu.Lock()
	delete(s.pending, id)
	s.mu.Unlock()
	select {
	case r := <-ch:
		closeFiles(r.files)
	default:
	}
}

// call sends a request and waits for its answer.
func (s *Sandbox) call(ctx context.Context, msg message) (reply, error) {
	ch, err := s.send(&msg)
	if err != nil {
		return reply{}, err
	}
	select {
	case r, ok := <-ch:
		if !ok {
			return reply{}, ErrClosed
		}
		return r, r.msg.err()
	case <-ctx.Done():
		s.forget(msg.ID, ch)
		return reply{}, fmt.Errorf("wait for the helper's answer: %w", context.Cause(ctx))
	}
}

// OpenTAP makes a TAP interface in the sandbox; see tap.Open for its errors. The
// caller closes it.
func (s *Sandbox) OpenTAP(ctx context.Context, cfg tap.Config) (*tap.TAP, error) {
	r, err := s.call(ctx, message{TAP: &cfg})
	if err != nil {
		closeFiles(r.files)
		return nil, err
	}
	if len(r.files) < 2 {
		closeFiles(r.files)
		return nil, fmt.Errorf("make interface %s: the helper sent %d descriptors", cfg.Name, len(r.files))
	}
	last := len(r.files) - 1
	return tap.FromFiles(cfg.Name, r.files[:last], r.files[last])
}

// Configure configures an interface of the sandbox like the function [Configure].
func (s *Sandbox) Configure(ctx context.Context, ifc Interface) error {
	_, err := s.call(ctx, message{Interface: &ifc})
	return err
}

// SetResolver gives the sandbox an /etc/resolv.conf of its own that names these
// servers. The machine's file must exist, for the sandbox's is mounted over it.
func (s *Sandbox) SetResolver(ctx context.Context, servers ...netip.Addr) error {
	if len(servers) == 0 {
		return errors.New("set resolver: no servers")
	}
	_, err := s.call(ctx, message{Resolver: servers})
	return err
}

// NetNSInode returns the inode number of the sandbox's network namespace, the
// number in its name net:[…].
func (s *Sandbox) NetNSInode() uint64 { return s.hello.NetNS }

// Done returns a channel that is closed when the sandbox is gone: after Close, or
// because its helper died.
func (s *Sandbox) Done() <-chan struct{} { return s.exited }

// Close kills every process in the sandbox and removes it. TAPs that it opened
// stay usable objects, but their interfaces are gone once they are closed too.
func (s *Sandbox) Close() error {
	s.close.Do(func() {
		s.conn.Close() // which the helper takes as the end
		select {
		case <-s.exited:
		case <-time.After(closeTimeout):
			s.process.Kill()
			<-s.exited
		}
	})
	return nil
}

// socketPair returns both ends of a new socket, the helper's as a file to inherit.
func socketPair() (*conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "sandbox"), os.NewFile(uintptr(fds[1]), "sandbox")
	c, err := newConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// newConn makes a connection of a socket, whose file it closes.
func newConn(f *os.File) (*conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor is a %T, not a Unix socket", c)
	}
	return &conn{UnixConn: u}, nil
}
