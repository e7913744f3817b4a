package offload

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"hvnet/nic"

	"pgregory.net/rapid"
)

// slow is the definition of the Toeplitz hash, bit by bit: for every bit of the
// input that is set, the 32 bits of the key that begin at its place.
func slow(key [40]byte, input []byte) (h uint32) {
	bit := func(b []byte, i int) uint32 { return uint32(b[i/8]>>(7-i%8)) & 1 }
	for i := range len(input) * 8 {
		if bit(input, i) == 0 {
			continue
		}
		for j := range 32 {
			h ^= bit(key[:], i+j) << (31 - j)
		}
	}
	return h
}

// vectors are Microsoft's, "Verifying the RSS Hash Calculation".
var vectors = []struct {
	src, dst   string
	ip, ported uint32
}{
	{"66.9.149.187:2794", "161.142.100.80:1766", 0x323e8fc2, 0x51ccc178},
	{"199.92.111.2:14230", "65.69.140.83:4739", 0xd718262a, 0xc626b0ea},
	{"24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0a5de, 0x5c2b394a},
	{"38.27.205.30:48228", "209.142.163.6:2217", 0x82989176, 0xafc7327f},
	{"153.39.163.191:44251", "202.188.127.2:1303", 0x5d1809c5, 0x10e828a2},
	{"[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc18cd5, 0x40207d3d},
	{"[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c461c, 0xdde51bbf},
	{"[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", "[fe80::200:f8ff:fe21:67cf]:38024", 0x4b61e985, 0x02d1feef},
}

// A packet is what frame builds one from.
type packet struct {
	src, dst netip.AddrPort
	proto    byte
	vlan     bool
	options  int    // bytes of IPv4 options
	fragment uint16 // IPv4 flags and offset
}

func (p packet) frame() []byte {
	b := make([]byte, 12, 200)
	if p.vlan {
		b = append(b, 0x81, 0x00, 0x20, 0x07)
	}
	if p.src.Addr().Is4() {
		b = append(b, 0x08, 0x00)
		ip := make([]byte, 20+p.options)
		ip[0] = 0x40 | byte(len(ip)/4)
		binary.BigEndian.PutUint16(ip[6:], p.fragment)
		ip[9] = p.proto
		copy(ip[12:], p.src.Addr().AsSlice())
		copy(ip[16:], p.dst.Addr().AsSlice())
		b = append(b, ip...)
	} else {
		b = append(b, 0x86, 0xdd)
		ip := make([]byte, 40)
		ip[0], ip[6] = 0x60, p.proto
		copy(ip[8:], p.src.Addr().AsSlice())
		copy(ip[24:], p.dst.Addr().AsSlice())
		b = append(b, ip...)
	}
	b = binary.BigEndian.AppendUint16(b, p.src.Port())
	b = binary.BigEndian.AppendUint16(b, p.dst.Port())
	return append(b, make([]byte, 16)...)
}

func packetOf(i int) packet {
	return packet{src: netip.MustParseAddrPort(vectors[i].src), dst: netip.MustParseAddrPort(vectors[i].dst), proto: protoTCP}
}

func TestToeplitzVectors(t *testing.T) {
	toeplitz := NewToeplitz(DefaultKey)
	for i, v := range vectors {
		p := packetOf(i)
		in := append(p.src.Addr().AsSlice(), p.dst.Addr().AsSlice()...)
		if got := toeplitz.Hash(in); got != v.ip || slow(DefaultKey, in) != v.ip {
			t.Errorf("%s to %s: %08x, bit by bit %08x, want %08x", v.src, v.dst, got, slow(DefaultKey, in), v.ip)
		}
		in = binary.BigEndian.AppendUint16(in, p.src.Port())
		in = binary.BigEndian.AppendUint16(in, p.dst.Port())
		if got := toeplitz.Hash(in); got != v.ported || slow(DefaultKey, in) != v.ported {
			t.Errorf("%s to %s with ports: %08x, bit by bit %08x, want %08x", v.src, v.dst, got, slow(DefaultKey, in), v.ported)
		}
		for _, p.vlan = range []bool{false, true} {
			if got, kind := toeplitz.Flow(p.frame(), HashAll); got != v.ported || kind != nic.HashL4 {
				t.Errorf("frame %+v: %08x, %v; want %08x", p, got, kind, v.ported)
			}
			if got, kind := toeplitz.Flow(p.frame(), HashIPv4|HashIPv6); got != v.ip || kind != nic.HashL3 {
				t.Errorf("frame %+v, addresses: %08x, %v; want %08x", p, got, kind, v.ip)
			}
		}
	}
}

func TestToeplitzIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := [40]byte(rapid.SliceOfN(rapid.Byte(), 40, 40).Draw(t, "key"))
		in := rapid.SliceOfN(rapid.Byte(), 0, MaxHashInput).Draw(t, "input")
		if got, want := NewToeplitz(key).Hash(in), slow(key, in); got != want {
			t.Fatalf("%08x, want %08x", got, want)
		}
	})
	if got, want := NewToeplitz(DefaultKey).Hash(make([]byte, 100)), uint32(0); got != want {
		t.Errorf("an input that is too long: %08x", got)
	}
}

