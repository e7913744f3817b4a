package control

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Handler is a method of a server. args is the JSON that the client sent, or
// empty; the result is encoded as JSON. ctx ends when the client leaves, when the
// server is closed, and after a minute. Handlers run concurrently.
type Handler func(ctx context.Context, args []byte) (result any, err error)

// limits bound what clients can take of a server.
type limits struct {
	io      time.Duration // for a request to come, and for a reply to be taken
	waiting int           // connections whose request has not come
}

var defaultLimits = limits{io: 5 * time.Second, waiting: 64}

// A Server answers calls on a socket until it is closed.
type Server struct {
	path     string
	listener *net.UnixListener
	inode    uint64
	handlers map[string]Handler
	limits   limits

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	waiting *list.List // of *net.UnixConn, oldest first
	streams map[string]StreamHandler

	removed func() // after Close has removed the socket; nil: nothing more
}

// Serve makes a socket at path, replacing one that a dead process left, and answers
// calls there in the background. ErrInUse says that a live process has it.
func Serve(path string, handlers map[string]Handler) (*Server, error) {
	return serve(path, handlers, defaultLimits)
}

func serve(path string, handlers map[string]Handler, lim limits) (*Server, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	s := &Server{path: path, listener: l, handlers: handlers, limits: lim, waiting: list.New()}
	if s.inode, err = inode(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s, nil
}

// Path returns the socket's path.
func (s *Server) Path() string { return s.path }

// Close removes the socket, cancels the calls that are going on and waits for their
// handlers.
func (s *Server) Close() error {
	// Another server may have taken the path after somebody removed ours.
	var err error
	if n, e := inode(s.path); e == nil && n == s.inode {
		err = os.Remove(s.path)
	}
	if s.removed != nil {
		s.removed()
	}
	s.cancel()
	if e := s.listener.Close(); !errors.Is(e, net.ErrClosed) {
		err = errors.Join(err, e)
	}
	s.mu.Lock()
	for e := s.waiting.Front(); e != nil; e = e.Next() {
		e.Value.(*net.UnixConn).Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	return nil
}

// maxPath is the longest path of a socket in bytes (sun_path of Linux, with its
// final 0).
const maxPath = 107

// listen makes the socket with mode 0600 from the start.
func listen(path string) (*net.UnixListener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("path of %d bytes: a socket's has at most %d", len(path), maxPath)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	for range 2 {
		l, err := lc.Listen(context.Background(), "unix", path)
		if err == nil {
			u := l.(*net.UnixListener)
			u.SetUnlinkOnClose(false)
			return u, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, bare(err)
		}
		if err := removeStale(path); err != nil {
			return nil, err
		}
	}
	return nil, ErrInUse // whoever took the path after we had removed the stale socket
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() != fs.ModeSocket {
		return errors.New("the file there is not a socket")
	}
	if alive(path) {
		return ErrInUse
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

// alive reports whether somebody listens at path. Only a refusal says for sure that
// nobody does; a listener whose queue is full is alive.
func alive(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT)
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, as a rule: try again when some may be back.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		s.wg.Go(func() { s.answer(c) })
	}
}

// answer serves one connection.
func (s *Server) answer(c *net.UnixConn) {
	defer c.Close()
	if err := checkPeer(c); err != nil {
		c.SetDeadline(time.Now().Add(s.limits.io))
		writeMessage(c, reply{Error: toWire(err)}, maxReply)
		return
	}
	req, err := s.request(c)
	if err != nil && !errors.Is(err, ErrMalformed) {
		return // cut off, or gone
	}
	if h := s.streamHandler(req.Method); err == nil && h != nil && s.handlers[req.Method] == nil {
		s.stream(c, h, req)
		return
	}
	var r reply
	if err == nil {
		r.Result, err = s.call(c, req)
	}
	if err != nil {
		r = reply{Error: toWire(err)}
	}
	c.SetWriteDeadline(time.Now().Add(s.limits.io))
	if err := writeMessage(c, r, maxReply); err != nil && len(r.Result) > maxReply/2 {
		writeMessage(c, reply{Error: toWire(err)}, maxReply)
	}
}

// request waits for a connection's request. When too many wait the oldest is cut
// off, so that who connects and says nothing shuts nobody out.
func (s *Server) request(c *net.UnixConn) (request, error) {
	s.mu.Lock()
	if s.ctx.Err() != nil { // Close has gone through the list
		s.mu.Unlock()
		return request{}, net.ErrClosed
	}
	e := s.waiting.PushBack(c)
	if s.waiting.Len() > s.limits.waiting {
		s.waiting.Remove(s.waiting.Front()).(*net.UnixConn).Close()
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.waiting.Remove(e)
		s.mu.Unlock()
	}()
	c.SetDeadline(time.Now().Add(s.limits.io))
	var req request
	err := readMessage(c, &req, maxRequest)
	return req, err
}

// call runs the handler of a request.
func (s *Server) call(c *net.UnixConn, req request) (json.RawMessage, error) {
	h := s.handlers[req.Method]
	if h == nil {
		return nil, fmt.Errorf("%w %q", ErrUnknownMethod, req.Method)
	}
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	// The client has nothing more to say: whatever a read returns, it is done.
	c.SetReadDeadline(time.Time{})
	left := make(chan struct{})
	go func() {
		defer close(left)
		c.Read(make([]byte, 1))
		cancel()
	}()
	result, err := h(ctx, req.Args)
	c.SetReadDeadline(time.Unix(1, 0))
	<-left
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(result)
	if err != nil {
		return nil, fmt.Errorf("encode result of %s: %w", req.Method, err)
	}
	return b, nil
}

// checkPeer refuses everybody but root and the server's own user.
func checkPeer(c *net.UnixConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if e := rc.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("ask for the client's user: %w", err)
	}
	return allow(int(cred.Uid), os.Geteuid())
}

func allow(peer, own int) error {
	if peer != 0 && peer != own {
		return fmt.Errorf("user %d may not give commands to a process of user %d: %w", peer, own, fs.ErrPermission)
	}
	return nil
}
