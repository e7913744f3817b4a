package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"hvnet/sandbox"
)

// vfSettled is for how long nothing comes when nothing more will, as far as anybody can know.
const vfSettled = 5 * time.Second

// vfBetween is how many datagrams come each way between two moves at least.
const vfBetween = 64

// A vfLoad is traffic each way between a guest and the station.
type vfLoad struct {
	streams [2]*numbered
	tallies []*tally

	stop               func()
	sending, receiving sync.WaitGroup
	failed             chan error // of the streams, for each that it sends and that it receives
}

// load starts traffic.
func (b *vfBench) load(ctx context.Context, mbits, window int) (_ *vfLoad, err error) {
	l := &vfLoad{failed: make(chan error, 4)}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	ways := [2][2]*sandbox.Sandbox{{b.near, b.far}, {b.far, b.near}}
	for i, way := range ways {
		s := newNumbered(mbits, window)
		l.streams[i] = s
		if s.from, err = way[0].ListenUDP(ctx, netip.AddrPortFrom(vfAddrs[i].Addr(), 0)); err != nil {
			return nil, err
		}
		if s.to, err = way[1].ListenUDP(ctx, netip.AddrPortFrom(vfAddrs[1-i].Addr(), 0)); err != nil {
			return nil, err
		}
	}
	if l.tallies, err = b.connect(ctx, mbits); err != nil {
		return nil, err
	}
	ctx, l.stop = context.WithCancel(ctx)
	for _, s := range l.streams {
		l.sending.Go(func() { l.failed <- s.send(ctx) })
		l.receiving.Go(func() { l.failed <- s.receive() })
	}
	for _, t := range l.tallies {
		l.sending.Go(func() { t.send(ctx) })
		l.receiving.Go(t.receive)
	}
	return l, nil
}

// end ends the traffic, when what was sent has come.
func (l *vfLoad) end(ctx context.Context) (err error) {
	defer l.close()
	l.stop()
	l.sending.Wait()
	for _, s := range l.streams {
		err = errors.Join(err, s.settle(ctx, vfSettled))
		s.to.SetReadDeadline(time.Now())
	}
	for _, t := range l.tallies {
		t.to.SetReadDeadline(time.Now().Add(vfPatience))
	}
	l.receiving.Wait()
	close(l.failed)
	for e := range l.failed {
		err = errors.Join(err, e)
	}
	return err
}

// close closes the sockets that there are.
func (l *vfLoad) close() {
	for _, s := range l.streams {
		if s != nil && s.from != nil {
			s.from.Close()
		}
		if s != nil && s.to != nil {
			s.to.Close()
		}
	}
	for _, t := range l.tallies {
		t.from.Close()
		t.to.Close()
	}
}

// flow waits until datagrams come each way.
func (l *vfLoad) flow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, vfPatience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i, s := range l.streams {
		for want := s.next.Load() + vfBetween; s.next.Load() < want; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("wait for datagrams %s: %w", VFDirections[i], context.Cause(ctx))
			}
		}
	}
	return nil
}

// connect makes a TCP connection for each way. It returns those that there are if it fails.
func (b *vfBench) connect(ctx context.Context, mbits int) (list []*tally, err error) {
	l, err := b.far.ListenTCP(ctx, netip.AddrPortFrom(vfAddrs[1].Addr(), 0))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	for i := range VFDirections {
		c, err := b.near.DialTCP(ctx, l.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort())
		if err != nil {
			return list, err
		}
		peer, err := l.AcceptTCP()
		if err != nil {
			c.Close()
			return list, err
		}
		t := &tally{from: c, to: peer, mbits: mbits}
		if i == 1 {
			t.from, t.to = t.to, t.from
		}
		list = append(list, t)
	}
	return list, nil
}
