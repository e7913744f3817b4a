package netvsc

import (
	"bytes"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// A piece is one range of a packet with coalesced pieces.
type piece struct {
	flags uint8 // 0: a frame of its own
	data  []byte
}

const (
	first  = rndis.PacketFragment | rndis.PacketFirst
	middle = rndis.PacketFragment
	last   = rndis.PacketFragment | rndis.PacketLast
)

// pieceMessages returns the messages of pieces. What is said of a packet is said in
// each, but only the first one counts.
func pieceMessages(info rndis.Info, list []piece) (messages [][]byte) {
	for i, p := range list {
		in := info
		if p.flags != 0 {
			in.Has |= rndis.HasPacketID
			in.PacketID = rndis.NewPacketID(p.flags, 7)
		}
		if p.flags&rndis.PacketFirst == 0 {
			in.Checksum, in.Hash = uint32(rndis.RxTCPFailed), uint32(i)
		}
		messages = append(messages, packetMessage(p.data, &in))
	}
	return messages
}

func TestCoalesced(t *testing.T) {
	const good = rndis.RxTCPOK | rndis.RxTCPValueInvalid | rndis.RxIPOK | rndis.RxIPValueInvalid
	for _, s := range []packets.Shape{{TCPOptions: 12}, {V6: true}, {V6: true, Tag: true}} {
		b := s.Frame(packets.Random(2500))
		want := packets.Partial(bytes.Clone(b), s.Segment(), 1000)
		for name, cuts := range map[string][]int{
			"by segments":         {len(b) - 1500, 1000, 500},
			"headers alone first": {len(b) - 2500, 1000, 1000, 500},
			"in many":             {30, 20, 50, 1400, 999, 1},
		} {
			h := newFakeHost()
			n := open(t, h, Config{})
			r := up(t, n)
			raw := bytes.Clone(b)
			at := packets.Field(raw)
			raw[at], raw[at+1] = 0xde, 0xad // as after coalescing
			info := rndis.Info{Has: rndis.HasChecksum, Checksum: uint32(good)}
			if s.Tag {
				info.Has, info.VLAN = info.Has|rndis.HasVLAN, 0xa005
				raw = append(raw[:12:12], raw[16:]...)
			}
			if !s.V6 {
				raw[24], raw[25] = 1, 2
			}
			var list []piece
			rest := raw
			for i, n := range cuts {
				p := piece{middle, rest}
				if i < len(cuts)-1 {
					if i == 0 && s.Tag && name != "in many" {
						n -= 4
					}
					p.data, rest = rest[:n], rest[n:]
				}
				list = append(list, p)
			}
			list[0].flags, list[len(list)-1].flags = first, last
			if err := h.queue(0).indicate(pieceMessages(info, list)...); err != nil {
				t.Fatal(err)
			}
			got := r.wait(t, 1)
			o := r.meta[0].Offload
			if name != "by segments" {
				_, l4, _, _ := packets.Parts(b)
				ip := 14
				if s.Tag {
					ip = 18
				}
				want.Offload.Size = uint16(1500 - (l4 - ip) - 20 - s.TCPOptions)
			} else {
				want.Offload.Size = 1000
			}
			if !bytes.Equal(got[0], packets.Bytes(&want)) || o != want.Offload {
				t.Errorf("%+v, %s: %+v, want %+v\n%x, want\n%x", s, name, o, want.Offload, got[0][:100], packets.Bytes(&want)[:100])
			}
			alive(t, h, n, r)
		}
	}
}

// TestCoalescedRules has the host break the rules of coalesced packets. No frame is
// made of what does not belong together, the sections come back, and it goes on.
func TestCoalescedRules(t *testing.T) {
	part := frame(1, 600)
	many := []piece{{first, part}}
	for range maxRanges - 1 {
		many = append(many, piece{middle, part[:100]})
	}
	long := []piece{{first, part}}
	for range 60 {
		long = append(long, piece{middle, frame(1, 1500)})
	}
	for _, tt := range []struct {
		name   string
		pieces []piece
		frames int
		status nvsp.Status
	}{
		{"whole", []piece{{first, part}, {middle, part}, {last, part}}, 1, nvsp.StatusSuccess},
		{"one piece", []piece{{first | last, part}}, 1, nvsp.StatusSuccess},
		{"no first one", []piece{{middle, part}, {last, part}}, 0, nvsp.StatusFail},
		{"no last one", []piece{{first, part}, {middle, part}}, 0, nvsp.StatusFail},
		{"first one twice", []piece{{first, part}, {first, part}, {last, part}}, 1, nvsp.StatusSuccess},
		{"last one twice", []piece{{first, part}, {last, part}, {last, part}}, 1, nvsp.StatusFail},
		{"a frame between", []piece{{first, part}, {0, part}, {last, part}}, 1, nvsp.StatusFail},
		{"shorter than a header", []piece{{first, part[:5]}, {last, part[:5]}}, 0, nvsp.StatusFail},
		{"a header in two", []piece{{first, part[:5]}, {last, part[5:]}}, 1, nvsp.StatusSuccess},
		{"a bad one between", []piece{{first, part}, {middle, nil}, {last, part}}, 0, nvsp.StatusFail},
		{"no end", many, 0, nvsp.StatusFail},
		{"too long", append(long, piece{last, part}), 0, nvsp.StatusFail},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHost()
			n := open(t, h, Config{})
			r := up(t, n)
			h.until(t, "the NIC is up", func() bool { return h.filter != 0 && len(h.rxBusy) == 0 })
			h.mu.Lock()
			before := h.completed[uint32(tt.status)]
			h.mu.Unlock()
			if err := h.queue(0).indicate(pieceMessages(rndis.Info{}, tt.pieces)...); err != nil {
				t.Fatal(err)
			}
			h.until(t, "the packet comes back", func() bool { return h.completed[uint32(tt.status)] == before+1 })
			if got := r.wait(t, tt.frames); len(got) != tt.frames {
				t.Errorf("%d frames, want %d", len(got), tt.frames)
			}
			alive(t, h, n, r)
		})
	}
}

// TestLargeSendMemory checks that nothing of a large send gets lost when the ring and
// the page runs are full, and that it costs no allocation.
func TestLargeSendMemory(t *testing.T) {
	h := newFakeHost()
	h.offload = rndis.HardwareOffload{
		IPv4:  rndis.ChecksumOffload{Tx: 0x155},
		LSOv4: rndis.LSOOffload{Encap: rndis.EncapEthernet, MaxBytes: 62780, MinSegs: 2},
	}
	gate := make(chan struct{})
	h.onData = func(q *fakeQueue, tid uint64) bool { <-gate; return false }
	n := open(t, h, Config{Queues: 1})
	up(t, n)
	f := packets.Partial(packets.Shape{}.Frame(packets.Random(60000)), nic.SegmentTCPv4, 1460)
	taken := 0
	for n.Send(0, []nic.Frame{f}) == 1 {
		taken++
	}
	if taken != pageRuns {
		t.Errorf("took %d, want %d", taken, pageRuns)
	}
	if got := n.Send(0, []nic.Frame{packets.Partial(packets.Shape{}.Frame(packets.Random(64000)), nic.SegmentTCPv4, 1460)}); got != 0 {
		t.Errorf("took a frame of two pieces without memory: %d", got)
	}
	close(gate)
	h.until(t, "all arrive", func() bool { return len(h.frames) == taken })
}
