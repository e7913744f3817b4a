package netstack

import (
	"io"
	"net/netip"
	"testing"

	"hvnet/nic"
)

// link is a wire between two hosts and nothing else, so that what is measured is the
// stacks.
func link(b *testing.B, mtu int) (*Host, *Host) {
	b.Helper()
	var hosts [2]*Host
	for i := range hosts {
		h, err := NewHost(HostConfig{
			MAC: hostMAC(byte(i)), MTU: mtu,
			Addrs: []netip.Prefix{netip.PrefixFrom(host4(byte(i)+2), 24)},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { h.Close() })
		hosts[i] = h
	}
	hosts[0].Start(hosts[1])
	hosts[1].Start(hosts[0])
	return hosts[0], hosts[1]
}

// BenchmarkTCP is one stream from host to host, 64 KiB per operation.
func BenchmarkTCP(b *testing.B) {
	for name, mtu := range map[string]int{"mtu=1500": 1500, "mtu=9000": 9000, "mtu=65521": nic.MaxFrame - nic.HeaderLen - 14} {
		b.Run(name, func(b *testing.B) {
			from, to := link(b, mtu)
			l, err := to.ListenTCP(netip.AddrPortFrom(host4(3), 5000))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			received := make(chan int64)
			go func() {
				c, err := l.Accept()
				if err != nil {
					close(received)
					return
				}
				defer c.Close()
				buf := make([]byte, 256<<10)
				n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, c, buf)
				received <- n
			}()
			c, err := from.DialTCP(b.Context(), netip.AddrPortFrom(host4(3), 5000))
			if err != nil {
				b.Fatal(err)
			}
			block := make([]byte, 64<<10)
			b.SetBytes(int64(len(block)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(block); err != nil {
					b.Fatal(err)
				}
			}
			c.CloseWrite()
			<-received
			c.Close()
			for _, s := range from.Stats() {
				if s.Name == "tx_dropped" {
					b.ReportMetric(float64(s.Value), "dropped")
				}
			}
			sent := from.stack.Stats().TCP
			b.ReportMetric(float64(sent.Retransmits.Value()), "retransmits")
		})
	}
}

// BenchmarkPing is one echo request and its reply at a time.
func BenchmarkPing(b *testing.B) {
	from, _ := link(b, 0)
	for b.Loop() {
		if _, err := from.Ping(b.Context(), host4(3)); err != nil {
			b.Fatal(err)
		}
	}
}
