package attach

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/boundary"
)

// TestSilentHost posts to a host that does not serve: the guest gets a status after a
// while, and gives the host up, for each further request would take as long.
func TestSilentHost(t *testing.T) {
	l, path := testListen(t, ListenConfig{})
	x, err := Dial(t.Context(), path, Hello{VPs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	g, _, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	p := x.(*partition)
	p.timeout = 20 * time.Millisecond
	if err := p.PostMessage(1, []byte("early")); !errors.Is(err, hv.StatusTimeout) {
		t.Errorf("post: %v", err)
	}
	p.timeout = boundary.Patience
	if err := p.PostMessage(1, []byte("late")); !errors.Is(err, hv.ErrGone) {
		t.Errorf("post after the host was given up: %v", err)
	}
	if _, err := p.Alloc(1); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Alloc after the host was given up: %v", err)
	}
	if err := p.Wait(0); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Wait after the host was given up: %v", err)
	}
}

// TestBadHost answers a guest's hello with all that a host must not send, and
// counts what the guest leaves open.
func TestBadHost(t *testing.T) {
	null, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	_, bellFD, err := newDoorbell()
	if err != nil {
		t.Fatal(err)
	}
	welcome := reply{hv.StatusSuccess, Version, ""}.append(nil, 0)
	for _, x := range []struct {
		name   string
		record []byte
		fds    []int
		want   error
	}{
		{"nothing", nil, nil, nil},
		{"short", welcome[:7], nil, errLength},
		{"half", welcome[:15], []int{bellFD, bellFD}, ErrProtocol},
		{"too long", append(welcome, make([]byte, 3000)...), []int{bellFD, bellFD}, ErrProtocol},
		{"answer to another", reply{}.append(nil, 9), []int{bellFD, bellFD}, ErrProtocol},
		{"other type", appendPost(nil, 0, 1, 1, nil), []int{bellFD, bellFD}, ErrProtocol},
		{"refusal with doorbells", reply{hv.StatusTimeout, Version, "later"}.append(nil, 0), []int{bellFD, bellFD}, ErrRefused},
		{"no doorbells", welcome, nil, ErrProtocol},
		{"one doorbell", welcome, []int{bellFD}, ErrProtocol},
		{"three doorbells", welcome, []int{bellFD, bellFD, bellFD}, ErrProtocol},
		{"many doorbells", welcome, make([]int, 200), ErrProtocol},
		{"a doorbell that is none", welcome, []int{bellFD, int(null.Fd())}, ErrProtocol},
	} {
		t.Run(x.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "host")
			host, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			before := descriptors(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := host.AcceptUnix()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				r, err := newReceiver(c, maxHello, maxRegions).next()
				if err != nil {
					t.Error(err)
				}
				r.close()
				if x.record != nil {
					if err := send(c, x.record, x.fds); err != nil {
						t.Error(err)
					}
				}
			}()
			p, err := Dial(t.Context(), path, Hello{VPs: 1})
			if err == nil {
				p.Close()
				t.Error("the guest is content")
			}
			if x.want != nil && !errors.Is(err, x.want) {
				t.Errorf("error is %v, want %v", err, x.want)
			}
			<-done
			awaitDescriptors(t, before)
		})
	}
	unix.Close(bellFD)
}
