package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// A StreamHandler is a method of a server that keeps the connection. args is the JSON
// that the client sent, or empty. When the client has had the reply, the stream is called
// with the connection, for as long as it likes; it ends when ctx does, which is when the
// server is closed, and when the client leaves, which it hears of by reading. It need not
// close the connection.
//
// A stream that was returned is called once in any case, so that it can undo what the
// handler has done: with a connection that is closed if the client did not take the reply.
type StreamHandler func(ctx context.Context, args []byte) (stream func(ctx context.Context, c *net.UnixConn), err error)

// streamEnd is how long a stream may go on, reading and writing, when the server is closed.
const streamEnd = time.Second

// Stream adds a method that keeps the connection. Methods that the server had from the
// beginning go before it.
func (s *Server) Stream(method string, h StreamHandler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		s.streams = map[string]StreamHandler{}
	}
	s.streams[method] = h
}

// streamHandler returns the handler of a method, nil if it is none that keeps the
// connection.
func (s *Server) streamHandler(method string) StreamHandler {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[method]
}

// stream answers a request for a stream.
func (s *Server) stream(c *net.UnixConn, h StreamHandler, req request) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	run, err := h(ctx, req.Args)
	var r reply
	if err != nil {
		r = reply{Error: toWire(err)}
	}
	c.SetDeadline(time.Now().Add(s.limits.io))
	if e := writeMessage(c, r, maxReply); e != nil {
		c.Close()
	}
	if err != nil {
		return
	}
	c.SetDeadline(time.Time{})
	// Nobody waits for a client that reads no more when the server is closed.
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Now().Add(min(s.limits.io, streamEnd))) })()
	run(ctx, c)
}

// Open calls a method of the server at path that keeps the connection, and returns that.
// ctx bounds the call alone. Errors are those of [Call].
func Open(ctx context.Context, path, method string, args any) (*net.UnixConn, error) {
	c, err := open(ctx, path, method, args)
	if err != nil {
		return nil, fmt.Errorf("call %s at %s: %w", method, path, err)
	}
	return c, nil
}

func open(ctx context.Context, path, method string, args any) (_ *net.UnixConn, err error) {
	ctx, cancel := callContext(ctx)
	defer cancel()
	c, err := connect(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if _, err := exchange(ctx, c, method, args); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // it may have cut the connection off already
		return nil, context.Cause(ctx)
	}
	return c, nil
}

// Stream calls a method of the driver that keeps the connection, see [Open]. The error is
// nic.ErrNoDevice if the driver is gone.
func (c *Client) Stream(ctx context.Context, method string, args any) (*net.UnixConn, error) {
	conn, err := Open(ctx, c.path, method, args)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %w", nic.ErrNoDevice, err)
	}
	return conn, err
}
