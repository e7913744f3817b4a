package control

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// streamServer serves a method that repeats its arguments and then what it hears, until
// it hears no more.
func streamServer(t *testing.T) (s *Server, ended chan struct{}) {
	t.Helper()
	s, _, _ = echoServer(t, defaultLimits)
	ended = make(chan struct{}, 16)
	s.Stream("repeat", func(_ context.Context, args []byte) (func(context.Context, *net.UnixConn), error) {
		if string(args) == `"no"` {
			return nil, fs.ErrPermission
		}
		return func(ctx context.Context, c *net.UnixConn) {
			defer func() { ended <- struct{}{} }()
			defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
			c.Write(args)
			io.Copy(c, c)
			c.Write([]byte(" end"))
		}, nil
	})
	return s, ended
}

func TestStream(t *testing.T) {
	s, ended := streamServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Open(ctx, s.Path(), "repeat", "hello")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel() // the call is over: the connection is ours
	if _, err := c.Write([]byte(" world")); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != `"hello" world end` {
		t.Errorf("%q, %v", got, err)
	}
	<-ended
	works(t, s.Path())
}

// A stream that is refused is a call that fails.
func TestStreamRefused(t *testing.T) {
	s, _ := streamServer(t)
	if _, err := Open(t.Context(), s.Path(), "repeat", "no"); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	if _, err := Open(t.Context(), s.Path(), "nothing", nil); !errors.Is(err, ErrUnknownMethod) {
		t.Error(err)
	}
	if _, err := Open(t.Context(), filepath.Join(t.TempDir(), "s"), "repeat", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, s.Path(), "repeat", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// When the server is closed streams end, and it waits for them; so do they when the client
// leaves.
func TestStreamEnds(t *testing.T) {
	s, ended := streamServer(t)
	gone, err := Open(t.Context(), s.Path(), "repeat", 1)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	<-ended
	c, err := Open(t.Context(), s.Path(), "repeat", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if got, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(got), " end") {
		t.Errorf("%q, %v", got, err)
	}
}

// A client that does not read holds up nobody for long when the server is closed.
func TestStreamStuck(t *testing.T) {
	s, _, _ := echoServer(t, limits{io: 50 * time.Millisecond, waiting: 4})
	failed := make(chan error, 1)
	s.Stream("flood", func(context.Context, []byte) (func(context.Context, *net.UnixConn), error) {
		return func(ctx context.Context, c *net.UnixConn) {
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					failed <- err
					return
				}
			}
		}, nil
	})
	c, err := Open(t.Context(), s.Path(), "flood", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
