package netvsp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"hvnet/rndis"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A spreadFlow is a flow of random addresses and ports.
type spreadFlow struct {
	v6, udp      bool
	addrs, ports []byte // as they are hashed: source, target
}

func randomFlow(r *rand.Rand) (f spreadFlow) {
	f.v6, f.udp = r.IntN(2) == 0, r.IntN(2) == 0
	n := 8
	if f.v6 {
		n = 32
	}
	for range n {
		f.addrs = append(f.addrs, byte(r.Uint32()))
	}
	f.ports = binary.BigEndian.AppendUint32(nil, r.Uint32())
	return f
}

// frame is a frame of the flow that carries its number.
func (f spreadFlow) frame(number int) []byte {
	b := ether(guestMAC, otherMAC, 14, 0)
	proto := byte(6)
	if f.udp {
		proto = 17
	}
	if f.v6 {
		binary.BigEndian.PutUint16(b[12:], 0x86dd)
		b = append(b, 0x60, 0, 0, 0, 0, 12, proto, 64)
	} else {
		binary.BigEndian.PutUint16(b[12:], 0x0800)
		b = append(b, 0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, proto, 0, 0)
	}
	b = append(append(b, f.addrs...), f.ports...)
	return append(binary.BigEndian.AppendUint32(b, uint32(number)), make([]byte, 24)...)
}

// toeplitz is the hash by its definition, bit by bit: for each bit of the input that
// is set, the 32 bits of the key that begin there.
func toeplitz(key, input []byte) (h uint32) {
	window := binary.BigEndian.Uint32(key)
	for i := range 8 * len(input) {
		if input[i/8]&(0x80>>(i%8)) != 0 {
			h ^= window
		}
		window = window<<1 | uint32(key[i/8+4]>>(7-i%8)&1)
	}
	return h
}

// hash is what a host computes for the flow, and over what, 0 if nothing.
func (f spreadFlow) hash(key []byte, asked rndis.HashInfo) (uint32, rndis.HashInfo) {
	ports, addrs := rndis.HashTCPv4, rndis.HashIPv4
	if f.v6 {
		ports, addrs = rndis.HashTCPv6, rndis.HashIPv6
	}
	switch {
	case f.udp && f.v6:
		ports = rndis.HashUDPv6
	case f.udp:
		ports = rndis.HashUDPv4
	}
	switch {
	case asked&ports != 0:
		return toeplitz(key, append(append([]byte(nil), f.addrs...), f.ports...)), rndis.HashToeplitz | ports
	case asked&addrs != 0:
		return toeplitz(key, f.addrs), rndis.HashToeplitz | addrs
	}
	return 0, 0
}

// critical is the chi-square that chance exceeds once in a thousand times, by degrees
// of freedom.
var critical = map[int]float64{1: 10.83, 3: 16.27, 7: 24.32}

// chiSquare measures how far counts are from what they should be in the mean.
func chiSquare(counts []int, shares []float64) (chi float64, freedom int) {
	total := 0
	for _, n := range counts {
		total += n
	}
	for i, n := range counts {
		if want := shares[i] * float64(total); want > 0 {
			chi += (float64(n) - want) * (float64(n) - want) / want
			freedom++
		}
	}
	return chi, freedom - 1
}

// TestSpreadOfFlows has 10,000 random flows come where their hash says, by a table of
// every size and each level of hashing, with the hash that the guest is told. A guest
// gets what it asks for, as far as the release of the host has it.
func TestSpreadOfFlows(t *testing.T) {
	const flows, udp = 10_000, rndis.HashUDPv4 | rndis.HashUDPv6
	all := rndis.HashDefault | udp
	for _, c := range []struct {
		release  string
		asked    rndis.HashInfo
		done     rndis.HashInfo // as far as the release has it
		entries  int            // of the host's table
		table    int            // of the guest's
		channels int
	}{
		{"ws2022", rndis.HashDefault, rndis.HashDefault, 128, 128, 8},
		{"ws2022", all, all, 128, 128, 8},
		{"ws2022", rndis.HashToeplitz | rndis.HashIPv4 | rndis.HashIPv6, rndis.HashIPv4 | rndis.HashIPv6, 128, 128, 4},
		{"ws2022", rndis.HashToeplitz | rndis.HashTCPv4, rndis.HashTCPv4, 128, 128, 4},
		{"azure", all, all, 16, 16, 8},
		{"azure", all, all, 256, 256, 4},
		{"azure", all, all, 1, 1, 4},
		{"azure", all, all, 0, 128, 2},  // a host that does not say how many
		{"azure", all, all, 128, 16, 8}, // a guest that has fewer
		{"ws2016", all, rndis.HashDefault, 128, 128, 8},
		{"ws2012r2", all, rndis.HashDefault, 128, 128, 2},
	} {
		t.Run(fmt.Sprintf("%s/%#x/%d/%d", c.release, uint32(c.asked), c.table, c.channels), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(c.asked), uint64(c.table)))
			g := newGuest(t, c.release, func(cfg *Config) { cfg.Profile.RSSEntries = c.entries })
			g.up(g.dev.cfg.Profile.NVSP[0])
			guests, _ := g.widen(c.channels - 1)
			p := rndis.RSSParameters{HashInfo: c.asked, Key: make([]byte, rndis.KeySize)}
			for i := range p.Key {
				p.Key[i] = byte(r.Uint32())
			}
			shares := make([]float64, c.channels)
			for i := range c.table {
				p.Table = append(p.Table, uint32(i%c.channels))
				shares[i%c.channels] += 1 / float64(c.table)
			}
			r.Shuffle(c.table, func(i, j int) { p.Table[i], p.Table[j] = p.Table[j], p.Table[i] })
			if s := g.set(rndis.OIDReceiveScaleParameters, p.Append(nil)); s != rndis.StatusSuccess {
				t.Fatal(s)
			}
			counts := make([]int, c.channels)
			const batch = 25 // a channel has no more sections
			for number := 0; number < flows; number += batch {
				var sent []spreadFlow
				var list [][]byte
				for i := range batch {
					f := randomFlow(r)
					sent, list = append(sent, f), append(list, f.frame(number+i))
				}
				g.dev.WriteFrames(frames(list...))
				came := 0
				for at, ch := range guests {
					for _, m := range g.taken(ch) {
						came++
						h, err := rndis.ParsePacket(m, len(m))
						var info rndis.Info
						if err != nil || h.Info(&info) != nil {
							t.Fatalf("%x: %v", m[:64], err)
						}
						ports := m[h.DataOffset+h.DataLen-32:]
						f := sent[int(binary.BigEndian.Uint32(ports[4:]))-number]
						hash, over := f.hash(p.Key, c.done)
						want := 0
						if over != 0 {
							want = int(p.Table[hash%uint32(c.table)])
							counts[at]++
						}
						if at != want || info.Hash != hash || info.HashInfo != over || (info.Has == rndis.HasHash|rndis.HasHashInfo) != (over != 0) {
							t.Fatalf("%+v came on channel %d with %+v, want channel %d, hash %08x over %#x", f, at, info, want, hash, uint32(over))
						}
					}
				}
				g.returned()
				if came != batch {
					t.Fatalf("%d of %d frames came", came, batch)
				}
			}
			chi, freedom := chiSquare(counts, shares)
			t.Logf("%v, chi-square %.2f, freedom %d", counts, chi, freedom)
			if freedom > 0 && chi > critical[freedom] {
				t.Errorf("%v: not spread as the table has it: chi-square %.2f, freedom %d", counts, chi, freedom)
			}
		})
	}
}

