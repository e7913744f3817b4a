package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"hvnet/guest"
	"hvnet/link/netstack"
	"hvnet/nic"
)

// processStation is a guest with an IP stack in this process.
type processStation struct {
	guest *guest.Guest
	stack *netstack.Host
	stop  context.CancelFunc
	pump  sync.WaitGroup
}

// newProcessStation gives a guest an IP stack.
func newProcessStation(ctx context.Context, g *guest.Guest) (station, error) {
	stack, err := netstack.NewHost(netstack.HostConfig{
		MAC: g.NIC.MAC(), MTU: g.NIC.MTU(),
	})
	if err != nil {
		return nil, err
	}
	s := &processStation{guest: g, stack: stack}
	if err := g.NIC.Up(ctx, stack); err != nil {
		stack.Close()
		return nil, err
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.pump.Go(func() { g.NIC.Pump(ctx, stack.Source()) })
	return s, nil
}

func (s *processStation) Configure(_ context.Context, addrs []netip.Prefix) error {
	for _, a := range addrs {
		if err := s.stack.AddAddr(a); err != nil {
			return err
		}
	}
	return nil
}

func (s *processStation) Ping(ctx context.Context, to netip.Addr, count int) ([]time.Duration, error) {
	var rtts []time.Duration
	for range count {
		rtt, err := s.stack.Ping(ctx, to)
		if err != nil {
			return rtts, err
		}
		rtts = append(rtts, rtt)
	}
	return rtts, nil
}

func (s *processStation) Receive(ctx context.Context, port uint16) (<-chan received, error) {
	l, err := s.stack.ListenTCP(netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	if err != nil {
		return nil, err
	}
	got := make(chan received, 1)
	go func() {
		n, err := receiveAll(ctx, l)
		got <- received{n, err}
	}()
	return got, nil
}

func (s *processStation) Send(ctx context.Context, to netip.AddrPort, streams int, d time.Duration) error {
	return sendAll(ctx, func(ctx context.Context) (net.Conn, error) { return s.stack.DialTCP(ctx, to) }, streams, d)
}

func (s *processStation) Lost() []nic.Stat {
	return slices.DeleteFunc(s.stack.Stats(), func(c nic.Stat) bool { return c.Name != "tx_dropped" && c.Name != "rx_malformed" })
}

func (s *processStation) Close() error {
	s.stop()
	s.pump.Wait()
	return s.stack.Close()
}

// transferWindow is the window of each connection of a transfer, in bytes. All of
// them together fit the receive buffer of a channel: TCP fills what it is given, and
// more would be lost there, as in any full queue.
const transferWindow = 64 << 10

// receiveAll accepts the connections of one transfer and returns the sum of their
// bytes when all have ended. The first byte of each is the number of connections.
func receiveAll(ctx context.Context, l net.Listener) (int64, error) {
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var eg errgroup.Group
	var mu sync.Mutex
	var sum int64
	for accepted, streams := 0, 1; accepted < streams; accepted++ {
		c, err := l.Accept()
		if err != nil {
			return 0, fmt.Errorf("accept: %w", err)
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		if k, ok := c.(interface{ SetReadBuffer(int) error }); ok {
			if err := k.SetReadBuffer(transferWindow); err != nil {
				return 0, err
			}
		}
		var first [1]byte
		if _, err := io.ReadFull(c, first[:]); err != nil {
			c.Close()
			return 0, fmt.Errorf("read: %w", err)
		}
		streams = int(first[0])
		eg.Go(func() error {
			defer c.Close()
			defer stop()
			n, err := io.Copy(io.Discard, c)
			mu.Lock()
			sum += n + 1
			mu.Unlock()
			return err
		})
	}
	err := eg.Wait()
	return sum, err
}

// sendAll sends over several connections at once for a time.
func sendAll(ctx context.Context, dial func(context.Context) (net.Conn, error), streams int, d time.Duration) error {
	eg, ctx := errgroup.WithContext(ctx)
	end := time.Now().Add(d)
	for range streams {
		eg.Go(func() error {
			c, err := dial(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write([]byte{byte(streams)}); err != nil {
				return err
			}
			c.SetWriteDeadline(end.Add(10 * time.Second))
			buf := make([]byte, 256<<10)
			for time.Now().Before(end) {
				if _, err := c.Write(buf); err != nil {
					return err
				}
			}
			// The other end answers the end of file with its own, so all has arrived.
			if half, ok := c.(interface{ CloseWrite() error }); ok {
				if err := half.CloseWrite(); err != nil {
					return err
				}
			}
			if _, err := c.Read(buf[:1]); !errors.Is(err, io.EOF) {
				return fmt.Errorf("wait for the end: %w", err)
			}
			return nil
		})
	}
	return eg.Wait()
}
