package attach_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hvnet/hv"
	"hvnet/hv/attach"
	"hvnet/hv/internal/boundary"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(secondProcess); path != "" {
		os.Exit(runSecondProcess(path))
	}
	goleak.VerifyTestMain(m)
}

// listen starts a host for a test.
func listen(t testing.TB, cfg attach.ListenConfig) (*attach.Listener, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "host")
	l, err := attach.Listen(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, path
}

// accept waits for the next guest.
func accept(t testing.TB, l *attach.Listener) (hv.Guest, attach.Hello) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), boundary.Patience)
	defer cancel()
	g, h, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g, h
}

// dial attaches a guest.
func dial(t testing.TB, path string, h attach.Hello) hv.Partition {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), boundary.Patience)
	defer cancel()
	p, err := attach.Dial(ctx, path, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func open(t *testing.T, vps int) (hv.Partition, hv.Guest) {
	l, path := listen(t, attach.ListenConfig{})
	p := dial(t, path, attach.Hello{VPs: vps})
	g, _ := accept(t, l)
	if p.VPs() != vps || g.VPs() != vps {
		t.Fatalf("%d and %d VPs, want %d", p.VPs(), g.VPs(), vps)
	}
	return p, g
}

func TestBoundary(t *testing.T) { boundary.Test(t, open) }

func TestHello(t *testing.T) {
	l, path := listen(t, attach.ListenConfig{})
	want := attach.Hello{Name: "gäst 1", VPs: hv.MaxVPs, Options: map[string]string{"nic.mac": "00:15:5d:00:00:01", "empty": ""}}
	dial(t, path, want)
	_, got := accept(t, l)
	if got.Name != want.Name || got.VPs != want.VPs || len(got.Options) != 2 || got.Options["nic.mac"] != want.Options["nic.mac"] {
		t.Errorf("host was told %+v", got)
	}
	for _, h := range []attach.Hello{
		{VPs: 0}, {VPs: hv.MaxVPs + 1}, {VPs: 1, Name: "two\nlines"}, {VPs: 1, Name: "\xff"},
		{VPs: 1, Name: string(make([]byte, 65))}, {VPs: 1, Options: map[string]string{"": "x"}},
		{VPs: 1, Options: map[string]string{"x": string(make([]byte, 9000))}},
	} {
		if p, err := attach.Dial(t.Context(), path, h); err == nil {
			p.Close()
			t.Errorf("%+v went through", h)
		}
	}
}

func TestRefusedByHost(t *testing.T) {
	_, path := listen(t, attach.ListenConfig{Admit: func(h attach.Hello) error {
		return errors.New("the name " + h.Name + " is taken")
	}})
	_, err := attach.Dial(t.Context(), path, attach.Hello{Name: "g1", VPs: 1})
	if !errors.Is(err, attach.ErrRefused) || !errors.Is(err, hv.StatusAccessDenied) {
		t.Errorf("error is %v", err)
	}
	want := "attach to the host at " + path + ": the host refused: hypercall: access denied: the name g1 is taken"
	if err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
}

func TestDialErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := attach.Dial(t.Context(), path, attach.Hello{VPs: 1}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	// A host that listens and never answers.
	silent, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := attach.Dial(ctx, path, attach.Hello{VPs: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent host: %v", err)
	}
}

func TestPath(t *testing.T) {
	l, path := listen(t, attach.ListenConfig{})
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket is %v, %v", st.Mode(), err)
	}
	if _, err := attach.Listen(path, attach.ListenConfig{}); !errors.Is(err, attach.ErrInUse) {
		t.Errorf("second host: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after the end: %v", err)
	}
	if _, _, err := l.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after the end: %v", err)
	}

	// A host that died leaves its socket.
	dead, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := attach.Dial(t.Context(), path, attach.Hello{VPs: 1}); !errors.Is(err, attach.ErrNoHost) {
		t.Errorf("dial of a stale socket: %v", err)
	}
	again, err := attach.Listen(path, attach.ListenConfig{})
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	// Its successor's socket is not removed by it.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	successor, err := attach.Listen(path, attach.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("successor's socket: %v", err)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := attach.Listen(file, attach.ListenConfig{}); err == nil {
		t.Error("a file was replaced")
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("file has %q, %v", b, err)
	}
}

func TestLongPath(t *testing.T) {
	dir := t.TempDir()
	for len(dir) < 200 {
		dir = filepath.Join(dir, "a-directory-with-a-long-name")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "host")
	l, err := attach.Listen(path, attach.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	dial(t, path, attach.Hello{VPs: 1})
	accept(t, l)
	if _, err := attach.Listen(path, attach.ListenConfig{}); !errors.Is(err, attach.ErrInUse) {
		t.Errorf("second host: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after the end: %v", err)
	}
	if _, err := attach.Listen(filepath.Join(dir, string(make([]byte, 120))), attach.ListenConfig{}); err == nil {
		t.Error("a name of 120 bytes was taken")
	}
}

func TestAcceptEnds(t *testing.T) {
	l, _ := listen(t, attach.ListenConfig{})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, _, err := l.Accept(ctx); !errors.Is(err, why) {
		t.Errorf("accept: %v", err)
	}
}
