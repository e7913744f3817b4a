package tap

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
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
		n, _, err := q.ReadFrame(first, rest)
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
		if _, _, err := tap.Queue(0).ReadFrame(buf, nil); err != nil && !errors.Is(err, ErrRemoved) {
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
