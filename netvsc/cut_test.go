package netvsc

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"hvnet/counter"
	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/rndis"
)

// A metaSource gives frames with their metadata to a pump.
type metaSource struct {
	*source
	meta map[string]nic.Offload // by the bytes of the frame
}

func (s *metaSource) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	n, _, err := s.source.ReadFrame(first, rest)
	if err != nil {
		return n, nic.Offload{}, err
	}
	b := append([]byte(nil), first[:min(n, len(first))]...)
	b = append(b, rest[:n-len(b)]...)
	return n, s.meta[string(b)], nil
}

// TestCutWithoutMemory has the host complete nothing while frames come that the driver
// has to cut, or to complete, more of them than there is memory for. None is lost, and
// all that is sent comes in order.
func TestCutWithoutMemory(t *testing.T) {
	for _, tt := range []struct {
		name    string
		offload rndis.HardwareOffload
		sizes   []int // of segments; 0: not to be cut
	}{
		{"segments", rndis.HardwareOffload{}, []int{1448}},
		{"short segments", rndis.HardwareOffload{}, []int{100, 48}},
		{"checksums", rndis.HardwareOffload{}, []int{0}},
		{"both", rndis.HardwareOffload{}, []int{0, 500, 1448}},
		{"the host cuts 9000 bytes at a time", rndis.HardwareOffload{
			IPv4:  rndis.ChecksumOffload{Tx: needTCPv4},
			LSOv4: rndis.LSOOffload{Encap: rndis.EncapEthernet, MaxBytes: 9000, MinSegs: 2},
		}, []int{1448, 700}},
	} {
		for _, way := range []string{"pump", "send"} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				h := newFakeHost()
				h.offload = tt.offload
				gate := make(chan struct{})
				h.onData = func(*fakeQueue, uint64) bool { <-gate; return false }
				release := sync.OnceFunc(func() { close(gate) })
				defer release()
				n := open(t, h, Config{Queues: 1, TxSections: MinSections})
				up(t, n)
				src := &metaSource{newSource(), map[string]nic.Offload{}}
				var want [][]byte
				var payload []byte
				var frames []nic.Frame
				for i := range 200 {
					size := tt.sizes[i%len(tt.sizes)]
					s := packets.Shape{Name: fmt.Sprint(i)}
					b := s.Frame(packets.Random(1000 + i))
					seg := nic.SegmentNone
					if size > 0 {
						seg, b = nic.SegmentTCPv4, s.Frame(packets.Random(min(40*size, 7000)+i))
						want = append(want, packets.Cut(b, size)...)
					} else {
						want = append(want, append([]byte(nil), b...))
					}
					payload = append(payload, b[packets.Payload(b):]...)
					f := packets.Partial(b, seg, size)
					src.source.frames = append(src.source.frames, b)
					src.meta[string(b)] = f.Offload
					frames = append(frames, f)
				}
				if way == "pump" {
					ctx, stop := context.WithCancel(context.Background())
					ended := make(chan error, 1)
					go func() { ended <- n.Pump(ctx, src) }()
					defer func() {
						stop()
						if err := <-ended; err != nil {
							t.Error(err)
						}
					}()
				} else {
					for {
						k := n.Send(0, frames)
						if frames = frames[k:]; k == 0 {
							break
						}
					}
				}
				if way == "pump" {
					s := n.session.Load()
					for end := time.Now().Add(10 * time.Second); s.sections.idle()+s.runs.idle() > 0; runtime.Gosched() {
						if time.Now().After(end) {
							t.Fatalf("memory does not run out: %v", n.Accounts())
						}
					}
				}
				release()
				for len(frames) > 0 && way == "send" {
					frames = frames[n.Send(0, frames):]
				}
				var got []byte
				h.until(t, "all arrive", func() bool {
					got = got[:0]
					for _, b := range h.frames {
						got = append(got, b[packets.Payload(b):]...)
					}
					return len(got) >= len(payload)
				})
				h.mu.Lock()
				defer h.mu.Unlock()
				if tt.offload.IPv4.Tx == 0 {
					sameFrames(t, h.frames, want)
				}
				if !bytes.Equal(got, payload) {
					t.Error("the payload is not what was sent")
				}
				if lost := n.count.Load(counter.TxNoMemory) + n.count.Load(counter.TxLost); lost != 0 {
					t.Errorf("%d frames are lost", lost)
				}
			})
		}
	}
}

// TestSendNoSegments sends frames that are to be cut into segments of no bytes, to a host
// that cuts: of those that it takes at once, and of longer ones.
func TestSendNoSegments(t *testing.T) {
	h := newFakeHost()
	h.offload = rndis.HardwareOffload{
		IPv4:  rndis.ChecksumOffload{Tx: needTCPv4},
		LSOv4: rndis.LSOOffload{Encap: rndis.EncapEthernet, MaxBytes: 9000, MinSegs: 2},
	}
	n := open(t, h, Config{Queues: 1})
	up(t, n)
	for i, payload := range []int{3000, 60000} {
		f := packets.Partial(packets.Shape{}.Frame(packets.Random(payload)), nic.SegmentTCPv4, 0)
		if n.Send(0, []nic.Frame{f}) != 1 {
			t.Errorf("with %d bytes of payload it is not taken", payload)
		}
		if got := n.count.Load(counter.TxMalformed); got != uint64(i+1) {
			t.Errorf("with %d bytes of payload: %d malformed, want %d", payload, got, i+1)
		}
	}
}
