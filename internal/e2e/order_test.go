package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"hvnet/netvsc"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vswitch"
)

// The flows of a flood: those behind the first ones are of UDP.
const orderFlows, orderTCP = 16, 14

// orderFrame is segment i of flow f. Of those of UDP some are whole, some a first and some
// a later fragment.
func orderFrame(to, from *deviceGuest, f int, i uint32) []byte {
	b := deviceFrame(to.mac, from.mac, 60+int(i)%200, f, 0)
	binary.BigEndian.PutUint32(b[38:], i)
	if f >= orderTCP {
		b[23] = 17
		binary.BigEndian.PutUint16(b[20:], []uint16{0, 0x2000, 185}[i%3])
	}
	return b
}

// An orderSink checks that the segments of a flow come in order. Some may be missing.
type orderSink struct {
	mu       sync.Mutex
	next     [orderFlows]uint32
	total    int
	channels map[uint16]bool
	late     []string
	came     chan struct{}
}

func (s *orderSink) WriteFrames(frames []nic.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range frames {
		h := frames[i].Head
		flow, seq := int(binary.BigEndian.Uint16(h[34:]))-1000, binary.BigEndian.Uint32(h[38:])
		if seq < s.next[flow] && len(s.late) < 10 {
			s.late = append(s.late, fmt.Sprintf("segment %d of flow %d on channel %d after %d", seq, flow, frames[i].Channel, s.next[flow]-1))
		}
		s.next[flow] = seq + 1
		s.channels[frames[i].Channel] = true
		s.total++
	}
	select {
	case s.came <- struct{}{}:
	default:
	}
}

// more waits for n segments more.
func (s *orderSink) more(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	want := s.total + n
	s.mu.Unlock()
	for {
		s.mu.Lock()
		total := s.total
		s.mu.Unlock()
		if total >= want {
			return
		}
		select {
		case <-s.came:
		case <-ctx.Done():
			t.Fatalf("%d segments came, want %d", total, want)
		}
	}
}

// An orderSource has a segment of one flow after the other.
type orderSource struct {
	to, from *deviceGuest
	flows    []int
	n        uint32
	wake     chan struct{}
}

func (s *orderSource) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	k := uint32(len(s.flows))
	b := orderFrame(s.to, s.from, s.flows[s.n%k], s.n/k)
	s.n++
	copy(rest, b[copy(first, b):])
	return len(b), nic.Offload{}, nil
}
func (s *orderSource) Wait() error { <-s.wake; return nil }
func (s *orderSource) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// TestOrderOverChannelChanges changes the channels of sender and receiver 100 times
// while one floods the other, half of it from sources and half by Send, with small
// buffers, so that everything runs full: the segments of each flow come in order, those of
// UDP too, which go by ports until the first fragment, and then by addresses.
func TestOrderOverChannelChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*devicePatience)
	defer cancel()
	prof, err := profile.Lookup(profile.Default)
	if err != nil {
		t.Fatal(err)
	}
	sw := vswitch.New(vswitch.Config{})
	a := newDeviceGuest(t, ctx, sw, prof, 1, netvsc.Config{TxSections: 20})
	b := newDeviceGuest(t, ctx, sw, prof, 2, netvsc.Config{})
	sink := &orderSink{channels: map[uint16]bool{}, came: make(chan struct{}, 1)}
	if err := b.nic.Up(ctx, sink); err != nil {
		t.Fatal(err)
	}
	flooding, stop := context.WithCancel(ctx)
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	for k := range 2 {
		flood.Go(func() {
			src := &orderSource{to: b, from: a, flows: []int{4 * k, 4*k + 1, 4*k + 2, 4*k + 3}, wake: make(chan struct{}, 1)}
			if err := a.nic.Pump(flooding, src); err != nil {
				t.Errorf("pump: %v", err)
			}
		})
		flood.Go(func() {
			for i := uint32(0); flooding.Err() == nil; i++ {
				var list [][]byte
				for f := 8 + 4*k; f < 12+4*k; f++ {
					list = append(list, orderFrame(b, a, f, i))
				}
				for left := deviceFrames(list...); len(left) > 0 && flooding.Err() == nil; {
					left = left[a.nic.Send(k, left):]
					runtime.Gosched() // there are two processors for all of it
				}
			}
		})
	}
	for i := range 100 {
		g := []*deviceGuest{a, b}[i%2]
		if err := g.nic.SetChannels(ctx, 1+(i/2*3+i)%4); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		if i%10 == 9 {
			level := nic.HashL3 + nic.HashKind(i/10%2)
			if err := a.nic.SetHashLevel(ctx, nic.FlowTCPv4, level); err != nil {
				t.Fatal(err)
			}
		}
		sink.more(ctx, t, 50)
	}
	sink.mu.Lock()
	defer sink.mu.Unlock()
	for _, l := range sink.late {
		t.Error(l)
	}
	for f, n := range sink.next {
		if n == 0 {
			t.Errorf("nothing of flow %d came", f)
		}
	}
	if len(sink.channels) < 3 {
		t.Errorf("everything came on channels %v", sink.channels)
	}
	if n := stat(a.nic.Stats(), "udp_frag_l3_sticky"); n == 0 {
		t.Error("no fragment was sent by its addresses")
	}
	t.Logf("%d segments came, on channels %v; %d were copied to another section", sink.total, sink.channels, stat(a.nic.Stats(), "tx_steer_copy"))
}
