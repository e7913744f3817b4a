package xdp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

const (
	// chunk is the memory of a frame in bytes: a page, the most that the kernel takes.
	chunk = 4096
	// headroom is what the kernel keeps in front of a frame that it receives.
	headroom = unix.XDP_PACKET_HEADROOM
	// MaxMTU is the largest MTU whose frames, with a tag, fit.
	MaxMTU = chunk - headroom - nic.HeaderLen - nic.TagLen

	// received and sent are how many frames there is memory for, of each queue: that many
	// may wait to be received, and to be sent.
	received = 2048
	sent     = 512

	// batch is how many frames are passed on at a time.
	batch = 64

	// inUse is how long a queue may be in use after whoever had it has closed it: the
	// kernel gives it up in its own time.
	inUse = 2 * time.Second
)

// A queue is the socket of one queue of the interface, with memory of its own for frames
// (UMEM): first the chunks to receive to, then those to send from.
type queue struct {
	number int
	file   *os.File
	rc     syscall.RawConn
	mem    []byte

	fill       ring[uint64] // chunks for the kernel to receive to
	rx         ring[unix.XDPDesc]
	tx         ring[unix.XDPDesc]
	completion ring[uint64] // chunks that the kernel has sent
	zeroCopy   bool

	// Of Receive.
	turn     func(fd uintptr) bool
	passing  sync.Mutex // held from before a batch is received until its chunks are given back
	to       nic.Sink   // under passing; nil: nobody receives
	frames   [batch]nic.Frame
	taken    int           // entries of rx that frames are of, those too short too
	n        int           // frames
	passed   atomic.Uint32 // entries of rx that the sink has returned from
	tooShort atomic.Uint64

	// Of WriteFrames.
	mu     sync.Mutex
	fd     int
	closed bool
	free   []uint64 // chunks
	next   uint32   // producer of tx, ahead of what the kernel sees
	out    sendStats
	down   atomic.Uint64 // how often the interface was down or gone, read by anybody

	last unix.XDPStatistics
}

// openQueue makes a socket for a queue of an interface. It has frames once a program
// gives it some.
func openQueue(ctx context.Context, index int32, number int) (q *queue, err error) {
	q = &queue{number: number}
	defer func() {
		if err != nil {
			q.close()
			q.unmap()
			q = nil
		}
	}()
	if q.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return q, fmt.Errorf("open an AF_XDP socket: %w", err)
	}
	q.file = os.NewFile(uintptr(q.fd), "xdp")
	if q.rc, err = q.file.SyscallConn(); err != nil {
		return q, err
	}
	q.turn = q.takeTurn
	// The memory is what limits how much may wait to be sent.
	if err := unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*sent*chunk); err != nil {
		return q, fmt.Errorf("SO_SNDBUFFORCE: %w", err)
	}
	if q.mem, err = unix.Mmap(-1, 0, (received+sent)*chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
		return q, os.NewSyscallError("mmap of memory for frames", err)
	}
	if err := q.rings(); err != nil {
		return q, err
	}
	for i := range uint32(received) {
		*q.fill.entry(i) = uint64(i) * chunk
	}
	q.fill.producer.Store(received)
	for i := range uint64(sent) {
		q.free = append(q.free, (received+i)*chunk)
	}
	if err := q.bind(ctx, index); err != nil {
		return q, err
	}
	var options [4]byte // struct xdp_options
	if err := q.getsockopt(unix.XDP_OPTIONS, unsafe.Pointer(&options), unsafe.Sizeof(options)); err != nil {
		return q, err
	}
	q.zeroCopy = options[0]&unix.XDP_OPTIONS_ZEROCOPY != 0
	return q, nil
}

// rings registers the memory, and makes and maps the rings.
func (q *queue) rings() error {
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(q.mem)))), Len: uint64(len(q.mem)), Size: chunk}
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(q.fd), unix.SOL_XDP, unix.XDP_UMEM_REG, uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	if e != 0 {
		return fmt.Errorf("XDP_UMEM_REG: %w", e)
	}
	for _, o := range []struct {
		name      string
		option, n int
	}{
		{"XDP_UMEM_FILL_RING", unix.XDP_UMEM_FILL_RING, received},
		{"XDP_UMEM_COMPLETION_RING", unix.XDP_UMEM_COMPLETION_RING, sent},
		{"XDP_RX_RING", unix.XDP_RX_RING, received},
		{"XDP_TX_RING", unix.XDP_TX_RING, sent},
	} {
		if err := unix.SetsockoptInt(q.fd, unix.SOL_XDP, o.option, o.n); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	var at unix.XDPMmapOffsets
	err := q.getsockopt(unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&at), unsafe.Sizeof(at))
	if err != nil {
		return err
	}
	if q.fill, err = mapRing[uint64](q.fd, received, at.Fr, unix.XDP_UMEM_PGOFF_FILL_RING); err != nil {
		return err
	}
	if q.completion, err = mapRing[uint64](q.fd, sent, at.Cr, unix.XDP_UMEM_PGOFF_COMPLETION_RING); err != nil {
		return err
	}
	if q.rx, err = mapRing[unix.XDPDesc](q.fd, received, at.Rx, unix.XDP_PGOFF_RX_RING); err != nil {
		return err
	}
	q.tx, err = mapRing[unix.XDPDesc](q.fd, sent, at.Tx, unix.XDP_PGOFF_TX_RING)
	return err
}

// bind takes the queue of the interface, without copies if the driver can.
func (q *queue) bind(ctx context.Context, index int32) error {
	ctx, stop := context.WithTimeout(ctx, inUse)
	defer stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Bind(q.fd, &unix.SockaddrXDP{Flags: unix.XDP_USE_NEED_WAKEUP, Ifindex: uint32(index), QueueID: uint32(q.number)})
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("bind an AF_XDP socket to queue %d: %w", q.number, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: queue %d has an AF_XDP socket already", ErrBusy, q.number)
		case <-again.C:
		}
	}
}

func (q *queue) getsockopt(option uintptr, p unsafe.Pointer, n uintptr) error {
	length := uint32(n)
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(q.fd), unix.SOL_XDP, option, uintptr(p), uintptr(unsafe.Pointer(&length)), 0)
	if e != 0 {
		return fmt.Errorf("ask an AF_XDP socket for option %d: %w", option, e)
	}
	return nil
}

// lost returns what the kernel has dropped, also after close.
func (q *queue) lost() unix.XDPStatistics {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ask()
	return q.last
}

func (q *queue) ask() {
	if !q.closed {
		q.getsockopt(unix.XDP_STATISTICS, unsafe.Pointer(&q.last), unsafe.Sizeof(q.last))
	}
}

// close closes the socket. The rings, which hold it, stay until unmap. What the kernel has
// yet to send it never does.
func (q *queue) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.file == nil {
		return nil
	}
	q.ask()
	q.closed = true
	if q.tx.mem != nil {
		q.out.closed += uint64(q.tx.filled())
	}
	return q.file.Close()
}

// unmap gives up the memory. Nobody may use the queue any more but to be told that it is
// closed.
func (q *queue) unmap() {
	q.fill.unmap()
	q.completion.unmap()
	q.rx.unmap()
	q.tx.unmap()
	if q.mem != nil {
		unix.Munmap(q.mem)
		q.mem = nil
	}
}
