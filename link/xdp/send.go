package xdp

import (
	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// sendStats are what WriteFrames did not send, under the queue's lock.
type sendStats struct{ down, busy, tooLong, refused, closed uint64 }

// burst is how many frames the kernel sends in one call at least, if it has to copy them:
// it is called once for that many.
const burst = 32

// write sends frames. longest is the most bytes that the interface sends, with a tag
// tagLen more.
func (q *queue) write(frames []nic.Frame, longest int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.out.closed += uint64(len(frames))
		return
	}
	for len(frames) > 0 {
		n := min(len(frames), burst)
		q.send(frames[:n], longest)
		frames = frames[n:]
	}
}

// send sends a burst.
func (q *queue) send(frames []nic.Frame, longest int) {
	q.reclaim()
	if q.tx.filled() > 0 && q.kick() == down {
		// What is left over would come late enough. No more is added.
		q.out.down += uint64(len(frames))
		return
	}
	for i := range frames {
		f := &frames[i]
		n := f.Len()
		switch {
		case f.Offload.Needs() != 0 || f.Offload.Segment != nic.SegmentNone || n < nic.MinFrame:
			q.out.refused++
			continue
		case n > longest+tagLen(f.Head) || n > chunk:
			q.out.tooLong++
			continue
		case len(q.free) == 0:
			q.out.busy++
			continue
		}
		at := q.free[len(q.free)-1]
		q.free = q.free[:len(q.free)-1]
		f.CopyTo(q.mem[at:][:chunk])
		*q.tx.entry(q.next) = unix.XDPDesc{Addr: at, Len: uint32(n)}
		q.next++
	}
	q.tx.producer.Store(q.next)
	q.kick()
}

// What came of a kick.
type outcome uint8

const (
	going outcome = iota // the kernel has all, or goes on with it by itself
	down                 // the interface is down or gone
)

// kick has the kernel send what is in the ring.
func (q *queue) kick() outcome {
	for tries := 0; q.tx.wants() && q.tx.filled() > 0; {
		before := q.tx.consumer.Load()
		_, _, e := unix.Syscall6(unix.SYS_SENDTO, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0, unix.EINTR, unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		case unix.EBUSY:
			// One frame, which the interface has dropped. Of what it drops while the kernel
			// sends for the poller nobody is told.
			q.out.busy++
		case unix.ENETDOWN, unix.ENXIO, unix.ENODEV:
			q.down.Add(1)
			return down
		default:
			return going
		}
		if q.tx.consumer.Load() == before {
			// The interface is behind. What is in the ring is sent when it has caught up:
			// the kernel does so when it tells the poller, or else with the next call.
			if tries++; tries == 2 {
				return going
			}
		}
	}
	return going
}

// reclaim takes back the chunks of what was sent.
func (q *queue) reclaim() {
	n := uint32(q.completion.filled())
	if n == 0 {
		return
	}
	first := q.completion.consumer.Load()
	for i := range n {
		q.free = append(q.free, *q.completion.entry(first + i))
	}
	q.completion.consumer.Store(first + n)
}

// tagLen returns the length of a frame's tag, 0 if it has none.
func tagLen(b []byte) int {
	if len(b) < nic.HeaderLen {
		return 0
	}
	switch uint16(b[12])<<8 | uint16(b[13]) {
	case unix.ETH_P_8021Q, unix.ETH_P_8021AD:
		return nic.TagLen
	}
	return 0
}

// sent returns what was not sent.
func (q *queue) unsent() sendStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.out
}
