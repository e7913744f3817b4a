package netstack

import (
	"io"
	"net"
	"time"
)

// The ports that the gateway serves itself.
const (
	portEcho    = 7  // RFC 862
	portDiscard = 9  // RFC 863
	portSource  = 19 // RFC 864
	portDNS     = 53
)

// tcpService returns what serves a TCP port of the gateway, or nil.
func (g *Gateway) tcpService(port uint16) func(net.Conn) {
	switch port {
	case portEcho:
		return func(c net.Conn) { io.Copy(c, c) }
	case portDiscard:
		return func(c net.Conn) { io.Copy(io.Discard, c) }
	case portSource:
		return generate
	case portDNS:
		return func(c net.Conn) { g.dns.serveTCP(g.flows.ctx, c) }
	}
	return nil
}

// udpService returns what serves a UDP port of the gateway, or nil. There is no
// character generator over UDP: it answers more than it is asked.
func (g *Gateway) udpService(port uint16) func(net.Conn) {
	switch port {
	case portEcho:
		return echoDatagrams
	case portDiscard:
		return discardDatagrams
	case portDNS:
		return func(c net.Conn) { g.dns.serveUDP(g.flows.ctx, c) }
	}
	return nil
}

// generate sends the pattern of RFC 864 (72 of the 95 printable characters per
// line, each line one further) until the peer has enough.
func generate(c net.Conn) {
	const printable, perLine = 95, 72
	pattern := make([]byte, 0, printable*(perLine+2))
	for line := range printable {
		for i := range perLine {
			pattern = append(pattern, byte(' '+(line+i)%printable))
		}
		pattern = append(pattern, '\r', '\n')
	}
	for {
		if _, err := c.Write(pattern); err != nil {
			return
		}
	}
}

func echoDatagrams(c net.Conn) {
	b := make([]byte, maxDatagram)
	for {
		c.SetReadDeadline(time.Now().Add(udpIdle))
		n, err := c.Read(b)
		if err != nil {
			return
		}
		c.Write(b[:n])
	}
}

func discardDatagrams(c net.Conn) {
	b := make([]byte, maxDatagram)
	for {
		c.SetReadDeadline(time.Now().Add(udpIdle))
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}
