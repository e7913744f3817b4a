package ivshmem

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/boundary"
)

// ramBytes is the memory of the test's machines.
const ramBytes = 8 << 20

// A machine is QEMU and the shim in its guest, as far as the host can tell: it speaks
// the ivshmem protocol and posts exits. Above that it is an hv.Partition.
type machine struct {
	conn   *net.UnixConn
	window []byte
	ram    []byte
	door   int   // the host's doorbell
	irqs   []int // of the VPs

	slots []sync.Mutex // the exit slots
	synic *hv.GuestSynIC

	mu   sync.Mutex
	next int // of the memory that is not allocated yet

	gone   sync.Once
	done   chan struct{}
	closed atomic.Bool

	shared int         // descriptor of the window, which QEMU keeps
	stays  atomic.Bool // goes on when its host ends
}

// ramFile makes the file that is a guest's memory.
func ramFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ram")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// listen makes a host that takes machines. Its socket and its memory file are given.
func listen(t testing.TB, vps int) (l *Listener, socket, ram string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, ram = filepath.Join(dir, "s"), ramFile(t, ramBytes)
	if l, err = Listen(socket, Config{RAM: ram, VPs: vps}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, socket, ram
}

// plug connects a machine and hears what the server says to it.
func plug(t testing.TB, socket, ram string, vps int) *machine {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{conn: c, slots: make([]sync.Mutex, vps), done: make(chan struct{}), next: 16 * hv.PageSize}
	t.Cleanup(func() {
		m.Close()
		for _, fd := range append(m.irqs, m.door, m.shared) {
			unix.Close(fd)
		}
	})
	c.SetReadDeadline(time.Now().Add(boundary.Patience))
	value, fd := m.hear(t)
	if value != 0 || fd >= 0 {
		t.Fatalf("protocol version %d", value)
	}
	if value, fd = m.hear(t); value != guestPeer || fd >= 0 {
		t.Fatalf("peer id %d", value)
	}
	if value, fd = m.hear(t); value != -1 || fd < 0 {
		t.Fatalf("shared memory: %d, descriptor %d", value, fd)
	}
	if m.shared, err = unix.Dup(fd); err != nil {
		t.Fatal(err)
	}
	m.window = mapShared(t, fd, windowSize)
	if value, m.door = m.hear(t); value != hostPeer || m.door < 0 {
		t.Fatalf("the host's doorbell: %d, descriptor %d", value, m.door)
	}
	for range vps {
		value, fd := m.hear(t)
		if value != guestPeer || fd < 0 {
			t.Fatalf("a vector of the guest: %d, descriptor %d", value, fd)
		}
		m.irqs = append(m.irqs, fd)
	}
	c.SetReadDeadline(time.Time{})
	file, err := os.OpenFile(ram, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd, err = unix.Dup(int(file.Fd()))
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	m.ram = mapShared(t, fd, ramBytes)
	go func() {
		io.Copy(io.Discard, c)
		if !m.stays.Load() {
			m.leave()
		}
	}()
	return m
}

// hear reads one message of the server, with its descriptor or -1.
func (m *machine) hear(t testing.TB) (value int64, fd int) {
	t.Helper()
	var b [8]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := m.conn.ReadMsgUnix(b[:], oob)
	if err != nil || n != 8 {
		t.Fatalf("hear the server: %d bytes, %v", n, err)
	}
	fd = -1
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, x := range messages {
		if fds, err := unix.ParseUnixRights(&x); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	return int64(binary.LittleEndian.Uint64(b[:])), fd
}

// mapShared maps a file and closes its descriptor.
func mapShared(t testing.TB, fd, size int) []byte {
	t.Helper()
	defer unix.Close(fd)
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// boot is what the shim and hv_vmbus do at first: it checks the window and sets up the
// SynIC of each VP.
func (m *machine) boot(t testing.TB) {
	t.Helper()
	if got := binary.LittleEndian.Uint64(m.window); got != magic {
		t.Fatalf("magic %#x", got)
	}
	if state, vps := atomic.LoadUint32(u32(m.window, offHostState)), atomic.LoadUint32(u32(m.window, offMaxVPs)); state != 1 || int(vps) != m.VPs() {
		t.Fatalf("host state %d, %d vectors", state, vps)
	}
	var err error
	eom := func() {
		for vp := range m.VPs() {
			m.writeMSR(vp, msrEOM, 0)
		}
	}
	if m.synic, err = hv.NewGuestSynIC(m.VPs(), m.Alloc, eom); err != nil {
		t.Fatal(err)
	}
	pages := m.synic.Pages()
	for vp := range m.VPs() {
		m.writeMSR(vp, msrSIMP, uint64(pages.Message[vp])|msrEnable)
		m.writeMSR(vp, msrSIEFP, uint64(pages.Event[vp])|msrEnable)
		m.writeMSR(vp, msrSINT0+hv.SINT, 0xf3)
		m.writeMSR(vp, msrSControl, msrEnable)
	}
}

var one = [8]byte{1}

// ring rings the host's doorbell.
func (m *machine) ring() { unix.Write(m.door, one[:]) }

// post posts an exit without waiting for the answer.
func (m *machine) post(vp int, kind uint32, a0, a1, a2 uint64) {
	slot := m.window[offExits+vp*exitSize:]
	atomic.StoreUint32(u32(slot, exitKind), kind)
	atomic.StoreUint64(u64(slot, exitA0), a0)
	atomic.StoreUint64(u64(slot, exitA1), a1)
	atomic.StoreUint64(u64(slot, exitA2), a2)
	atomic.StoreUint32(u32(slot, exitState), statePosted)
	m.ring()
}

// exit posts an exit and spins until it is answered; ok is false if the host is gone.
func (m *machine) exit(vp int, kind uint32, a0, a1, a2 uint64) (result uint64, ok bool) {
	m.slots[vp].Lock()
	defer m.slots[vp].Unlock()
	m.post(vp, kind, a0, a1, a2)
	slot := m.window[offExits+vp*exitSize:]
	for atomic.LoadUint32(u32(slot, exitState)) != stateDone {
		select {
		case <-m.done:
			return 0, false
		default:
			runtime.Gosched()
		}
	}
	result = atomic.LoadUint64(u64(slot, exitResult))
	atomic.StoreUint32(u32(slot, exitState), 0)
	return result, true
}

func (m *machine) writeMSR(vp int, number, value uint64) { m.exit(vp, kindWriteMSR, number, value, 0) }

func (m *machine) readMSR(vp int, number uint64) uint64 {
	v, _ := m.exit(vp, kindReadMSR, number, 0, 0)
	return v
}

// hypercall makes one on VP 0.
func (m *machine) hypercall(control, input uint64) error {
	status, ok := m.exit(0, kindHypercall, control, input, 0)
	if !ok {
		return hv.ErrGone
	}
	return hv.Status(status).Err()
}

func (m *machine) VPs() int { return len(m.slots) }

func (m *machine) Alloc(bytes int) (hv.Region, error) {
	if m.left() {
		return hv.Region{}, hv.ErrGone
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	size := (bytes + hv.PageSize - 1) &^ (hv.PageSize - 1)
	if bytes <= 0 || size > len(m.ram)-m.next {
		return hv.Region{}, hv.ErrLimit
	}
	at := m.next
	m.next += size
	return hv.Region{GPA: hv.GPA(at), Bytes: m.ram[at : at+size : at+size]}, nil
}

func (m *machine) Free(r hv.Region) error {
	if r.GPA < 16*hv.PageSize {
		return hv.ErrRegion
	}
	return nil
}

// PostMessage is HvCallPostMessage from a page of its own, once for each.
func (m *machine) PostMessage(conn uint32, payloads ...[]byte) error {
	if len(payloads) == 0 || len(payloads) > hv.MaxPosts {
		return hv.StatusInvalidParameter
	}
	for _, b := range payloads {
		if len(b) > hv.MaxPayload {
			return hv.StatusInvalidParameter
		}
	}
	for _, b := range payloads {
		if err := m.postOne(conn, b); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) postOne(conn uint32, payload []byte) error {
	if m.left() {
		return hv.ErrGone
	}
	const page = 8 * hv.PageSize
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.ram[page:]
	binary.LittleEndian.PutUint32(in[0:], conn)
	binary.LittleEndian.PutUint32(in[8:], hv.MessageVMBus)
	binary.LittleEndian.PutUint32(in[12:], uint32(len(payload)))
	copy(in[postHeader:], payload)
	return m.hypercall(callPostMessage, page)
}

// SignalEvent is the fast one, by the bitmap.
func (m *machine) SignalEvent(conn uint32) error {
	if conn >= hv.MaxConnectionID {
		return hv.ErrRange
	}
	if m.closed.Load() {
		return hv.ErrGone
	}
	atomic.OrUint64(u64(m.window, offSignals+int(conn)/64*8), 1<<(conn%64))
	m.ring()
	return nil
}

func (m *machine) Wait(vp int) error {
	if vp < 0 || vp >= m.VPs() {
		return hv.ErrRange
	}
	for !m.left() {
		p := []unix.PollFd{{Fd: int32(m.irqs[vp]), Events: unix.POLLIN}}
		if n, _ := unix.Poll(p, 20); n > 0 && new(emptier).take(uintptr(m.irqs[vp])) == 0 {
			return nil
		}
	}
	return hv.ErrGone
}

func (m *machine) TakeFlags(vp int, each func(flag int)) {
	if !m.closed.Load() {
		m.synic.TakeFlags(vp, each)
	}
}

func (m *machine) TakeMessage(vp int, msg *hv.Message) bool {
	return !m.closed.Load() && m.synic.TakeMessage(vp, msg)
}

func (m *machine) Done() <-chan struct{} { return m.done }

func (m *machine) leave() { m.gone.Do(func() { close(m.done) }) }

// left tells whether the host is gone, or we are.
func (m *machine) left() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

func (m *machine) Leave() {
	m.leave()
	m.conn.CloseWrite()
}

// Close unplugs the machine. Its memory stays mapped until the test ends.
func (m *machine) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.leave()
	if m.synic != nil {
		m.synic.Close()
	}
	return m.conn.Close()
}