// What each kind of packet is hashed over, by what was asked for.
func TestFlowKinds(t *testing.T) {
	toeplitz := NewToeplitz(DefaultKey)
	v4, v6 := packetOf(0), packetOf(5)
	with := func(p packet, change func(*packet)) []byte { change(&p); return p.frame() }
	udp := func(p *packet) { p.proto = protoUDP }
	icmp := func(p *packet) { p.proto = 1 }
	arp := v4.frame()
	arp[13] = 6
	doubleTag := with(v4, func(p *packet) { p.vlan = true })
	doubleTag[16], doubleTag[17] = 0x81, 0x00
	patched := func(p packet, at int, v byte) []byte { b := p.frame(); b[at] = v; return b }
	const tcpOnly = HashIPv4 | HashTCPv4 | HashIPv6 | HashTCPv6 // what Linux asks a host for
	for _, c := range []struct {
		name  string
		frame []byte
		types HashTypes
		kind  nic.HashKind
		fast  nic.HashKind // of FastFlow with the same bits
	}{
		{"TCP over IPv4", v4.frame(), tcpOnly, nic.HashL4, nic.HashL4},
		{"UDP over IPv4, not asked for", with(v4, udp), tcpOnly, nic.HashL3, nic.HashL3},
		{"UDP over IPv4", with(v4, udp), HashAll, nic.HashL4, nic.HashL4},
		{"only UDP asked for", v4.frame(), HashUDPv4, nic.HashNone, nic.HashL3},
		{"only IPv6 asked for", v4.frame(), HashIPv6 | HashTCPv6, nic.HashNone, nic.HashL3},
		{"only ports asked for", v4.frame(), HashTCPv4, nic.HashL4, nic.HashL4},
		{"nothing asked for", v4.frame(), 0, nic.HashNone, nic.HashL3},
		{"ICMP", with(v4, icmp), HashAll, nic.HashL3, nic.HashL3},
		{"options", with(v4, func(p *packet) { p.options = 40 }), HashAll, nic.HashL4, nic.HashL4},
		{"first fragment", with(v4, func(p *packet) { p.fragment = 0x2000 }), HashAll, nic.HashL3, nic.HashL4},
		{"last fragment", with(v4, func(p *packet) { p.fragment = 100 }), HashAll, nic.HashL3, nic.HashL3},
		{"not to be fragmented", with(v4, func(p *packet) { p.fragment = 0x4000 }), HashAll, nic.HashL4, nic.HashL4},
		{"TCP over IPv6", v6.frame(), tcpOnly, nic.HashL4, nic.HashL4},
		{"UDP over IPv6", with(v6, udp), HashAll, nic.HashL4, nic.HashL4},
		{"UDP over IPv6, not asked for", with(v6, udp), tcpOnly, nic.HashL3, nic.HashL3},
		{"IPv6 with a fragment header", with(v6, func(p *packet) { p.proto = 44 }), HashAll, nic.HashL3, nic.HashL3},
		{"ARP", arp, HashAll, nic.HashNone, nic.HashNone},
		{"two tags", doubleTag, HashAll, nic.HashNone, nic.HashNone},
		{"IPv4 that says 6", patched(v4, 14, 0x65), HashAll, nic.HashNone, nic.HashNone},
		{"IPv6 that says 4", patched(v6, 14, 0x45), HashAll, nic.HashNone, nic.HashNone},
		{"header length below 20", patched(v4, 14, 0x44), HashAll, nic.HashNone, nic.HashNone},
		{"header beyond the end", patched(v4, 14, 0x4f)[:60], HashAll, nic.HashNone, nic.HashNone},
		{"frame ends with its ports", v4.frame()[:38], HashAll, nic.HashL4, nic.HashL4},
		{"frame ends with its IPv4 header", v4.frame()[:34], HashAll, nic.HashL3, nic.HashL3},
		{"frame ends with its IPv6 ports", v6.frame()[:58], HashAll, nic.HashL4, nic.HashL4},
		{"frame ends with its IPv6 header", v6.frame()[:54], HashAll, nic.HashL3, nic.HashL3},
		{"ports cut off", v4.frame()[:37], HashAll, nic.HashL3, nic.HashL3},
		{"IPv6 ports cut off", v6.frame()[:57], HashAll, nic.HashL3, nic.HashL3},
		{"IPv4 header cut off", v4.frame()[:33], HashAll, nic.HashNone, nic.HashNone},
		{"IPv6 header cut off", v6.frame()[:53], HashAll, nic.HashNone, nic.HashNone},
		{"tag cut off", doubleTag[:17], HashAll, nic.HashNone, nic.HashNone},
		{"Ethernet header cut off", v4.frame()[:13], HashAll, nic.HashNone, nic.HashNone},
		{"nothing", nil, HashAll, nic.HashNone, nic.HashNone},
	} {
		hash, kind := toeplitz.Flow(c.frame, c.types)
		if kind != c.kind || kind == nic.HashNone && hash != 0 {
			t.Errorf("%s: hash %08x, kind %v, want kind %v", c.name, hash, kind, c.kind)
		}
		flow := FastFlow(c.frame, c.types)
		hash, kind = flow.Hash, flow.Kind
		if kind != c.fast || kind == nic.HashNone && hash != 0 {
			t.Errorf("%s: fast hash %08x, kind %v, want kind %v", c.name, hash, kind, c.fast)
		}
	}
}

