package netstack

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is a DNS server on the loopback address, UDP and TCP on one port, that
// knows host.test and long.test (whose answer does not fit UDP).
func nameServer(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo([]byte("not an answer"), from) // which a resolver skips
			pc.WriteTo(testAnswer(t, b[:n], true), from)
		}
	})
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				for {
					q, err := readDNS(c)
					if err != nil {
						return
					}
					writeDNS(c, testAnswer(t, q, false))
				}
			})
		}
	})
	t.Cleanup(func() {
		pc.Close()
		l.Close()
		served.Wait()
	})
	return pc.LocalAddr().String()
}

func testAnswer(t *testing.T, query []byte, datagram bool) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		t.Errorf("query %x: %v", query, err)
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	switch name := strings.ToLower(q.Name.String()); {
	case name == "host.test." && q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
	case name == "host.test." && q.Type == dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}}}
	case name == "long.test." && datagram:
		m.Truncated = true
	case name == "long.test." && q.Type == dnsmessage.TypeTXT:
		txt := slices.Repeat([]string{strings.Repeat("x", 200)}, 100)
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.TXTResource{TXT: txt}}}
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

// guestResolver is Go's own stub resolver over the stack of a host.
func guestResolver(h *Host, server netip.Addr) *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return h.DialContext(ctx, network, netip.AddrPortFrom(server, portDNS).String())
		},
	}
}

func TestDNS(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // refuses, once it is closed
	if err != nil {
		t.Fatal(err)
	}
	silent.Close()
	n := newTestNet(t, GatewayConfig{Upstream: []string{silent.LocalAddr().String(), nameServer(t)}})
	a := n.host(2)
	for _, server := range []netip.Addr{gateway4.Addr(), gateway6.Addr()} {
		r := guestResolver(a, server)
		addrs, err := r.LookupNetIP(soon(t), "ip", "host.test.")
		slices.SortFunc(addrs, netip.Addr.Compare)
		want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
		if err != nil || !slices.Equal(addrs, want) {
			t.Errorf("host.test by %s: %v, %v", server, addrs, err)
		}
		var dnsErr *net.DNSError
		if _, err := r.LookupHost(soon(t), "none.test."); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound {
			t.Errorf("none.test by %s: %v", server, err)
		}
		txt, err := r.LookupTXT(soon(t), "long.test.") // over TCP
		if err != nil || len(txt) != 1 || len(txt[0]) != 20000 {
			t.Errorf("long.test by %s: %d records, %v", server, len(txt), err)
		}
	}
}

// TestDNSFailures is about what the resolver says when there is no answer.
func TestDNSFailures(t *testing.T) {
	// Nobody listens there: the system refuses at once.
	r := newResolver([]string{"127.0.0.1:1"})
	query := golden(t, "1234 0100 0001 0000 0000 0000 04686f7374 0474657374 00 0001 0001")
	for _, network := range []string{"udp", "tcp"} {
		got, err := r.answer(t.Context(), network, query)
		want := golden(t, "1234 8182 0001 0000 0000 0000 04686f7374 0474657374 00 0001 0001")
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("no server answers: got %x, %v, want %x", got, err, want)
		}
	}
	got, err := r.answer(t.Context(), "udp", golden(t, "1234 0100 0001 0000 0000 0000 04686f"))
	if want := golden(t, "1234 8181 0000 0000 0000 0000"); err != nil || !slices.Equal(got, want) {
		t.Errorf("malformed query: got %x, %v, want %x", got, err, want)
	}
	for _, s := range []string{"", "1234", "1234 8100 0000 0000 0000 0000"} {
		if got, err := r.answer(t.Context(), "udp", golden(t, s)); err == nil {
			t.Errorf("%q is not a query and was answered: %x", s, got)
		}
	}
	if r.failed.Load() != 3 || r.queries.Load() != 6 {
		t.Errorf("counted %d queries, %d failed; want 6 and 3", r.queries.Load(), r.failed.Load())
	}
	for range cap(r.slots) {
		r.slots <- struct{}{}
	}
	if got, err := r.answer(t.Context(), "udp", query); err != nil || got[3]&0xf != 2 {
		t.Errorf("over the limit: got %x, %v, want SERVFAIL", got, err)
	}
}

func TestAnswers(t *testing.T) {
	question := dnsmessage.Question{Name: dnsmessage.MustNewName("host.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	for _, tt := range []struct {
		name, message string
		want          bool
	}{
		{"the answer", "1234 8180 0001 0000 0000 0000 04686f7374 0474657374 00 0001 0001", true},
		{"other case", "1234 8180 0001 0000 0000 0000 04484f5354 0474657374 00 0001 0001", true},
		{"refusal without question", "1234 8185 0000 0000 0000 0000", true},
		{"success without question", "1234 8180 0000 0000 0000 0000", false},
		{"other id", "1235 8180 0001 0000 0000 0000 04686f7374 0474657374 00 0001 0001", false},
		{"query", "1234 0100 0001 0000 0000 0000 04686f7374 0474657374 00 0001 0001", false},
		{"other name", "1234 8180 0001 0000 0000 0000 04686f7375 0474657374 00 0001 0001", false},
		{"other type", "1234 8180 0001 0000 0000 0000 04686f7374 0474657374 00 001c 0001", false},
		{"cut", "1234 8180 0001 0000 0000 0000 04686f", false},
		{"nothing", "", false},
	} {
		if got := answers(golden(t, tt.message), 0x1234, question); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	for text, want := range map[string][]string{
		"": {"127.0.0.1:53", "[::1]:53"},
		"# a comment\nsearch test\nnameserver 192.0.2.53\nnameserver fe80::1%eth0 # x\noptions edns0": {"192.0.2.53:53", "[fe80::1%eth0]:53"},
		"nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n":            {"1.1.1.1:53", "1.1.1.2:53", "1.1.1.3:53"},
		"nameserver\nnameserver x.test\n;nameserver 1.1.1.1":                                          {"127.0.0.1:53", "[::1]:53"},
	} {
		if got := parseResolvConf(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
	var s systemServers
	if first := s.list(); len(first) == 0 || !slices.Equal(first, s.list()) {
		t.Errorf("the machine's servers: %q", first)
	}
}

func FuzzDNS(f *testing.F) {
	q, _ := hex.DecodeString("123401000001000000000000" + "04686f7374047465737400" + "00010001")
	f.Add(q)
	question := dnsmessage.Question{Name: dnsmessage.MustNewName("host.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	r := newResolver(nil)
	r.servers = func() []string { return nil }
	f.Fuzz(func(t *testing.T, b []byte) {
		answers(b, 0x1234, question)
		reply, err := r.answer(t.Context(), "udp", b)
		if err != nil {
			return
		}
		if len(reply) < dnsHeaderSize || !slices.Equal(reply[:2], b[:2]) || reply[2]&0x80 == 0 || reply[3]&0xf == 0 {
			t.Errorf("query %x: reply %x", b, reply)
		}
	})
}

// golden decodes hexadecimal with spaces in it.
func golden(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
