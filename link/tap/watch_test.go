package tap

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// watching watches the TAP until the end of the test, and returns what waits for a
// state, and what ends the watch and tells how it ended.
func watching(t *testing.T, tap *TAP) (await func(what string, want State), end func() error) {
	t.Helper()
	states := make(chan State, 100)
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- tap.Watch(ctx, func(s State) { states <- s }) }()
	await = func(what string, want State) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		var last State
		for {
			select {
			case last = <-states:
				if last == want {
					return
				}
			case err := <-ended:
				t.Fatalf("%s: the watch has ended: %v", what, err)
			case <-deadline:
				t.Fatalf("%s: the last state is %+v, want %+v", what, last, want)
			}
		}
	}
	end = func() error {
		stop()
		return <-ended
	}
	return await, end
}

// TestWatch sees what `ip link` does.
func TestWatch(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", MAC: macA, MTU: 1500})
	open(t, Config{Name: "other", MAC: macB})
	l := link(t, "eth0")
	await, end := watching(t, tap)
	want := State{MTU: 1500, MAC: macA}
	await("at first", want)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(netlink.LinkSetMTU(link(t, "other"), 1400))
	check(netlink.LinkSetMTU(l, 9000))
	want.MTU = 9000
	await("MTU", want)
	check(netlink.LinkSetUp(l))
	want.Up = true
	await("up", want)
	check(netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 9}))
	want.MAC = nic.MAC{2, 0, 0, 0, 0, 9}
	await("address", want)
	check(netlink.SetPromiscOn(l))
	want.Promiscuous = true
	await("promiscuous", want)

	// The way back.
	check(tap.SetNormal())
	want.Promiscuous = false
	await("not promiscuous", want)
	check(tap.SetMAC(macA))
	want.MAC = macA
	await("old address", want)
	check(tap.SetMTU(1500))
	want.MTU = 1500
	await("old MTU", want)
	check(tap.SetDown())
	want.Up = false
	await("down", want)
	if err := end(); err != nil {
		t.Errorf("at the end: %v", err)
	}

	// Another watch, of an interface that is removed.
	await, end = watching(t, tap)
	await("again", want)
	check(netlink.LinkDel(l))
	if err := end(); err != nil && !errors.Is(err, ErrRemoved) {
		t.Errorf("removed: %v", err)
	}
	if err := tap.Watch(t.Context(), func(State) {}); err == nil {
		t.Error("there is nothing to watch")
	}
}