// taken returns the messages that are in a channel's ring, and gives the sections back.
func (g *fakeGuest) taken(ch *channel.Channel) (list [][]byte) {
	for {
		b, err := ch.In.Next(g.buf[:])
		if err != nil {
			return list
		}
		p, err := vmbus.ParsePacket(b)
		if err != nil {
			g.t.Fatal(err)
		}
		list = append(list, g.messages(p)...)
		ch.Release()
		g.complete(ch, p.TID)
	}
}

// returned waits until the device has all sections back.
func (g *fakeGuest) returned() {
	g.t.Helper()
	for end := time.Now().Add(patience); g.dev.Info().Receive.InFlight > 0; runtime.Gosched() {
		if time.Now().After(end) {
			g.t.Fatalf("waiting for sections to be back: %+v", g.dev.Info())
		}
	}
}

// TestFragmentsFirst: old hosts have all fragments come on the first channel, today's
// spread them by address.
func TestFragmentsFirst(t *testing.T) {
	for release, first := range map[string]bool{"ws2012r2": true, "ws2016": true, "win10": true, "ws2019": false, "azure": false} {
		g := newGuest(t, release)
		g.up(g.dev.cfg.Profile.NVSP[0])
		guests, _ := g.widen(1)
		// Everything that has a hash goes to the second channel.
		p := rndis.RSSParameters{HashInfo: rndis.HashDefault, Table: []uint32{1}, Key: make([]byte, rndis.KeySize)}
		g.set(rndis.OIDReceiveScaleParameters, p.Append(nil))
		for _, flags := range []uint16{0x2000, 0x2010, 0x10} {
			b := tcp4(1)
			binary.BigEndian.PutUint16(b[20:], flags)
			g.dev.WriteFrames(frames(tcp4(1), b))
			if primary, other := len(g.taken(guests[0])), len(g.taken(guests[1])); primary != btoi(first) || other != 2-btoi(first) {
				t.Errorf("%s: flags %#x: %d and %d frames", release, flags, primary, other)
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestHeldUp: whoever looked how frames are spread before the guest changed that, and
// comes to deliver only afterwards, delivers as it is now. By the old way its frames would
// be on one channel and the next ones of their flows on another, which may be faster.
func TestHeldUp(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(g.dev.cfg.Profile.NVSP[0])
	s := g.dev.live.Load()
	held := []*steering{s.steer.Load()} // of a guest with one channel
	guests, _ := g.widen(2)
	held = append(held, s.steer.Load()) // that does not spread yet
	p := rndis.RSSParameters{HashInfo: rndis.HashDefault, Key: make([]byte, rndis.KeySize)}
	spread := func(table ...uint32) {
		p.Table = table
		if s := g.set(rndis.OIDReceiveScaleParameters, p.Append(nil)); s != rndis.StatusSuccess {
			t.Fatal(s)
		}
		held = append(held, s.steer.Load())
	}
	spread(1)
	p.Key[3] = 1 // the first bit of the source's address decides
	spread(1, 0)
	spread(2, 1)
	a, b := tcp4(1), tcp4(2)
	b[26] |= 0x80
	for i, st := range held {
		for want, list := range map[[3]int][][]byte{{0, 0, 1}: {a}, {0, 2, 0}: {b, b}, {0, 1, 1}: {a, b}} {
			s.deliverBy(st, frames(list...))
			var came [3]int
			for at, ch := range guests {
				came[at] = len(g.taken(ch))
			}
			if g.returned(); came != want {
				t.Errorf("by steering %d: %v on the channels, want %v", i, came, want)
			}
		}
	}
}
