package control

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"hvnet/internal/need"
)

// callEnv makes the test program call the method echo of the socket that it names.
const callEnv = "HVNET_TEST_CALL"

func TestMain(m *testing.M) {
	if path := os.Getenv(callEnv); path != "" {
		err := Call(context.Background(), path, "echo", 1, nil)
		fmt.Println(err, errors.Is(err, fs.ErrPermission))
		return
	}
	goleak.VerifyTestMain(m)
}

// shortDir returns a directory whose path leaves room for a socket's.
func shortDir(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("/tmp", "hvnet")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// echoServer serves three methods: echo returns its arguments, fail an error, wait
// says that it has begun and returns when its context ends.
func echoServer(t *testing.T, lim limits) (s *Server, begun, ended chan error) {
	t.Helper()
	begun, ended = make(chan error, 1), make(chan error, 1)
	s, err := serve(filepath.Join(shortDir(t), "ctl"), map[string]Handler{
		"echo": func(_ context.Context, args []byte) (any, error) { return json.RawMessage(args), nil },
		"fail": func(_ context.Context, args []byte) (any, error) {
			var kind string
			json.Unmarshal(args, &kind)
			for _, k := range kinds {
				if k.name == kind {
					return nil, fmt.Errorf("the %s: %w", kind, k.err)
				}
			}
			return nil, errors.New("just so")
		},
		"wait": func(ctx context.Context, _ []byte) (any, error) {
			begun <- nil
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		},
		"big":    func(context.Context, []byte) (any, error) { return strings.Repeat("x", maxReply), nil },
		"broken": func(context.Context, []byte) (any, error) { return make(chan int), nil },
	}, lim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, begun, ended
}

// works fails the test unless the server answers.
func works(t *testing.T, path string) {
	t.Helper()
	var got []int
	if err := Call(t.Context(), path, "echo", []int{1, 2}, &got); err != nil || len(got) != 2 || got[1] != 2 {
		t.Errorf("echo: %v, %v", got, err)
	}
}

func TestCall(t *testing.T) {
	s, _, _ := echoServer(t, defaultLimits)
	works(t, s.Path())
	var null *int
	if err := Call(t.Context(), s.Path(), "echo", nil, &null); err != nil || null != nil {
		t.Errorf("echo of nothing: %v, %v", null, err)
	}
	for _, k := range kinds {
		err := Call(t.Context(), s.Path(), "fail", k.name, nil)
		if !errors.Is(err, k.err) || !strings.Contains(err.Error(), "the "+k.name) {
			t.Errorf("%s: %v", k.name, err)
		}
		for _, other := range kinds {
			if other.err != k.err && errors.Is(err, other.err) && !errors.Is(k.err, other.err) {
				t.Errorf("%s is also %s", k.name, other.name)
			}
		}
	}
	if err := Call(t.Context(), s.Path(), "fail", "none", nil); err == nil || !strings.HasSuffix(err.Error(), "just so") {
		t.Error(err)
	}
	if err := Call(t.Context(), s.Path(), "sing", nil, nil); !errors.Is(err, ErrUnknownMethod) {
		t.Error(err)
	}
	if err := Call(t.Context(), s.Path(), "big", nil, nil); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
	if err := Call(t.Context(), s.Path(), "broken", nil, nil); err == nil || !strings.Contains(err.Error(), "encode result") {
		t.Error(err)
	}
	if err := Call(t.Context(), s.Path(), "echo", make(chan int), nil); err == nil {
		t.Error("arguments that JSON cannot have: no error")
	}
	if err := Call(t.Context(), s.Path(), "echo", strings.Repeat("x", maxRequest), nil); err == nil {
		t.Error("a request that is too long: no error")
	}
	var n int
	if err := Call(t.Context(), s.Path(), "echo", "text", &n); err == nil {
		t.Error("a result of another type: no error")
	}
	if err := Call(t.Context(), s.Path()+"x", "echo", nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	fi, err := os.Stat(s.Path())
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v, %v", fi.Mode(), err)
	}
}

func TestCancelled(t *testing.T) {
	s, begun, ended := echoServer(t, defaultLimits)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	if err := Call(ctx, s.Path(), "wait", nil, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("handler's context: %v", err)
	}
	if err := Call(ctx, s.Path(), "echo", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

func TestCloseCancels(t *testing.T) {
	s, begun, ended := echoServer(t, defaultLimits)
	done := make(chan error)
	go func() { done <- Call(t.Context(), s.Path(), "wait", nil, nil) }()
	<-begun
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("handler's context: %v", err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("call: %v", err)
	}
	if _, err := os.Lstat(s.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket after Close: %v", err)
	}
}

func TestConcurrent(t *testing.T) {
	s, begun, _ := echoServer(t, defaultLimits)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { Call(ctx, s.Path(), "wait", nil, nil) })
	<-begun // one handler takes its time, and nobody waits for it
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				var got int
				if err := Call(t.Context(), s.Path(), "echo", i, &got); err != nil || got != i {
					t.Errorf("%d: %d, %v", i, got, err)
				}
			}
		})
	}
	works(t, s.Path())
	cancel()
	wg.Wait()
}

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", s.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// answer sends raw bytes and returns all that comes back.
func answer(t *testing.T, s *Server, b []byte) []byte {
	t.Helper()
	c := dial(t, s)
	c.Write(b) // the server may have had enough before the end
	c.(*net.UnixConn).CloseWrite()
	got, _ := io.ReadAll(c)
	return got
}

