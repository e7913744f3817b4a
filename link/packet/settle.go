package packet

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
)

// Flush passes on what the interface has received and nobody has yet, in place of Receive,
// which goes on afterwards. When it returns nil, all that had come to the interface's packet
// socket before the call was passed on, and the sink has returned from it. It fails with the
// error of ctx, which ends it between batches, and with net.ErrClosed.
func (l *Link) Flush(ctx context.Context) error {
	r := l.read
	for {
		if err := r.lock(ctx); err != nil {
			return fmt.Errorf("wait until what %s has received is passed on: %w", l.name, err)
		}
		done, err := r.flush()
		r.passing.Unlock()
		if done || err != nil {
			return err
		}
	}
}

// flush passes on a batch, and says whether that was all. The caller holds passing.
func (r *receiver) flush() (done bool, err error) {
	switch {
	case r.to == nil: // nobody receives
		return true, nil
	case r.rc.Control(r.try) != nil:
		return true, net.ErrClosed
	case r.errno == unix.EAGAIN:
		return true, nil
	}
	return false, r.pass()
}

// lock takes passing, unless ctx ends before.
func (r *receiver) lock(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.passing.TryLock() {
		return nil
	}
	locked := make(chan struct{})
	go func() {
		r.passing.Lock()
		close(locked)
	}()
	select {
	case <-locked:
		return nil
	case <-ctx.Done():
		go func() {
			<-locked
			r.passing.Unlock()
		}()
		return ctx.Err()
	}
}

// Arrived waits until at least n frames have come to the packet socket since it was opened,
// be they passed on, waiting or dropped. The kernel counts a frame as received by the
// interface when it puts it into a queue of the processor, a moment before. With what the
// interface has received until then as n, and [Link.Flush] behind it, all that is passed on.
func (l *Link) Arrived(ctx context.Context, n uint64) error {
	return l.await(ctx, "frames on the way in", func() (bool, error) {
		came, _ := l.read.ask()
		return int32(uint32(came)-uint32(n)) >= 0, nil // the kernel's own count has 32 bits
	})
}

// Sent waits until all frames that were written before have been sent and are off the
// kernel's hands: at a veth, whoever receives from the other end has them.
func (l *Link) Sent(ctx context.Context) error {
	return l.await(ctx, "frames on the way out", func() (bool, error) {
		var n int
		err := rtnl.Control(l.files.Send, func(fd int) (err error) {
			n, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
			return err
		})
		return n == 0, err
	})
}

// await asks until the answer is yes. The kernel tells nobody when it is, but what it does
// meanwhile takes it microseconds.
func (l *Link) await(ctx context.Context, what string, done func() (bool, error)) error {
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		switch ok, err := done(); {
		case l.closed.Load():
			return net.ErrClosed
		case err != nil:
			return fmt.Errorf("wait for %s of %s: %w", what, l.name, err)
		case ok:
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("wait for %s of %s: %w", what, l.name, ctx.Err())
		}
	}
}
