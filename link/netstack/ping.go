package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pingData is the length of an echo request's data, as ping(8) has it.
const pingData = 56

// Ping sends one echo request to addr and returns the time until the reply. It
// waits as long as ctx lets it.
func (h *Host) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	rtt, err := h.ping(ctx, addr)
	if err != nil {
		return 0, fmt.Errorf("ping %s: %w", addr, err)
	}
	return rtt, nil
}

func (h *Host) ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	transport := icmp.ProtocolNumber4
	if !addr.Is4() {
		transport = icmp.ProtocolNumber6
	}
	var wq waiter.Queue
	ep, terr := h.stack.NewEndpoint(transport, protocolOf(addr), &wq)
	if terr != nil {
		return 0, stackError(terr)
	}
	defer ep.Close()
	if terr := ep.Connect(toFull(netip.AddrPortFrom(addr, 0))); terr != nil {
		return 0, stackError(terr)
	}
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)

	start := time.Now()
	request := echoRequest(addr)
	if _, terr := ep.Write(bytes.NewReader(request), tcpip.WriteOptions{}); terr != nil {
		return 0, stackError(terr)
	}
	for {
		var reply bytes.Buffer
		_, terr := ep.Read(&reply, tcpip.ReadOptions{})
		switch terr.(type) {
		case nil:
			// The stack sorts replies by identifier; the data is what we sent.
			if b := reply.Bytes(); len(b) == len(request) && bytes.Equal(b[8:], request[8:]) {
				return time.Since(start), nil
			}
			continue
		case *tcpip.ErrWouldBlock:
		default:
			return 0, stackError(terr)
		}
		select {
		case <-readable:
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for the echo reply: %w", ctx.Err())
		}
	}
}

// echoRequest returns an echo request with sequence number 1; identifier and
// checksum are the stack's to set.
func echoRequest(addr netip.Addr) []byte {
	b := make([]byte, header.ICMPv4MinimumSize+pingData)
	b[0] = byte(header.ICMPv4Echo)
	if !addr.Is4() {
		b[0] = byte(header.ICMPv6EchoRequest)
	}
	binary.BigEndian.PutUint16(b[6:], 1)
	for i := range b[8:] {
		b[8+i] = byte(i)
	}
	return b
}

// stackError makes an error of one of the stack's.
func stackError(e tcpip.Error) error { return fmt.Errorf("%s", e) }
