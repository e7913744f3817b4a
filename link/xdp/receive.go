package xdp

import (
	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// pass passes on what the queue receives until its socket is closed, and returns the
// error that says so.
func (q *queue) pass(to nic.Sink) error {
	for {
		if err := q.rc.Read(q.once); err != nil {
			return err
		}
		if q.n > 0 {
			to.WriteFrames(q.frames[:q.n])
		}
		q.giveBack()
	}
}

// receive makes frames of what has come, and reports false if that is nothing.
func (q *queue) receive(fd uintptr) bool {
	if q.fill.wants() {
		// A driver that has run out of chunks looks again.
		unix.Syscall6(unix.SYS_RECVFROM, fd, 0, 0, unix.MSG_DONTWAIT, 0, 0)
	}
	q.n, q.taken = 0, min(q.rx.filled(), batch)
	first := q.rx.consumer.Load()
	for i := range q.taken {
		d := q.rx.entry(first + uint32(i))
		if d.Len < nic.MinFrame {
			q.tooShort.Add(1)
			continue
		}
		// The chunk is ours until it is given back, so all of it may be the head.
		end := d.Addr + uint64(d.Len)
		q.frames[q.n] = nic.Frame{Head: q.mem[d.Addr:end:end], Channel: uint16(q.number)}
		q.n++
	}
	return q.taken > 0
}

// giveBack gives the chunks of what was received back to the kernel. The fill ring has
// room for all there are.
func (q *queue) giveBack() {
	first, to := q.rx.consumer.Load(), q.fill.producer.Load()
	for i := range uint32(q.taken) {
		*q.fill.entry(to + i) = q.rx.entry(first+i).Addr &^ (chunk - 1)
	}
	q.rx.consumer.Store(first + uint32(q.taken))
	q.fill.producer.Store(to + uint32(q.taken))
}