// A flow keeps its hash whatever else is in its packets.
func TestOptionsDoNotMatter(t *testing.T) {
	p := packetOf(1)
	plain, _ := NewToeplitz(DefaultKey).Flow(p.frame(), HashAll)
	fast := FastFlow(p.frame(), HashAll).Hash
	p.options, p.vlan = 12, true
	if got, _ := NewToeplitz(DefaultKey).Flow(p.frame(), HashAll); got != plain {
		t.Errorf("with options and tag %08x, without %08x", got, plain)
	}
	if got := FastFlow(p.frame(), HashAll).Hash; got != fast {
		t.Errorf("fast: with options and tag %08x, without %08x", got, fast)
	}
}

// Flows that differ in one field only are spread over 16 table entries about
// evenly: a chi-square of 15 degrees of freedom is above 60 once in a few million.
func TestFastFlowSpreads(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, base := range []packet{packetOf(0), packetOf(5)} {
		for name, vary := range map[string]func(p *packet, i int){
			"source port": func(p *packet, i int) { p.src = netip.AddrPortFrom(p.src.Addr(), uint16(32768+i)) },
			"target port": func(p *packet, i int) { p.dst = netip.AddrPortFrom(p.dst.Addr(), uint16(i)) },
			"source": func(p *packet, i int) {
				a := p.src.Addr().AsSlice()
				a[len(a)-1], a[len(a)-2] = byte(i), byte(i>>8)
				addr, _ := netip.AddrFromSlice(a)
				p.src = netip.AddrPortFrom(addr, p.src.Port())
			},
			"all": func(p *packet, i int) {
				a := p.dst.Addr().AsSlice()
				for k := range a {
					a[k] = byte(random.Uint32())
				}
				addr, _ := netip.AddrFromSlice(a)
				p.dst = netip.AddrPortFrom(addr, uint16(random.Uint32()))
			},
		} {
			const n = 4096
			var counts [16]float64
			for i := range n {
				p := base
				vary(&p, i)
				h := FastFlow(p.frame(), HashAll).Hash
				counts[h%16]++
			}
			chi := 0.0
			for _, c := range counts {
				chi += (c - n/16) * (c - n/16) / (n / 16)
			}
			if chi > 60 {
				t.Errorf("%v, %s varied: %v, chi-square %.1f", base.src, name, counts, chi)
			}
		}
	}
}

func TestLevels(t *testing.T) {
	a, b := packetOf(0), packetOf(0)
	b.src = netip.AddrPortFrom(b.src.Addr(), 1)
	for _, levels := range []HashTypes{0, HashUDPv4, HashTCPv6} {
		x := FastFlow(a.frame(), levels).Hash
		y := FastFlow(b.frame(), levels).Hash
		if x != y {
			t.Errorf("levels %06b: ports count: %08x, %08x", levels, x, y)
		}
	}
	x := FastFlow(a.frame(), HashTCPv4).Hash
	y := FastFlow(b.frame(), HashTCPv4).Hash
	if x == y {
		t.Errorf("ports do not count: %08x", x)
	}
}

