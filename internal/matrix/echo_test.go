package matrix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	ipheader "gvisor.dev/gvisor/pkg/tcpip/header"

	"hvnet/internal/packets"
	"hvnet/nic"
)

// An echo is a flow to the gateway's echo service and back: a stack of the simplest
// kind, which loses nothing, on raw frames.
type echo struct {
	w     *frameWorld
	h     header
	s     packets.Shape
	size  int
	takes nic.Offloads

	next uint32 // sequence number of TCP that comes next
	got  []byte // payload that came back
}

// The flags of TCP that are looked at.
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// send hands a payload to the driver, as the stack of the case does.
func (e *echo) send(payload []byte, flags byte) {
	e.h.flags, e.h.ack = flags, e.next
	b := e.h.packet(e.s, payload)
	if flags == flagSYN { // which acknowledges nothing yet
		_, l4, _, _ := packets.Parts(b)
		b[l4+13] = flagSYN
		packets.Correct(b)
	}
	e.w.source.add(stack(e.s, b, e.size, e.takes))
	e.h.seq += uint32(len(payload))
}

// run sends and gets back all payloads.
func (e *echo) run(ctx context.Context) error {
	if !e.s.UDP {
		plain := e.s
		e.s.TCPOptions = 0
		e.send(nil, flagSYN)
		e.h.seq++
		if err := e.until(ctx, "answer to SYN", func() bool { return e.next != 0 }); err != nil {
			return err
		}
		e.s = plain
		e.send(nil, 0)
		defer e.send(nil, flagRST)
	}
	sent, got := sha256.New(), sha256.New()
	for _, n := range lengths(e.s, e.size) {
		if e.s.UDP {
			n = min(n, 2*e.size) // what the gateway's socket has room for at any time
		} else {
			n = min(n, 50000) // its window
		}
		payload := packets.Random(n)
		sent.Write(payload)
		e.got = e.got[:0]
		e.send(payload, 0x08)
		if err := e.until(ctx, fmt.Sprintf("echo of %d bytes", n), func() bool { return len(e.got) >= n }); err != nil {
			return err
		}
		got.Write(e.got)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// until takes what arrives until done.
func (e *echo) until(ctx context.Context, what string, done func() bool) error {
	for !done() {
		frames, err := e.w.atA.take(ctx)
		if err != nil {
			return fmt.Errorf("%s: %d bytes came: %w", what, len(e.got), err)
		}
		for _, f := range frames {
			if answer := neighbour(f.bytes); answer != nil {
				e.w.source.add([]nic.Frame{packets.Split(answer)})
				continue
			}
			if asks(f.bytes) {
				continue
			}
			wire, err := f.wire()
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			for _, b := range wire {
				if err := e.segment(b); err != nil {
					return fmt.Errorf("%s: %w", what, err)
				}
			}
		}
	}
	return nil
}

// segment takes a packet that came from the gateway.
func (e *echo) segment(b []byte) error {
	_, l4, _, _ := packets.Parts(b)
	if be.Uint16(b[l4:]) != e.h.to || be.Uint16(b[l4+2:]) != e.h.from {
		return nil // of an earlier flow
	}
	payload := b[packets.Payload(b):]
	if e.s.UDP {
		e.got = append(e.got, payload...)
		return nil
	}
	seq, flags := be.Uint32(b[l4+4:]), b[l4+13]
	switch {
	case flags&flagRST != 0:
		return errors.New("the gateway has reset the connection")
	case flags&flagSYN != 0:
		e.next = seq + 1
	case len(payload) > 0:
		if seq == e.next { // else it comes again
			e.got = append(e.got, payload...)
			e.next += uint32(len(payload))
		}
		e.send(nil, 0)
	}
	return nil
}

// asks reports whether a frame is of ARP or ICMPv6.
func asks(b []byte) bool {
	kind := be.Uint16(b[12:])
	return kind == 0x0806 || kind == 0x86dd && b[20] == 58
}

// neighbour answers who asks for the address of guest a; nil for any other frame.
func neighbour(b []byte) []byte {
	out := append(bytes.Clone(b[6:12]), macA[:]...)
	switch {
	case be.Uint16(b[12:]) == 0x0806 && b[21] == 1:
		out = append(out, packets.Hex("0806 0001 0800 06 04 0002")...)
		out = append(append(out, macA[:]...), net.ParseIP(addr4).To4()...)
		return append(out, b[22:32]...)
	case asks(b) && len(b) >= 78 && b[54] == 135 && bytes.Equal(b[62:78], net.ParseIP(addr6)):
		out = append(out, packets.Hex("86dd 60000000 0020 3a ff")...)
		out = append(append(out, net.ParseIP(addr6)...), b[22:38]...)
		out = append(out, packets.Hex("88 00 0000 60000000")...)
		out = append(append(out, net.ParseIP(addr6)...), 2, 1)
		out = append(out, macA[:]...)
		ip := ipheader.IPv6(out[14:])
		pseudo := ipheader.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(58), ip.SourceAddress(), ip.DestinationAddress(), 32)
		be.PutUint16(out[56:], ^checksum.Checksum(out[54:], pseudo))
		return out
	}
	return nil
}
