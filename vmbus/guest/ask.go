package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hvnet/hv"
	"hvnet/vmbus/channel"
)

// settle carries out those actions of the machine that only touch the bus, and
// returns the others, in order. The caller holds the lock.
func (b *Bus) settle() (rest []action) {
	out := b.m.out
	b.m.out = nil
	for _, a := range out {
		switch a := a.(type) {
		case answer:
			if w := b.waiters[a.wait]; w != nil {
				delete(b.waiters, a.wait)
				w <- a // has room
			}
		case arrived:
			close(b.changed)
			b.changed = make(chan struct{})
		case lost:
			b.lose(a.ch)
		case drop:
			// A host must not be able to fill the log: the 1st, 2nd, 4th, 8th… is enough.
			if b.dropped++; b.dropped&(b.dropped-1) == 0 {
				b.log.Info("message of the host dropped", "type", a.message.String(), "why", a.why, "so far", b.dropped)
			}
		default:
			rest = append(rest, a)
		}
	}
	return rest
}

// lose tells the users of a channel that the host has taken it away.
func (b *Bus) lose(ch *chanState) {
	if c := b.relids[ch.offer.Relid].Load(); c != nil {
		c.Close()
		c.Wake()
	}
	if d := b.devices[ch]; d != nil {
		delete(b.devices, ch)
		close(d.gone)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// say has the machine do something and posts what comes of it, in the machine's
// order: after everything that it wanted posted before.
func (b *Bus) say(ctx context.Context, f func(*machine)) error {
	if ctx.Err() != nil {
		return fmt.Errorf("post to the host: %w", context.Cause(ctx))
	}
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for a turn to post: %w", context.Cause(ctx))
	}
	defer func() { <-b.turn }()

	b.mu.Lock()
	earlier := b.later
	b.later = nil
	f(b.m)
	todo := b.settle()
	b.mu.Unlock()
	left, err := b.perform(ctx, earlier)
	if err != nil && ctx.Err() != nil {
		// The caller's time is over, not that of what others have left.
		b.mu.Lock()
		b.later = append(left, b.later...)
		b.nudge()
		b.mu.Unlock()
	} else if err != nil {
		b.log.Info("message to the host lost", "err", err)
	}
	_, err = b.perform(ctx, todo)
	return err
}

// perform does what settle left: posting and freeing. After a message that could
// not be posted it posts no other, for they may belong together, and returns them.
func (b *Bus) perform(ctx context.Context, todo []action) (left []action, err error) {
	var failed error
	var errs []error
	for len(todo) > 0 {
		n := 1
		switch a := todo[0].(type) {
		case post:
			messages := together(todo)
			n = len(messages)
			if failed == nil {
				failed = b.post(ctx, a.conn, messages)
			}
			if failed != nil {
				left = append(left, todo[:n]...)
			}
		case free:
			errs = append(errs, b.p.Free(a.region))
		}
		todo = todo[n:]
	}
	return left, errors.Join(append(errs, failed)...)
}

// together returns the messages that todo begins with and that can be posted as one:
// those of a GPADL, mostly.
func together(todo []action) (messages [][]byte) {
	var conn uint32
	for i, a := range todo {
		p, ok := a.(post)
		if i == 0 {
			conn = p.conn
		}
		if !ok || p.conn != conn || i == hv.MaxPosts {
			break
		}
		messages = append(messages, p.message)
	}
	return messages
}

// post posts messages, again while the host's port is full. As in Linux the wait
// doubles from little to some milliseconds. A connection id that isn't there may
// be about to come, but for the one that hosts before 5.0 don't have.
func (b *Bus) post(ctx context.Context, conn uint32, messages [][]byte) error {
	if ctx.Err() != nil {
		return fmt.Errorf("post to the host: %w", context.Cause(ctx))
	}
	for _, m := range messages {
		b.trace("to host", m)
	}
	for delay := 10 * time.Microsecond; ; delay = min(2*delay, 10*time.Millisecond) {
		err := b.p.PostMessage(conn, messages...)
		if !errors.Is(err, hv.StatusInsufficientBuffers) && !errors.Is(err, hv.StatusInsufficientMemory) {
			return err
		}
		select {
		case <-time.After(delay):
		case <-b.p.Done():
			return channel.ErrRescinded
		case <-ctx.Done():
			return fmt.Errorf("wait for room in the host's message port: %w", context.Cause(ctx))
		}
	}
}

// ask has the machine ask the host for something, and waits for the answer. what
// names the answer.
func (b *Bus) ask(ctx context.Context, what string, f func(*machine) (wait, error)) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()

	got := make(chan answer, 1)
	var w wait
	var refused error
	err := b.say(ctx, func(m *machine) {
		if w, refused = f(m); refused == nil {
			b.waiters[w] = got
		}
	})
	if refused != nil {
		return answer{}, refused
	}
	if err == nil {
		select {
		case a := <-got:
			return a, inTime(ctx, what, a.err)
		case <-b.p.Done():
			err = inTime(ctx, what, fmt.Errorf("wait for %s: %w: %w", what, channel.ErrRescinded, hv.ErrGone))
		case <-ctx.Done():
			err = fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case a := <-got: // in the meantime
		return a, inTime(ctx, what, a.err)
	default:
	}
	delete(b.waiters, w)
	b.m.abandon(w)
	return answer{}, err
}

// inTime returns err, unless it says that the host is gone and ctx has ended: a
// caller whose time was over may have left the host for that very reason.
func inTime(ctx context.Context, what string, err error) error {
	if ctx.Err() == nil || !errors.Is(err, channel.ErrRescinded) {
		return err
	}
	return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
}

// await waits until ready says so, which is asked whenever offers come or go.
func (b *Bus) await(ctx context.Context, ready func(*machine) (bool, error)) error {
	for {
		b.mu.Lock()
		ok, err := ready(b.m)
		changed := b.changed
		b.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-b.p.Done():
			return fmt.Errorf("%w: %w", channel.ErrRescinded, hv.ErrGone)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