func FuzzFlow(f *testing.F) {
	for i := range vectors {
		f.Add(packetOf(i).frame(), uint8(HashAll))
	}
	toeplitz := NewToeplitz(DefaultKey)
	f.Fuzz(func(t *testing.T, head []byte, types uint8) {
		addrs, ports, l3, l4, of := dissect(head)
		if (l3 == 0) != (addrs == nil) || of == whole && (l4 == 0) != (ports == nil) || of == laterPart && ports != nil ||
			ports != nil && (l4 == 0 || len(ports) != 4) || l4 != 0 && l3 == 0 {
			t.Fatalf("%d bytes of addresses, %d of ports, kinds %b %b, part %d", len(addrs), len(ports), l3, l4, of)
		}
		if (of != whole) != Fragment(head) && l3 != 0 {
			t.Fatalf("part %d, Fragment says %v", of, Fragment(head))
		}
		hash, kind := toeplitz.Flow(head, HashTypes(types))
		want := uint32(0)
		switch kind {
		case nic.HashL3:
			want = slow(DefaultKey, addrs)
		case nic.HashL4:
			want = slow(DefaultKey, append(append([]byte(nil), addrs...), ports...))
		}
		if hash != want {
			t.Fatalf("%08x, want %08x", hash, want)
		}
		FastFlow(head, HashTypes(types))
	})
}

func TestNoAllocations(t *testing.T) {
	toeplitz := NewToeplitz(DefaultKey)
	v4, v6 := packetOf(0).frame(), packetOf(5).frame()
	if n := testing.AllocsPerRun(100, func() {
		toeplitz.Flow(v4, HashAll)
		toeplitz.Flow(v6, HashAll)
		FastFlow(v4, HashAll)
		FastFlow(v6, HashAll)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFlow(b *testing.B) {
	toeplitz := NewToeplitz(DefaultKey)
	for name, frame := range map[string][]byte{"v4": packetOf(0).frame(), "v6": packetOf(5).frame()} {
		b.Run("toeplitz/"+name, func(b *testing.B) {
			for b.Loop() {
				toeplitz.Flow(frame, HashAll)
			}
		})
		b.Run("fast/"+name, func(b *testing.B) {
			for b.Loop() {
				FastFlow(frame, HashAll)
			}
		})
	}
	input := make([]byte, 12)
	b.Run("hash12", func(b *testing.B) {
		for b.Loop() {
			toeplitz.Hash(input)
		}
	})
}

// TestFragmentsOfFlows: without ports a fragment has the hash of its pair of addresses,
// with them that of its flow. What is not UDP has no pair.
func TestFragmentsOfFlows(t *testing.T) {
	for _, base := range []packet{packetOf(0), packetOf(5)} {
		base.proto = protoUDP
		v6 := base.src.Addr().Is6()
		whole := FastFlow(base.frame(), HashAll)
		byAddress := FastFlow(base.frame(), 0)
		if !whole.UDP || whole.Fragment || whole.Pair != byAddress.Hash || whole.Hash == whole.Pair || byAddress.UDP || byAddress.Pair != 0 {
			t.Errorf("%v: whole %+v, by address %+v", base.src, whole, byAddress)
		}
		for _, at := range []uint16{0, 185} {
			f := base
			f.fragment = at
			if at == 0 {
				f.fragment = 0x2000
			}
			b := f.frame()
			if v6 {
				b = base.frame()
				b[14+6] = 44
				b = slices.Insert(b, 54, protoUDP, 0, byte(at>>5), byte(at<<3)|1, 0, 0, 0, 9)
			}
			want := Flow{Hash: whole.Hash, Kind: nic.HashL4, UDP: true, Fragment: true, Pair: whole.Pair}
			if at != 0 {
				want.Hash, want.Kind = whole.Pair, nic.HashL3
			}
			if got := FastFlow(b, HashAll); got != want {
				t.Errorf("%v: fragment at %d: %+v, want %+v", base.src, 8*at, got, want)
			}
		}
		base.proto = protoTCP
		if f := FastFlow(base.frame(), HashAll); f.UDP || f.Pair != 0 || f.Kind != nic.HashL4 {
			t.Errorf("TCP: %+v", f)
		}
	}
}
