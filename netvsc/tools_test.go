package netvsc

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"hvnet/nic"
)

// A recorder is a sink that keeps copies.
type recorder struct {
	mu     sync.Mutex
	frames [][]byte
	meta   []nic.Frame
	calls  int
	got    chan struct{}
}

// Takes has the recorder get frames as they come.
func (r *recorder) Takes() nic.Offloads {
	return nic.TakesChecksum | nic.TakesTCPv4 | nic.TakesTCPv6
}

func newRecorder() *recorder { return &recorder{got: make(chan struct{}, 1)} }

func (r *recorder) WriteFrames(frames []nic.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		r.frames = append(r.frames, b)
		f := frames[i]
		f.Head, f.Body = nil, nil
		r.meta = append(r.meta, f)
	}
	select {
	case r.got <- struct{}{}:
	default:
	}
}

func (r *recorder) wait(t testing.TB, n int) [][]byte {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		if len(r.frames) >= n {
			defer r.mu.Unlock()
			return r.frames
		}
		r.mu.Unlock()
		select {
		case <-r.got:
		case <-deadline.C:
			t.Fatalf("%d frames, want %d", len(r.frames), n)
		}
	}
}

// frame returns a UDP frame of n bytes whose flow and content depend on id.
func frame(id, n int) []byte {
	b := make([]byte, max(n, 42))
	copy(b, []byte{0x00, 0x15, 0x5d, 9, 9, 9, 0x00, 0x15, 0x5d, 1, 2, 3, 0x08, 0x00, 0x45})
	binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
	b[22], b[23] = 64, 17
	copy(b[26:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(b[34:], uint16(1024+id))
	binary.BigEndian.PutUint16(b[36:], 9)
	for i := 42; i < len(b); i++ {
		b[i] = byte(i*7 + id)
	}
	return b[:n]
}

func asFrame(b []byte) nic.Frame {
	f := nic.Frame{Head: b}
	if len(b) > nic.HeadLen {
		f.Head, f.Body = b[:nic.HeadLen], [][]byte{b[nic.HeadLen:]}
	}
	return f
}

func up(t testing.TB, n *NIC) *recorder {
	t.Helper()
	r := newRecorder()
	if err := n.Up(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func sameFrames(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d of %d bytes differs from what was sent, %d bytes", i, len(got[i]), len(want[i]))
		}
	}
}
