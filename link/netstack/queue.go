package netstack

import (
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hvnet/nic"
)

// queueLen is how many packets may wait to leave a stack. It holds the windows (see
// maxWindow) of some ninety streams in packets of 1500 bytes, so streams that fill
// their windows do not lose their own packets here.
const queueLen = 4096

// queue holds the packets that leave a stack until a link takes them. It is
// bounded: what does not fit is dropped and counted, and TCP slows down. A link
// takes them in one of two ways: a pump pushes batches into a nic.Sink, or a
// driver pulls one by one, because queue is a nic.Source.
type queue struct {
	maxFrame int

	mu     sync.Mutex
	filled sync.Cond
	pkts   [queueLen]*stack.PacketBuffer
	head   int // index of the oldest
	n      int // packets waiting
	woken  bool
	closed bool

	frames, bytes, dropped uint64
}

func newQueue(maxFrame int) *queue {
	q := &queue{maxFrame: maxFrame}
	q.filled.L = &q.mu
	return q
}

// put appends pkt and takes a reference to it. It reports whether there was room.
func (q *queue) put(pkt *stack.PacketBuffer) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.n == queueLen {
		q.dropped++
		return false
	}
	q.pkts[(q.head+q.n)%queueLen] = pkt.IncRef()
	q.n++
	if q.n == 1 {
		q.filled.Signal()
	}
	return true
}

// putFrame appends a whole Ethernet frame, which is copied.
func (q *queue) putFrame(frame []byte) bool {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer pkt.DecRef()
	return q.put(pkt)
}

// pop returns the oldest packet, or nil. The caller releases it. q.mu is held.
func (q *queue) pop() *stack.PacketBuffer {
	if q.n == 0 {
		return nil
	}
	pkt := q.pkts[q.head]
	q.pkts[q.head] = nil
	q.head = (q.head + 1) % queueLen
	q.n--
	return pkt
}

// take moves waiting packets to dst, waiting for the first. It returns 0 only when
// the queue is closed and empty.
func (q *queue) take(dst []*stack.PacketBuffer) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 && !q.closed {
		q.filled.Wait()
	}
	n := 0
	for n < len(dst) && q.n > 0 {
		dst[n] = q.pop()
		n++
	}
	return n
}

// close lets nothing more in and ends every wait, now and later. A pump still sends
// what is there: the resets that tell the peers of a stack that it is gone.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.filled.Broadcast()
}

// discard drops what waits.
func (q *queue) discard() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for pkt := q.pop(); pkt != nil; pkt = q.pop() {
		pkt.DecRef()
		q.dropped++
	}
}

// count adds frames that went out, or were dropped, to the counters.
func (q *queue) count(frames, bytes, dropped int) {
	q.mu.Lock()
	q.frames += uint64(frames)
	q.bytes += uint64(bytes)
	q.dropped += uint64(dropped)
	q.mu.Unlock()
}

// ReadFrame implements nic.Source.
func (q *queue) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	q.mu.Lock()
	pkt, closed := q.pop(), q.closed
	q.mu.Unlock()
	if closed {
		return 0, nic.Offload{}, net.ErrClosed
	}
	if pkt == nil {
		return 0, nic.Offload{}, nic.ErrNoFrame
	}
	defer pkt.DecRef()
	n := pkt.Size()
	if n > len(first)+len(rest) {
		q.count(0, 0, 1)
		return 0, nic.Offload{}, nic.ErrNoFrame
	}
	copyPacket(pkt, first, rest)
	q.count(1, n, 0)
	return n, nic.Offload{}, nil
}

// Wait implements nic.Source.
func (q *queue) Wait() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 && !q.closed && !q.woken {
		q.filled.Wait()
	}
	q.woken = false
	if q.closed {
		return net.ErrClosed
	}
	return nil
}

// Wake implements nic.Source.
func (q *queue) Wake() {
	q.mu.Lock()
	q.woken = true
	q.filled.Broadcast()
	q.mu.Unlock()
}

// pumpBatch is how many frames the pump hands over at a time.
const pumpBatch = 64

// pump pushes what waits into out, batch by batch, until the queue is closed.
func (q *queue) pump(out nic.Sink) {
	var pkts [pumpBatch]*stack.PacketBuffer
	frames := make([]nic.Frame, 0, pumpBatch)
	memory := make([]byte, max(pumpBatch*2048, q.maxFrame))
	for {
		n := q.take(pkts[:])
		if n == 0 {
			return
		}
		free, bytes := memory, 0
		frames = frames[:0]
		for _, pkt := range pkts[:n] {
			size := pkt.Size()
			if size > len(free) {
				// Jumbo frames: fewer than a batch fit.
				out.WriteFrames(frames)
				free, frames = memory, frames[:0]
			}
			copyPacket(pkt, free[:size], nil)
			frames = append(frames, nic.Frame{Head: free[:size:size]})
			free = free[size:]
			bytes += size
			pkt.DecRef()
		}
		out.WriteFrames(frames)
		q.count(n, bytes, 0)
	}
}

// copyPacket copies pkt, headers and all, to first and then rest. Together they
// have room for it.
func copyPacket(pkt *stack.PacketBuffer, first, rest []byte) {
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		b = b[skip:]
		skip = 0
		for len(b) > 0 {
			if len(first) == 0 {
				first, rest = rest, nil
			}
			n := copy(first, b)
			first, b = first[n:], b[n:]
		}
	}
}
