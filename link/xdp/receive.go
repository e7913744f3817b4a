package xdp

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// serve passes on what the queue receives until its socket is closed, and returns the
// error that says so.
func (q *queue) serve(to nic.Sink) error {
	q.setSink(to)
	defer q.setSink(nil)
	for {
		if err := q.rc.Read(q.turn); err != nil {
			return err
		}
		q.pass()
		q.passing.Unlock()
	}
}

func (q *queue) setSink(to nic.Sink) {
	q.passing.Lock()
	q.to = to
	q.passing.Unlock()
}

// takeTurn is receive for who does not hold passing, and holds it afterwards if there is
// something.
func (q *queue) takeTurn(fd uintptr) bool {
	q.passing.Lock()
	if q.receive(fd) {
		return true
	}
	q.passing.Unlock()
	return false
}

// pass passes on what was received. The caller holds passing.
func (q *queue) pass() {
	if q.n > 0 {
		q.to.WriteFrames(q.frames[:q.n])
	}
	q.giveBack()
}

// flush passes on what has come, in place of serve, if that is going on. It holds passing
// for a batch at a time.
func (q *queue) flush(ctx context.Context) error {
	came := q.rx.producer.Load()
	for pause := 10 * time.Microsecond; int32(came-q.passed.Load()) > 0; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if q.passing.TryLock() {
			receiving := q.to != nil
			if receiving && q.collect() {
				q.pass()
			}
			q.passing.Unlock()
			if !receiving {
				return nil
			}
			continue
		}
		// Serve passes on a batch: soon that is done, but for a sink that is stuck.
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Millisecond)
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// receive is collect for a driver that has to be told that there are chunks again.
func (q *queue) receive(fd uintptr) bool {
	if q.fill.wants() {
		unix.Syscall6(unix.SYS_RECVFROM, fd, 0, 0, unix.MSG_DONTWAIT, 0, 0)
	}
	return q.collect()
}

// collect makes frames of what has come, and reports false if that is nothing.
func (q *queue) collect() bool {
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
	q.passed.Store(first + uint32(q.taken))
}
