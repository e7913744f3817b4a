package rtnl

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/need"
	"hvnet/nic"
)

// enter moves the test to a network namespace of its own, which ends with the thread.
func enter(t *testing.T) {
	t.Helper()
	need.Root(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) *os.File {
	t.Helper()
	ctl, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ctl.Close() })
	return ctl
}

// TestWatchName watches a name: interfaces of it come and go.
func TestWatchName(t *testing.T) {
	enter(t)
	ctl := open(t)
	states, ended := make(chan State, 100), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		ended <- Watch(ctx, ctl, Interface{Name: "v0"}, func(s State) error { states <- s; return nil })
	}()
	await := func(what string, good func(State) bool) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		var last State
		for !good(last) {
			select {
			case last = <-states:
			case <-deadline:
				t.Fatalf("%s: the last state is %+v", what, last)
			}
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	await("none yet", func(s State) bool { return s == State{Removed: true} })
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
	var before int32
	for range 2 {
		check(netlink.LinkAdd(pair))
		await("made", func(s State) bool { return s.Index != before && s.Index != 0 && s.Ethernet && s.MTU == 1500 && !s.Up })
		check(netlink.LinkSetUp(pair))
		await("up", func(s State) bool { before = s.Index; return s.Up && !s.Carrier })
		peer, err := netlink.LinkByName("v1")
		check(err)
		check(netlink.LinkSetUp(peer))
		await("carrier", func(s State) bool { return s.Carrier })
		check(netlink.LinkDel(pair))
		await("gone", func(s State) bool { return s == State{Removed: true} })
		pair.Attrs().Index = 0
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	enough := errors.New("enough")
	if err := Watch(t.Context(), ctl, Interface{Name: "v0"}, func(State) error { return enough }); err != enough {
		t.Errorf("watch ended with %v", err)
	}
}

// TestWatchForged has somebody else than the kernel send to the socket.
func TestWatchForged(t *testing.T) {
	enter(t)
	ctl := open(t)
	rc, err := ctl.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	index, err := Index(ctl, "lo")
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{ctl: ctl, rc: rc, question: request(Interface{Index: index}), mine: Interface{Index: index}.is, buf: make([]byte, 4096)}
	kernel := func() {
		t.Helper()
		if err := w.ask(); err != nil {
			t.Fatal(err)
		}
		if s, ok, err := w.burst(); !ok || s.MTU != 65536 || err != nil {
			t.Errorf("the kernel says %+v, %v, %v", s, ok, err)
		}
	}
	kernel() // which gives the socket its address, too
	var to unix.Sockaddr
	if err := Control(ctl, func(fd int) (err error) { to, err = unix.Getsockname(fd); return }); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	m := unhex(t, linkMessage)
	binary.NativeEndian.PutUint32(m[unix.SizeofNlMsghdr+linkIndex:], uint32(index))
	if err := unix.Sendto(fd, m, 0, to); err != nil {
		t.Fatal(err)
	}
	if s, ok, err := w.burst(); ok || err != nil {
		t.Errorf("believed: %+v, %v", s, err)
	}
	kernel()
}

// linkMessage is an RTM_NEWLINK of Linux, shortened: interface 7, up and promiscuous,
// named eth0, MTU 1400, address 00:15:5d:01:02:03, promiscuity 1.
const linkMessage = `
	48000000 1000 0000 00000000 00000000
	00 00 0100 07000000 43110100 00000000
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

func TestParse(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	if got, want := request(Interface{Index: 7}), unhex(t, `20000000 1200 0100 00000000 00000000 00000000 07000000 00000000 00000000`); !bytes.Equal(got, want) {
		t.Errorf("request is %x, want %x", got, want)
	}
	m := unhex(t, linkMessage)
	byName := unhex(t, `34000000 1200 0100 00000000 00000000 00000000 00000000 00000000 00000000 1400 0300 65746830 00000000 00000000 00000000`)
	if got := request(Interface{Name: "eth0"}); !bytes.Equal(got, byName) {
		t.Errorf("request by name is %x, want %x", got, byName)
	}
	want := State{Index: 7, Name: "eth0", Ethernet: true, Up: true, Carrier: true, MTU: 1400, MAC: nic.MAC{0, 0x15, 0x5d, 1, 2, 3}, Promiscuous: true}
	for _, of := range []Interface{{Index: 7}, {Index: 7, Name: "eth1"}, {Name: "eth0"}} {
		if s, ok := parse(m, of.is); s != want || !ok {
			t.Errorf("%+v: got %+v, %v", of, s, ok)
		}
	}
	for _, of := range []Interface{{Index: 8, Name: "eth0"}, {Name: "eth"}, {Name: "eth00"}} {
		if _, ok := parse(m, of.is); ok {
			t.Errorf("%+v: that is another interface's state", of)
		}
	}
	down := bytes.Clone(m)
	down[16+8] = 0x02
	if s, ok := parse(append(m[:len(m):len(m)], down...), Interface{Index: 7}.is); !ok || s.Up || s.Carrier {
		t.Errorf("the last of two says down, got %+v", s)
	}
	gone := bytes.Clone(m)
	gone[4] = 0x11
	for _, of := range []Interface{{Index: 7}, {Name: "eth0"}} {
		if s, ok := parse(gone, of.is); !ok || s != (State{Removed: true}) {
			t.Errorf("RTM_DELLINK says removed, got %+v", s)
		}
	}
	if s, ok := parse(append(gone[:len(gone):len(gone)], m...), Interface{Name: "eth0"}.is); !ok || s != want {
		t.Errorf("removed and made again: %+v", s)
	}
	gone[16] = 7 // AF_BRIDGE
	if _, ok := parse(gone, Interface{Index: 7}.is); ok {
		t.Error("a bridge that lets go of its port is no removal")
	}
	if s, ok := parse(unhex(t, `14000000 0200 0000 00000000 00000000 edffffff`), Interface{Name: "eth0"}.is); !ok || !s.Removed {
		t.Errorf("ENODEV says that there is none, got %+v", s)
	}
	if _, ok := parse(unhex(t, `14000000 0200 0000 00000000 00000000 ffffffff`), Interface{Name: "eth0"}.is); ok {
		t.Error("EPERM says nothing of the interface")
	}
	for n := range m {
		parse(m[:n], Interface{Index: 7}.is)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, linkMessage))
	f.Fuzz(func(t *testing.T, b []byte) {
		parse(b, Interface{Index: 7}.is)
		parse(b, Interface{Name: "eth0"}.is)
	})
}

// An attribute that claims more than there is says nothing, though the memory behind
// it has something to say; the last one may come without its padding.
func TestAttributesCutShort(t *testing.T) {
	mtu := binary.NativeEndian.AppendUint16(nil, 8)
	mtu = binary.NativeEndian.AppendUint16(mtu, unix.IFLA_MTU)
	mtu = binary.NativeEndian.AppendUint32(mtu, 1400)
	for n, want := range map[int]int{len(mtu): 1400, len(mtu) - 2: 0, 3: 0} {
		var s State
		if attributes(mtu[:n], s.attribute); s.MTU != want {
			t.Errorf("%d bytes: MTU %d, want %d", n, s.MTU, want)
		}
	}
	mac := binary.NativeEndian.AppendUint16(nil, 10)
	mac = binary.NativeEndian.AppendUint16(mac, unix.IFLA_ADDRESS)
	mac = append(mac, 2, 0, 0, 0, 0, 9)
	var s State
	if attributes(mac, s.attribute); s.MAC != (nic.MAC{2, 0, 0, 0, 0, 9}) {
		t.Errorf("address %v without padding", s.MAC)
	}
}
