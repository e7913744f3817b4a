// Package control is the way to a running driver or host from other processes: a
// Unix socket on which commands are called by name.
//
// The sockets of drivers have a fixed place, so that a command finds the driver of
// an interface by the network namespace that it runs in and the interface's name
// ([ServeDevice], [Device], [RuntimeDir]); other servers choose a path ([Serve],
// [Call]).
//
// # Protocol
//
// A connection carries one request and one reply, each a JSON object after its
// length in bytes as 4 bytes, most significant first:
//
//	{"method": "set-channels", "args": {"combined": 2}}
//	{"result": …}   or   {"error": {"text": "…", "kinds": ["invalid"]}}
//
// A request is at most 64 KiB long, a reply at most 8 MiB. A client that takes
// more than 5 seconds to send its request, or to take its reply, is cut off. When
// the client closes the connection before the reply, the command is cancelled. After the
// reply to a method that keeps the connection ([StreamHandler]) comes what that has to say.
// The socket's mode is 0600, and the server answers root and its own user alone.
package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// maxRequest and maxReply are the longest messages in bytes; callTimeout bounds a
// command, and so also the wait for its reply.
const (
	maxRequest  = 64 << 10
	maxReply    = 8 << 20
	callTimeout = time.Minute
)

// Errors of the protocol. Test with errors.Is.
var (
	// ErrUnknownMethod says that the server does not know the command, as one
	// of another version.
	ErrUnknownMethod = errors.New("unknown method")
	// ErrMalformed says that the other side does not speak the protocol.
	ErrMalformed = errors.New("malformed message")
	// ErrInUse says that a live server has the socket.
	ErrInUse = errors.New("in use by a running process")
)

// request and reply are the two messages.
type request struct {
	Method string          `json:"method"`
	Args   json.RawMessage `json:"args,omitempty"`
}

type reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *wireError      `json:"error,omitempty"`
}

// Call calls a method of the server at path and stores what it returns in result,
// a pointer, unless that is nil. args, which may be nil, and result are what
// encoding/json takes. An error of the method keeps its identity for errors.Is if
// it is one of package nic's, a missing permission, or one that a context ends
// with. Where nobody listens the error is os.ErrNotExist or ECONNREFUSED.
//
// If ctx ends first the method is cancelled.
func Call(ctx context.Context, path, method string, args, result any) error {
	if err := call(ctx, path, method, args, result); err != nil {
		return fmt.Errorf("call %s at %s: %w", method, path, err)
	}
	return nil
}

func call(ctx context.Context, path, method string, args, result any) error {
	ctx, cancel := callContext(ctx)
	defer cancel()
	c, err := connect(ctx, path)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := exchange(ctx, c, method, args)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(b, result); err != nil {
		return fmt.Errorf("decode result: %w", err)
	}
	return nil
}

// callContext bounds a call.
func callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("no answer within %v: %w", callTimeout, context.DeadlineExceeded))
}

func connect(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, bare(err)
	}
	return c.(*net.UnixConn), nil
}

// exchange sends a request and waits for its result. What the server sends after it is
// still to be read.
func exchange(ctx context.Context, c *net.UnixConn, method string, args any) (json.RawMessage, error) {
	req := request{Method: method}
	if args != nil {
		var err error
		if req.Args, err = json.Marshal(args); err != nil {
			return nil, fmt.Errorf("encode arguments: %w", err)
		}
	}
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	var r reply
	err := writeMessage(c, req, maxRequest)
	if err == nil || errors.Is(err, unix.EPIPE) {
		// A server that refuses its client says so without hearing it.
		err = readMessage(c, &r, maxReply)
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("wait for the answer: %w", bare(err))
	case r.Error != nil:
		return nil, r.Error.err()
	}
	return r.Result, nil
}

// bare takes off the address, which the caller names.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// writeMessage writes a message with its length in front.
func writeMessage(w io.Writer, m any, limit int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) > limit {
		return fmt.Errorf("message of %d bytes: longer than %d", len(b), limit)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// readMessage reads what writeMessage wrote. It takes memory only for what really
// comes, whatever the length says.
func readMessage(r io.Reader, m any, limit int) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || int64(n) > int64(limit) {
		return fmt.Errorf("%w: length %d, want 1 to %d", ErrMalformed, n, limit)
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(b) < int(n) {
		return io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}
