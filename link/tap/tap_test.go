package tap

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/need"
	"hvnet/nic"
)

// enter moves the test to a network namespace of its own. The thread stays locked,
// so it ends with the test's goroutine and the namespace with it.
func enter(t testing.TB) {
	t.Helper()
	need.Root(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, cfg Config) *TAP {
	t.Helper()
	tap, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}

// up brings the interface up, without IPv6 so that the kernel sends nothing by
// itself.
func up(t testing.TB, name string) netlink.Link {
	t.Helper()
	off := "/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6" // of the opening thread's namespace
	if err := os.WriteFile(off, []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	l := link(t, name)
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	return l
}

func link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// packetSocket returns a socket that sends and receives whole frames of the type
// at the kernel's side of the interface.
func packetSocket(t testing.TB, l netlink.Link) int {
	t.Helper()
	const proto = testType>>8 | testType&0xff<<8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: l.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	tv := unix.Timeval{Sec: 5}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	return fd
}

const testType = 0x88b5 // for local experiments (IEEE 802)

var (
	macA = nic.MAC{0x00, 0x15, 0x5d, 1, 2, 3}
	macB = nic.MAC{0x00, 0x15, 0x5d, 4, 5, 6}
)

// frame returns an Ethernet frame of n bytes whose payload counts.
func frame(dst, src nic.MAC, n int) []byte {
	b := make([]byte, n)
	copy(b, dst[:])
	copy(b[6:], src[:])
	b[12], b[13] = testType>>8, testType&0xff
	for i := 14; i < n; i++ {
		b[i] = byte(i)
	}
	return b
}

// read waits for the next frame of the test's type and returns it, split at 60
// bytes.
func read(t testing.TB, q *Queue) []byte {
	t.Helper()
	first, rest := make([]byte, 60), make([]byte, 2000)
	for {
		n, err := q.ReadFrame(first, rest)
		if errors.Is(err, nic.ErrNoFrame) {
			if err := q.Wait(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b := append(bytes.Clone(first[:min(n, len(first))]), rest[:max(0, n-len(first))]...)
		if b[12] == testType>>8 && b[13] == testType&0xff {
			return b
		}
	}
}

func stat(t *testing.T, tap *TAP, name string) uint64 {
	t.Helper()
	for _, s := range tap.Stats() {
		if s.Name == name {
			return s.Value
		}
	}
	t.Fatalf("no counter %s", name)
	return 0
}

func TestInterface(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", Queues: 4, MAC: macA, MTU: 1400})
	l := link(t, "eth0")
	if got := l.Attrs().HardwareAddr.String(); got != macA.String() {
		t.Errorf("address %s, want %s", got, macA)
	}
	if got := l.Attrs().MTU; got != 1400 {
		t.Errorf("MTU %d, want 1400", got)
	}
	if got := l.Attrs().NumTxQueues; got < 4 {
		t.Errorf("%d transmit queues, want at least 4", got)
	}
	if err := tap.SetMTU(9000); err != nil {
		t.Fatal(err)
	}
	if got := link(t, "eth0").Attrs().MTU; got != 9000 {
		t.Errorf("MTU %d, want 9000", got)
	}

	up(t, "eth0")
	for _, state := range []bool{false, true} {
		if err := tap.SetLink(nic.LinkState{Up: state, Mbps: 40000}); err != nil {
			t.Fatal(err)
		}
		running := link(t, "eth0").Attrs().RawFlags&unix.IFF_LOWER_UP != 0
		if running != state {
			t.Errorf("carrier %v, want %v", running, state)
		}
	}

	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tap.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := netlink.LinkByName("eth0"); !errors.As(err, new(netlink.LinkNotFoundError)) {
		t.Errorf("after Close: %v, want no such interface", err)
	}
}

func TestSpeed(t *testing.T) {
	enter(t)
	need.Tool(t, "ethtool")
	tap := open(t, Config{Name: "eth0"})
	if err := tap.SetLink(nic.LinkState{Up: true, Mbps: 40000}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ethtool", "eth0").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Speed: 40000Mb/s")) || !bytes.Contains(out, []byte("Duplex: Full")) {
		t.Errorf("ethtool eth0: %v\n%s", err, out)
	}
}

func TestBothWays(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", Queues: 4, MAC: macA})
	fd := packetSocket(t, up(t, "eth0"))

	for _, n := range []int{14, 59, 60, 61, 1514} {
		want := frame(macB, macA, n)
		for pieces := range 3 {
			f := nic.Frame{Head: want, Channel: uint16(pieces)}
			for range pieces {
				cut := len(f.Head) / 2
				f.Body = append([][]byte{f.Head[cut:]}, f.Body...)
				f.Head = f.Head[:cut]
			}
			tap.WriteFrames([]nic.Frame{f})
			got := make([]byte, 2000)
			m, err := unix.Read(fd, got)
			if err != nil {
				t.Fatalf("%d bytes in %d pieces: %v", n, pieces+1, err)
			}
			if !bytes.Equal(got[:m], want) {
				t.Errorf("%d bytes in %d pieces: got %x", n, pieces+1, got[:m])
			}
		}
	}

	// The kernel chooses the queue by flow: all are read.
	got := make(chan []byte)
	var wg sync.WaitGroup
	for i := range tap.Queues() {
		wg.Go(func() {
			first, rest := make([]byte, 60), make([]byte, 2000)
			for {
				n, err := tap.Queue(i).ReadFrame(first, rest)
				switch {
				case err == nil:
					got <- append(bytes.Clone(first[:min(n, 60)]), rest[:max(0, n-60)]...)
				case errors.Is(err, nic.ErrNoFrame):
					tap.Queue(i).Wait()
				case errors.Is(err, net.ErrClosed):
					return
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	for _, n := range []int{14, 60, 61, 1514} {
		want := frame(macB, macA, n)
		if _, err := unix.Write(fd, want); err != nil {
			t.Fatal(err)
		}
		for {
			b := <-got
			if bytes.Equal(b, want) {
				break
			}
			if b[12] == testType>>8 && b[13] == testType&0xff {
				t.Errorf("%d bytes: got %x", n, b)
				break
			}
		}
	}
	tap.Close()
	wg.Wait()
}

func TestTooLong(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0"})
	fd := packetSocket(t, up(t, "eth0"))
	for _, n := range []int{1001, 1000} {
		if _, err := unix.Write(fd, frame(macB, macA, n)); err != nil {
			t.Fatal(err)
		}
	}
	q := tap.Queue(0)
	first, rest := make([]byte, 100), make([]byte, 900)
	n, err := q.ReadFrame(first, rest)
	if n != 1000 || err != nil {
		t.Errorf("got %d, %v, want the second frame's 1000", n, err)
	}
	if got := stat(t, tap, "tap_read_too_long"); got != 1 {
		t.Errorf("tap_read_too_long %d, want 1", got)
	}
}

func TestDropsByReason(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0"})
	good := nic.Frame{Head: frame(macB, macA, 60)}
	tap.WriteFrames([]nic.Frame{good, good})
	if got := stat(t, tap, "tap_write_down"); got != 2 {
		t.Errorf("tap_write_down %d, want 2", got)
	}
	up(t, "eth0")
	short := nic.Frame{Head: make([]byte, 13)}
	pieces := nic.Frame{Head: good.Head, Body: make([][]byte, maxPieces)}
	tap.WriteFrames([]nic.Frame{short, pieces, good})
	if got := stat(t, tap, "tap_write_refused"); got != 2 {
		t.Errorf("tap_write_refused %d, want 2", got)
	}
	tap.Close()
	tap.WriteFrames([]nic.Frame{good})
	if got := stat(t, tap, "tap_write_closed"); got != 1 {
		t.Errorf("tap_write_closed %d, want 1", got)
	}
}

func TestWait(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0"})
	fd := packetSocket(t, up(t, "eth0"))
	q := tap.Queue(0)

	q.Wake()
	if err := q.Wait(); err != nil {
		t.Errorf("Wait after Wake: %v", err)
	}

	done := make(chan error)
	go func() { done <- q.Wait() }()
	q.Wake()
	if err := <-done; err != nil {
		t.Errorf("Wake during Wait: %v", err)
	}

	// A frame that came before Wait was called is not forgotten.
	want := frame(macB, macA, 100)
	if _, err := unix.Write(fd, want); err != nil {
		t.Fatal(err)
	}
	if err := q.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, q); !bytes.Equal(got, want) {
		t.Errorf("got %x", got)
	}

	go func() { done <- q.Wait() }()
	tap.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close during Wait: %v", err)
	}
	if err := q.Wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Wait after Close: %v", err)
	}
	if _, err := q.ReadFrame(nil, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrame after Close: %v", err)
	}
}

func TestRemoved(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0"})
	l := up(t, "eth0")
	done := make(chan error)
	go func() { done <- tap.Queue(0).Wait() }()
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Wait: %v", err)
	}
	buf := make([]byte, 2000)
	for range 2 { // first what the kernel had sent, if anything
		if _, err := tap.Queue(0).ReadFrame(buf, nil); err != nil && !errors.Is(err, ErrRemoved) {
			t.Errorf("ReadFrame: %v, want ErrRemoved", err)
		}
	}
	if err := tap.SetCarrier(true); err == nil {
		t.Error("SetCarrier succeeds on a removed interface")
	}
}

func TestOpenRefused(t *testing.T) {
	for _, name := range []string{"", "sixteen-bytes-xx", "a/b", "a b", "eth%d", "a:b", ".", ".."} {
		if _, err := Open(Config{Name: name}); err == nil || !strings.Contains(err.Error(), "interface name") {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, n := range []int{-1, MaxQueues + 1} {
		if _, err := Open(Config{Name: "eth0", Queues: n}); err == nil {
			t.Errorf("%d queues: no error", n)
		}
	}
	if _, err := FromFiles("eth0", nil, nil); err == nil {
		t.Error("FromFiles without queues: no error")
	}

	enter(t)
	open(t, Config{Name: "eth0", Queues: 2})
	_, err := Open(Config{Name: "eth0", Queues: 2})
	if !errors.Is(err, ErrExists) {
		t.Errorf("second eth0: %v, want ErrExists", err)
	}
	if want := "make interface eth0: eth0 exists in this network namespace"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %q, want %q…", err, want)
	}
	// Not a TAP.
	if _, err := Open(Config{Name: "lo"}); !errors.Is(err, ErrExists) {
		t.Errorf("lo: %v, want ErrExists", err)
	}
	if _, err := Open(Config{Name: "eth1", MTU: 1 << 20}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("MTU 1 MiB: %v, want EINVAL", err)
	}
	if _, err := netlink.LinkByName("eth1"); err == nil {
		t.Error("eth1 is left after a failed Open")
	}
}

func TestOpenError(t *testing.T) {
	for err, want := range map[error]error{
		unix.ENOENT: ErrNoTun, unix.ENODEV: ErrNoTun, unix.ENXIO: ErrNoTun,
		unix.EACCES: ErrPermission, unix.EPERM: ErrPermission, unix.EMFILE: unix.EMFILE,
	} {
		if got := openError(err); !errors.Is(got, want) {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
	if os.Geteuid() == 0 {
		t.Skip("root may open " + Device)
	}
	_, err := Open(Config{Name: "hvnettest0"})
	if !errors.Is(err, ErrPermission) && !errors.Is(err, ErrNoTun) {
		t.Errorf("as ordinary user: %v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", Queues: 2})
	fd := packetSocket(t, up(t, "eth0"))
	one := frame(macB, macA, 1000)
	batch := []nic.Frame{
		{Head: one[:128], Body: [][]byte{one[128:500], one[500:]}},
		{Head: one[:128], Body: [][]byte{one[128:]}, Channel: 1},
	}
	tap.WriteFrames(batch) // grows the list of pieces
	if n := testing.AllocsPerRun(100, func() { tap.WriteFrames(batch) }); n != 0 {
		t.Errorf("WriteFrames: %v allocations", n)
	}

	first, rest := make([]byte, 200), make([]byte, 2000)
	frames := 0
	n := testing.AllocsPerRun(100, func() {
		unix.Write(fd, one)
		for i := range tap.Queues() {
			for {
				_, err := tap.Queue(i).ReadFrame(first, rest)
				if err != nil {
					break
				}
				frames++
			}
		}
	})
	if n != 0 || frames < 100 {
		t.Errorf("ReadFrame: %v allocations, %d frames", n, frames)
	}

	q := tap.Queue(0)
	if n := testing.AllocsPerRun(100, func() { q.Wake(); q.Wait() }); n != 0 {
		t.Errorf("Wake and Wait: %v allocations", n)
	}
}

// TestPing lets the IP stacks of two namespaces talk through two TAPs whose queues
// are joined.
func TestPing(t *testing.T) {
	need.Root(t)
	need.Tool(t, "ping")
	var taps [2]*TAP
	ping := make(chan struct{})
	var sides sync.WaitGroup
	var ready sync.WaitGroup
	ready.Add(2)
	for i, addr := range []string{"198.18.0.1/24", "198.18.0.2/24"} {
		sides.Go(func() {
			runtime.LockOSThread()
			err := unix.Unshare(unix.CLONE_NEWNET)
			if err == nil {
				taps[i], err = Open(Config{Name: "eth0", Queues: 2})
			}
			if err == nil {
				var l netlink.Link
				if l, err = netlink.LinkByName("eth0"); err == nil {
					p := netip.MustParsePrefix(addr)
					ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
					err = errors.Join(netlink.AddrAdd(l, &netlink.Addr{IPNet: ip}), netlink.LinkSetUp(l))
				}
			}
			if err != nil {
				t.Errorf("side %d: %v", i, err)
			}
			ready.Done()
			<-ping
			if i == 0 && !t.Failed() {
				out, err := exec.Command("ping", "-c", "3", "-i", "0.01", "-W", "2", "-s", "1400", "198.18.0.2").CombinedOutput()
				if err != nil || !bytes.Contains(out, []byte(" 0% packet loss")) {
					t.Errorf("ping: %v\n%s", err, out)
				}
			}
		})
	}
	ready.Wait()
	var copiers sync.WaitGroup
	if !t.Failed() {
		for i := range taps {
			for q := range taps[i].Queues() {
				copiers.Go(func() { copyFrames(t, taps[i].Queue(q), taps[1-i].Queue(q)) })
			}
		}
	}
	close(ping)
	sides.Wait()
	for _, tap := range taps {
		if tap != nil {
			tap.Close()
		}
	}
	copiers.Wait()
}

func copyFrames(t *testing.T, from nic.Source, to nic.Sink) {
	first, rest := make([]byte, nic.HeadLen), make([]byte, 2000)
	f := []nic.Frame{{Body: make([][]byte, 1)}}
	for {
		n, err := from.ReadFrame(first, rest)
		switch {
		case err == nil:
			f[0].Head, f[0].Body[0] = first[:min(n, len(first))], rest[:max(0, n-len(first))]
			to.WriteFrames(f)
		case errors.Is(err, nic.ErrNoFrame):
			from.Wait()
		case errors.Is(err, net.ErrClosed):
			return
		default:
			t.Error(err)
			return
		}
	}
}

// TestPassed hands the descriptors to a holder that lives in another namespace.
func TestPassed(t *testing.T) {
	need.Root(t)
	type made struct {
		queues []*os.File
		ctl    *os.File
		err    error
	}
	ch := make(chan made)
	check := make(chan struct{})
	mtu := make(chan int)
	go func() {
		runtime.LockOSThread()
		var m made
		if m.err = unix.Unshare(unix.CLONE_NEWNET); m.err == nil {
			m.queues, m.ctl, m.err = OpenFiles(Config{Name: "hvnettest0", Queues: 2})
		}
		ch <- m
		<-check
		l, err := netlink.LinkByName("hvnettest0")
		if err != nil {
			mtu <- 0
			return
		}
		mtu <- l.Attrs().MTU
	}()
	m := <-ch
	if m.err != nil {
		t.Fatal(m.err)
	}
	tap, err := FromFiles("hvnettest0", m.queues, m.ctl)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	if err := errors.Join(tap.SetMTU(1280), tap.SetLink(nic.LinkState{Up: true, Mbps: 100})); err != nil {
		t.Error(err)
	}
	close(check)
	if got := <-mtu; got != 1280 {
		t.Errorf("MTU %d, want 1280", got)
	}
	if _, err := net.InterfaceByName("hvnettest0"); err == nil {
		t.Error("the interface is in the holder's namespace")
	}
}

func TestWriteErrors(t *testing.T) {
	var c counters
	for _, e := range []syscall.Errno{unix.EIO, unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EBADFD, unix.EINVAL} {
		c.countWriteError(e)
	}
	if c.writeDown.Load() != 1 || c.writeBusy.Load() != 3 || c.writeClosed.Load() != 1 || c.writeRefused.Load() != 1 {
		t.Errorf("down %d busy %d closed %d refused %d", c.writeDown.Load(), c.writeBusy.Load(), c.writeClosed.Load(), c.writeRefused.Load())
	}
}
