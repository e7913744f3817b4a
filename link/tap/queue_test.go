package tap

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/need"
	"hvnet/nic"
)

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
				n, _, err := tap.Queue(i).ReadFrame(first, rest)
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
	n, _, err := q.ReadFrame(first, rest)
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
	if _, _, err := q.ReadFrame(nil, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrame after Close: %v", err)
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
				_, _, err := tap.Queue(i).ReadFrame(first, rest)
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
		n, _, err := from.ReadFrame(first, rest)
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

func TestWriteErrors(t *testing.T) {
	var c counters
	for _, e := range []syscall.Errno{unix.EIO, unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EBADFD, unix.EINVAL} {
		c.countWriteError(e)
	}
	if c.writeDown.Load() != 1 || c.writeBusy.Load() != 3 || c.writeClosed.Load() != 1 || c.writeRefused.Load() != 1 {
		t.Errorf("down %d busy %d closed %d refused %d", c.writeDown.Load(), c.writeBusy.Load(), c.writeClosed.Load(), c.writeRefused.Load())
	}
}
