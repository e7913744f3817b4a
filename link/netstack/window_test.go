package netstack

import (
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hvnet/nic"
)

// syns is a sink that keeps the TCP options of the connection requests it gets.
type syns chan header.TCPSynOptions

func (s syns) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		ip := header.IPv4(b[header.EthernetMinimumSize:])
		if header.Ethernet(b).Type() != header.IPv4ProtocolNumber || ip.TransportProtocol() != header.TCPProtocolNumber {
			continue
		}
		if tcp := header.TCP(ip.Payload()); tcp.Flags() == header.TCPFlagSyn {
			s <- header.ParseSynOptions(tcp.Options(), false)
		}
	}
}

// The receive window is not scaled: see maxWindow for what would happen.
func TestWindowIsNotScaled(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	a := n.host(2)
	seen := make(syns, 16)
	n.hub.connect(seen)
	// The switch knows nobody yet, so the request goes everywhere.
	c, err := a.DialTCP(soon(t), netip.AddrPortFrom(gateway4.Addr(), portEcho))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if o := <-seen; o.WS > 0 {
		t.Errorf("window scale %d: want none", o.WS)
	}
}
