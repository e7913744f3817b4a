package attach

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/boundary"
	"hvnet/internal/need"
)

// TestModeFromBirth listens with no umask to help.
func TestModeFromBirth(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	_, path := testListen(t, ListenConfig{})
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket is %v, %v", st.Mode(), err)
	}
}

// asUser runs f on a thread of another user, which ends with it.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread dies with the goroutine
		// The raw system call changes this thread alone.
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		if errno != 0 {
			done <- errno
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestOtherUser connects as another user: the mode of the socket keeps it out,
// and where someone has changed that, its credentials do.
func TestOtherUser(t *testing.T) {
	need.Root(t)
	_, path := testListen(t, ListenConfig{})
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = 65534
	connect := func() (answer []byte, err error) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return nil, err
		}
		answer = make([]byte, maxReply)
		n, err := unix.Read(fd, answer)
		return answer[:max(n, 0)], err
	}
	asUser(t, nobody, func() {
		if _, err := connect(); !errors.Is(err, unix.EACCES) {
			t.Errorf("connect to a socket of mode 0600: %v", err)
		}
	})
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	asUser(t, nobody, func() {
		b, err := connect()
		if err != nil {
			t.Error(err)
			return
		}
		if r, err := parseReply(b); err != nil || r.status != hv.StatusAccessDenied || !strings.Contains(r.text, "user 65534 is neither root") {
			t.Errorf("answer %+v, %v", r, err)
		}
	})
}

// TestNothingRemains looks for descriptors and mappings after a guest has lived.
func TestNothingRemains(t *testing.T) {
	l, path := testListen(t, ListenConfig{})
	before := descriptors(t)
	for _, guestFirst := range []bool{true, false} {
		p, err := Dial(t.Context(), path, Hello{VPs: hv.MaxVPs})
		if err != nil {
			t.Fatal(err)
		}
		g, _, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- g.Serve(new(accepting)) }()
		var list []uint64
		for range 10 {
			r, err := p.Alloc(2 * hv.PageSize)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, r.PFN(1), r.PFN(0))
		}
		m, err := g.Memory().Map(list)
		if err != nil {
			t.Fatal(err)
		}
		if guestFirst {
			err = errors.Join(p.Close(), boundary.Await(t, served, "Serve"))
		} else {
			err = errors.Join(g.Close(), boundary.Await(t, served, "Serve"))
			boundary.Await(t, p.Done(), "the guest to notice")
		}
		if !errors.Is(err, hv.ErrGone) {
			t.Errorf("the end: %v", err)
		}
		if err := errors.Join(m.Close(), g.Close(), p.Close()); err != nil {
			t.Error(err)
		}
		awaitDescriptors(t, before)
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(maps, []byte("guest memory")); n != 0 {
			t.Errorf("%d mappings of guest memory are left", n)
		}
	}
}

// TestProcess: the host knows the process of a guest, for as long as it is there.
func TestProcess(t *testing.T) {
	l, path := testListen(t, ListenConfig{})
	p, err := Dial(t.Context(), path, Hello{VPs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	g, _, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := g.(interface{ Process() int })
	if n := of.Process(); n != os.Getpid() {
		t.Errorf("process %d, want %d", n, os.Getpid())
	}
	g.Close()
	if n := of.Process(); n != 0 {
		t.Errorf("process %d of a guest that was closed", n)
	}
}
