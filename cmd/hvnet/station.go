package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// stationCmd is what a kernelStation runs inside its namespace. It prints JSON.
type stationCmd struct {
	Ping    stationPing    `cmd:""`
	Receive stationReceive `cmd:""`
	Send    stationSend    `cmd:""`
}

type stationPing struct {
	To    netip.Addr `arg:""`
	Count int        `arg:""`
}

func (c *stationPing) Run(ctx context.Context, s streams) error {
	rtts, err := ping(ctx, c.To, c.Count)
	return ended(ctx, errors.Join(err, json.NewEncoder(s.out).Encode(rtts)))
}

type stationReceive struct {
	Port uint16 `arg:""`
}

func (c *stationReceive) Run(ctx context.Context, s streams) error {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: int(c.Port)})
	if err != nil {
		return err
	}
	out := json.NewEncoder(s.out)
	if err := out.Encode(true); err != nil { // ready
		return err
	}
	n, err := receiveAll(ctx, l)
	return ended(ctx, errors.Join(err, out.Encode(n)))
}

type stationSend struct {
	To      netip.AddrPort `arg:""`
	Streams int            `arg:""`
	Time    time.Duration  `arg:""`
}

func (c *stationSend) Run(ctx context.Context) error {
	var d net.Dialer
	return ended(ctx, sendAll(ctx, func(ctx context.Context) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", c.To.String())
	}, c.Streams, c.Time))
}

// ended returns what a station's program says at its end: nothing if it was
// interrupted, because the tour says so.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return exitError{status: exitInterrupted}
	}
	return err
}

// ping sends echo requests from a raw socket.
func ping(ctx context.Context, to netip.Addr, count int) ([]time.Duration, error) {
	network, proto := "ip4:icmp", 1
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, proto = "ip6:ipv6-icmp", 58
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, network, "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	id := os.Getpid() & 0xffff
	buf := make([]byte, 1500)
	var rtts []time.Duration
	for seq := range count {
		msg := icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Seq: seq, Data: []byte("hvnet demo")}}
		b, err := msg.Marshal(nil) // the kernel fills in the checksum of ICMPv6
		if err != nil {
			return nil, err
		}
		sent := time.Now()
		if _, err := c.WriteTo(b, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			return nil, err
		}
		c.SetReadDeadline(sent.Add(2 * time.Second))
		for {
			n, _, err := c.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, err
			}
			m, err := icmp.ParseMessage(proto, buf[:n])
			if err != nil {
				continue
			}
			if e, ok := m.Body.(*icmp.Echo); ok && m.Type == reply && e.ID == id && e.Seq == seq {
				rtts = append(rtts, time.Since(sent))
				break
			}
		}
	}
	return rtts, nil
}