func framed(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

func TestMalformed(t *testing.T) {
	s, _, _ := echoServer(t, defaultLimits)
	for _, b := range [][]byte{
		nil, {0}, {0, 0, 0, 9}, framed(`{"method":"echo"}`)[:10], // cut short: no answer
	} {
		if got := answer(t, s, b); len(got) != 0 {
			t.Errorf("%q: answer %q", b, got)
		}
	}
	for _, b := range [][]byte{
		{0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, {0, 1, 0, 1}, framed("x"), framed("[]"), framed(`{"method":5}`), framed(`{"method":"echo"`),
	} {
		got := answer(t, s, b)
		if !bytes.Contains(got, []byte(`"kinds":["malformed"]`)) {
			t.Errorf("%q: answer %q", b, got)
		}
	}
	for _, text := range []string{`{}`, `null`, `{"method":""}`, `{"method":"no"}`} {
		if got := answer(t, s, framed(text)); !bytes.Contains(got, []byte("unknown-method")) {
			t.Errorf("%s: answer %q", text, got)
		}
	}
	works(t, s.Path())
}

// TestSilentClients: whoever connects and says nothing is cut off when others come,
// and in any case after a time.
func TestSilentClients(t *testing.T) {
	s, _, _ := echoServer(t, limits{io: time.Minute, waiting: 4})
	var silent []net.Conn
	for range 20 {
		c := dial(t, s)
		c.Write([]byte{0, 0})
		silent = append(silent, c)
		works(t, s.Path())
	}
	for _, c := range silent[:15] {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("an old silent client got an answer")
		}
	}

	s, _, _ = echoServer(t, limits{io: 10 * time.Millisecond, waiting: 4})
	c := dial(t, s)
	c.Write([]byte{0, 0})
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a silent client got an answer")
	}
}

// TestDeafClient asks for more than the socket holds and does not read it.
func TestDeafClient(t *testing.T) {
	s, _, _ := echoServer(t, limits{io: 20 * time.Millisecond, waiting: 4})
	s.handlers["long"] = func(context.Context, []byte) (any, error) { return strings.Repeat("x", 4<<20), nil }
	c := dial(t, s)
	c.Write(framed(`{"method":"long"}`))
	works(t, s.Path())
	s.Close() // waits for the handlers, and so for the deadline
	if n, _ := io.Copy(io.Discard, c); n >= 4<<20 {
		t.Errorf("got all %d bytes", n)
	}
}

// leaveSocket leaves a socket as a dead process does.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
}

func TestSockets(t *testing.T) {
	path := filepath.Join(shortDir(t), "ctl")
	first, err := Serve(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := Serve(path, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("second server: %v, want ErrInUse", err)
	}
	// Somebody removed ours, and another has the place: it is not ours to remove.
	os.Remove(path)
	second, err := Serve(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if !alive(path) {
		t.Error("closing the first server has removed the second's socket")
	}
	second.Close()

	leaveSocket(t, path)
	third, err := Serve(path, nil)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	third.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Serve(path, nil); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file is gone")
	}
	if _, err := Serve("/tmp/"+strings.Repeat("x", 200), nil); err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("long path: %v", err)
	}
	if _, err := Serve(filepath.Join(path, "no", "dir"), nil); err == nil {
		t.Error("no directory: no error")
	}
}

func TestAllow(t *testing.T) {
	if err := errors.Join(allow(0, 1000), allow(1000, 1000), allow(0, 0)); err != nil {
		t.Error(err)
	}
	for _, peer := range []int{1, 1000, 65534} {
		if err := allow(peer, 1001); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("user %d: %v", peer, err)
		}
	}
}

// TestOtherUser opens the socket's mode, so that the server itself must refuse.
func TestOtherUser(t *testing.T) {
	need.Root(t)
	s, _, _ := echoServer(t, defaultLimits)
	os.Chmod(filepath.Dir(s.Path()), 0o755)
	ask := func() string {
		cmd := exec.Command("/proc/self/exe")
		cmd.Dir, cmd.Env = "/", append(os.Environ(), callEnv+"="+s.Path(), "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	if got := ask(); !strings.Contains(got, "permission denied true") {
		t.Errorf("by the socket's mode: %s", got)
	}
	os.Chmod(s.Path(), 0o666)
	if got := ask(); !strings.Contains(got, "user 65534 may not give commands") || !strings.HasSuffix(got, " true") {
		t.Errorf("by the server: %s", got)
	}
}

func FuzzReadMessage(f *testing.F) {
	for _, s := range []string{`{"method":"echo","args":[1]}`, `{}`, ``, `{"result":1}`, `{"error":{"text":"x","kinds":["io"]}}`} {
		f.Add(framed(s))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var req request
		if err := readMessage(bytes.NewReader(b), &req, maxRequest); err == nil {
			var out bytes.Buffer
			if err := writeMessage(&out, req, 2*maxRequest); err != nil {
				t.Fatal(err)
			}
			var again request
			if err := readMessage(&out, &again, 2*maxRequest); err != nil || again.Method != req.Method {
				t.Fatalf("%q again: %+v, %v", b, again, err)
			}
		}
		var r reply
		if err := readMessage(bytes.NewReader(b), &r, maxReply); err == nil && r.Error != nil {
			// What an error is stays so on its way back, and unknown kinds
			// of a newer version are nothing.
			got := toWire(r.Error.err())
			for _, k := range kinds {
				if slices.Contains(r.Error.Kinds, k.name) != slices.Contains(got.Kinds, k.name) {
					t.Fatalf("%q: kinds %q became %q", b, r.Error.Kinds, got.Kinds)
				}
			}
		}
	})
}
