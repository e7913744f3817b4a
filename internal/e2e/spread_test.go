package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"hvnet/netvsc"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// A spreadSink notes on which channel each frame came, by the number that is in its
// last bytes, and with which hash.
type spreadSink struct {
	mu      sync.Mutex
	channel map[uint32]uint16
	hash    map[uint32]uint32
	kind    map[uint32]nic.HashKind
	got     chan struct{}
}

func newSpreadSink() *spreadSink {
	return &spreadSink{channel: map[uint32]uint16{}, hash: map[uint32]uint32{}, kind: map[uint32]nic.HashKind{}, got: make(chan struct{}, 1)}
}

func (s *spreadSink) WriteFrames(frames []nic.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range frames {
		f := &frames[i]
		number := binary.BigEndian.Uint32(f.Head[len(f.Head)-4:])
		s.channel[number], s.hash[number], s.kind[number] = f.Channel, f.Hash, f.HashKind
	}
	select {
	case s.got <- struct{}{}:
	default:
	}
}

// at returns how frame number came.
func (s *spreadSink) at(number int) (channel, hash uint32, kind nic.HashKind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := uint32(number)
	return uint32(s.channel[n]), s.hash[n], s.kind[n]
}

func (s *spreadSink) wait(t *testing.T, n int) {
	t.Helper()
	end := time.After(devicePatience)
	for {
		s.mu.Lock()
		have := len(s.channel)
		s.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-s.got:
		case <-end:
			t.Fatalf("%d frames of %d came", have, n)
		}
	}
}

// spreadFrame returns a frame of a random flow, TCP or UDP, over either IP version,
// and what a host hashes of it for Linux: ports for TCP, addresses for UDP.
func spreadFrame(r *rand.Rand, number int) (frame, hashed []byte, kind nic.HashKind) {
	b := append(append([]byte{}, driverMAC[:]...), 0x00, 0x15, 0x5d, 9, 9, 9)
	v6, udp := r.IntN(2) == 0, r.IntN(2) == 0
	proto, addrs := byte(6), 8
	if udp {
		proto = 17
	}
	if v6 {
		addrs = 32
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, proto, 64)
	} else {
		b = append(b, 0x08, 0x00, 0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, proto, 0, 0)
	}
	at := len(b)
	for range addrs + 4 {
		b = append(b, byte(r.Uint32()))
	}
	hashed, kind = b[at:], nic.HashL4
	if udp {
		hashed, kind = b[at:at+addrs], nic.HashL3
	}
	return binary.BigEndian.AppendUint32(append(b, make([]byte, 16)...), uint32(number)), hashed, kind
}

// spreadHash is the Toeplitz hash by its definition, bit by bit.
func spreadHash(key, input []byte) (h uint32) {
	window := binary.BigEndian.Uint32(key)
	for i := range 8 * len(input) {
		if input[i/8]&(0x80>>(i%8)) != 0 {
			h ^= window
		}
		window = window<<1 | uint32(key[i/8+4]>>(7-i%8)&1)
	}
	return h
}

// TestReceiveSpread has 10,000 random flows for a guest come on the channel that its
// table has for their hash, for tables of all sizes and kinds that a user can set, and
// evenly where the table is even.
func TestReceiveSpread(t *testing.T) {
	critical := map[int]float64{2: 10.83, 4: 16.27, 8: 24.32} // one in a thousand, by channels
	for _, c := range []struct{ entries, channels int }{{1, 4}, {16, 4}, {128, 8}, {256, 2}} {
		t.Run(fmt.Sprintf("%d entries for %d channels", c.entries, c.channels), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
			defer cancel()
			p, _ := profile.Lookup(profile.Default)
			p.RSSEntries = c.entries
			rig := newDriverRigOn(t, p, c.channels, netvsc.Config{})
			r := rand.New(rand.NewPCG(uint64(c.entries), 1))
			key := make([]byte, 40)
			for i := range key {
				key[i] = byte(r.Uint32())
			}
			even := make([]uint32, c.entries)
			random, two := slices.Clone(even), slices.Clone(even)
			for i := range even {
				even[i] = uint32(i % c.channels)
				random[i] = uint32(r.IntN(c.channels))
				two[i] = uint32(c.channels - 1 - i%2)
			}
			for _, step := range []struct {
				what   string
				change nic.RSSChange
			}{
				{"default", nic.RSSChange{}},
				{"random", nic.RSSChange{Table: random}},
				{"two channels, another key", nic.RSSChange{Table: two, Key: key}},
				{"even", nic.RSSChange{Default: true}},
			} {
				if err := rig.nic.SetRSS(ctx, step.change); err != nil {
					t.Fatalf("%s: %v", step.what, err)
				}
				if err := rig.nic.SetMTU(ctx, 1499-rig.nic.MTU()%2); err != nil { // through a re-attachment
					t.Fatal(err)
				}
				sink := newSpreadSink()
				defer func() {
					if t.Failed() {
						t.Logf("the host: %+v", rig.device.Info())
					}
				}()
				if err := rig.nic.Up(ctx, sink); err != nil {
					t.Fatal(err)
				}
				rss := rig.nic.RSS()
				counts := make([]float64, c.channels)
				const flows, batch = 10_000, 50
				for number := 0; number < flows; number += batch {
					var frames []nic.Frame
					var hashed [batch][]byte
					var kinds [batch]nic.HashKind
					for i := range batch {
						var f []byte
						f, hashed[i], kinds[i] = spreadFrame(r, number+i)
						frames = append(frames, nic.Frame{Head: f})
					}
					// What the guest has no room for at that moment is dropped, and sent again.
					for before, now := uint64(0), rig.dropped(); now != before; now = rig.dropped() {
						before = now
						rig.device.WriteFrames(frames)
					}
					sink.wait(t, number+batch)
					for i := range batch {
						h := spreadHash(rss.Key, hashed[i])
						want := rss.Table[h%uint32(len(rss.Table))]
						if channel, hash, kind := sink.at(number + i); channel != want || hash != h || kind != kinds[i] {
							t.Fatalf("%s: %x came on channel %d with hash %08x of kind %d, want channel %d, %08x, %d", step.what,
								frames[i].Head, channel, hash, kind, want, h, kinds[i])
						}
						counts[want]++
					}
				}
				if step.what != "even" || c.entries < c.channels {
					continue
				}
				chi := 0.0
				for _, n := range counts {
					mean := flows / float64(c.channels)
					chi += (n - mean) * (n - mean) / mean
				}
				t.Logf("%v: chi-square %.2f", counts, chi)
				if chi > critical[c.channels] {
					t.Errorf("%v are not even: chi-square %.2f", counts, chi)
				}
			}
			if err := rig.nic.SetRSS(ctx, nic.RSSChange{Table: []uint32{uint32(c.channels)}}); !errors.Is(err, nic.ErrInvalid) {
				t.Errorf("a channel that there is not: %v", err)
			}
		})
	}
}

// dropped returns how many frames for the guest the device has dropped, and one more.
func (r *driverRig) dropped() uint64 {
	n := uint64(1)
	for _, k := range r.device.Info().RxDropped {
		n += k
	}
	return n
}