// TestWatchOverrun has more happen than the socket holds while nobody reads: the
// last state is seen all the same.
func TestWatchOverrun(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", MAC: macA, MTU: 1500})
	l := link(t, "eth0")
	held, hold := make(chan struct{}), make(chan struct{})
	states := make(chan State, 10000)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	first := true
	go func() {
		ended <- tap.Watch(ctx, func(s State) {
			if first {
				first = false
				close(held)
				<-hold
			}
			states <- s
		})
	}()
	<-held
	for i := range 2000 {
		if err := netlink.LinkSetMTU(l, 1501+i%2); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetMTU(l, 1499); err != nil {
		t.Fatal(err)
	}
	close(hold)
	deadline := time.After(10 * time.Second)
	for n := 0; ; n++ {
		select {
		case s := <-states:
			if s.MTU != 1499 {
				continue
			}
			if n > 10 {
				t.Errorf("%d states of a burst, want few", n)
			}
		case <-deadline:
			t.Fatal("the last state does not come")
		}
		break
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWatchForged has somebody else than the kernel send to the socket.
func TestWatchForged(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", MAC: macA, MTU: 1500})
	l := link(t, "eth0")
	w := &watcher{ctl: tap.ctl, index: int32(l.Attrs().Index), buf: make([]byte, 4096)}
	var err error
	if w.rc, err = tap.ctl.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	kernel := func() {
		t.Helper()
		if err := w.ask(); err != nil {
			t.Fatal(err)
		}
		if s, ok, err := w.burst(); !ok || s.MTU != 1500 || err != nil {
			t.Errorf("the kernel says %+v, %v, %v", s, ok, err)
		}
	}
	kernel() // which gives the socket its address, too
	var to unix.Sockaddr
	if err := control(tap.ctl, func(fd int) (err error) { to, err = unix.Getsockname(fd); return }); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	m := unhex(t, linkMessage)
	binary.NativeEndian.PutUint32(m[unix.SizeofNlMsghdr+linkIndex:], uint32(l.Attrs().Index))
	if err := unix.Sendto(fd, m, 0, to); err != nil {
		t.Fatal(err)
	}
	if s, ok, err := w.burst(); ok || err != nil {
		t.Errorf("believed: %+v, %v", s, err)
	}
	kernel()
}

func TestWatchClosed(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0"})
	seen, ended := make(chan State, 10), make(chan error, 1)
	go func() { ended <- tap.Watch(context.Background(), func(s State) { seen <- s }) }()
	<-seen
	tap.Close()
	// The kernel tells of the removal, if it is read before the socket is closed.
	if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, ErrRemoved) {
		t.Errorf("after Close: %v", err)
	}
	without := &TAP{name: "eth0"}
	if err := without.Watch(t.Context(), nil); !errors.Is(err, nic.ErrNotSupported) {
		t.Errorf("without a socket: %v", err)
	}
}

// linkMessage is an RTM_NEWLINK of Linux, shortened: interface 7, up and promiscuous,
// named eth0, MTU 1400, address 00:15:5d:01:02:03, promiscuity 1.
const linkMessage = `
	48000000 1000 0000 00000000 00000000
	00 00 0100 07000000 43110000 00000000
	0900 0300 6574683000 000000
	0800 0400 78050000
	0a00 0100 00155d010203 0000
	0800 1e00 01000000`

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseLink(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	if got, want := linkRequest(7), unhex(t, `20000000 1200 0100 00000000 00000000 00000000 07000000 00000000 00000000`); !bytes.Equal(got, want) {
		t.Errorf("request is %x, want %x", got, want)
	}
	m := unhex(t, linkMessage)
	want := State{Up: true, MTU: 1400, MAC: macA, Promiscuous: true}
	if s, ok, removed := parseLink(m, 7); s != want || !ok || removed {
		t.Errorf("got %+v, %v, %v", s, ok, removed)
	}
	if _, ok, _ := parseLink(m, 8); ok {
		t.Error("that is another interface's state")
	}
	down := bytes.Clone(m)
	down[16+8] = 0x02
	if s, ok, _ := parseLink(append(m[:len(m):len(m)], down...), 7); !ok || s.Up {
		t.Errorf("the last of two says down, got %+v", s)
	}
	gone := bytes.Clone(m)
	gone[4] = 0x11
	if _, _, removed := parseLink(gone, 7); !removed {
		t.Error("RTM_DELLINK says removed")
	}
	gone[16] = 7 // AF_BRIDGE
	if _, ok, removed := parseLink(gone, 7); ok || removed {
		t.Error("a bridge that lets go of its port is no removal")
	}
	for n := range m {
		parseLink(m[:n], 7)
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(unhex(f, linkMessage))
	f.Fuzz(func(t *testing.T, b []byte) { parseLink(b, 7) })
}

// An attribute that claims more than there is says nothing, though the memory behind
// it has something to say; the last one may come without its padding.
func TestAttributesCutShort(t *testing.T) {
	mtu := binary.NativeEndian.AppendUint16(nil, 8)
	mtu = binary.NativeEndian.AppendUint16(mtu, unix.IFLA_MTU)
	mtu = binary.NativeEndian.AppendUint32(mtu, 1400)
	for n, want := range map[int]int{len(mtu): 1400, len(mtu) - 2: 0, 3: 0} {
		var s State
		if s.attributes(mtu[:n]); s.MTU != want {
			t.Errorf("%d bytes: MTU %d, want %d", n, s.MTU, want)
		}
	}
	mac := binary.NativeEndian.AppendUint16(nil, 10)
	mac = binary.NativeEndian.AppendUint16(mac, unix.IFLA_ADDRESS)
	mac = append(mac, 2, 0, 0, 0, 0, 9)
	var s State
	if s.attributes(mac); s.MAC != (nic.MAC{2, 0, 0, 0, 0, 9}) {
		t.Errorf("address %v without padding", s.MAC)
	}
}
