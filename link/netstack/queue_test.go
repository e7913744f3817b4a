package netstack

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hvnet/nic"
)

func TestQueueSource(t *testing.T) {
	q := newQueue(1514)
	first, rest := make([]byte, 4), make([]byte, 6)
	if _, _, err := q.ReadFrame(first, rest); err != nic.ErrNoFrame {
		t.Errorf("empty: %v", err)
	}
	for _, s := range []string{"a frame", "abc", "one that is too long"} {
		if !q.putFrame([]byte(s)) {
			t.Fatal("no room")
		}
	}
	if err := q.Wait(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"a frame", "abc"} {
		n, _, err := q.ReadFrame(first, rest)
		got := string(append(bytes.Clone(first), rest...)[:n])
		if err != nil || got != want {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
	}
	if _, _, err := q.ReadFrame(first, rest); err != nic.ErrNoFrame || q.dropped != 1 {
		t.Errorf("too long: %v, %d dropped", err, q.dropped)
	}
	q.Wake()
	if err := q.Wait(); err != nil {
		t.Errorf("woken: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- q.Wait() }()
	q.close()
	if err := <-waited; !errors.Is(err, net.ErrClosed) {
		t.Errorf("wait on a closed queue: %v", err)
	}
	if _, _, err := q.ReadFrame(first, rest); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a closed queue: %v", err)
	}
	if q.putFrame([]byte("x")) {
		t.Error("a closed queue took a frame")
	}
}

func TestQueueFull(t *testing.T) {
	q := newQueue(1514)
	for i := range queueLen {
		if !q.putFrame([]byte{byte(i)}) {
			t.Fatalf("full after %d", i)
		}
	}
	if q.putFrame([]byte{0}) || q.dropped != 1 {
		t.Errorf("took more than %d packets, %d dropped", queueLen, q.dropped)
	}
	q.close()
	q.discard()
	if q.dropped != 1+queueLen {
		t.Errorf("closed: %d dropped", q.dropped)
	}
}

// TestPump checks order and content, with frames so large that a batch does not
// fit the pump's memory.
func TestPump(t *testing.T) {
	q := newQueue(nic.MaxFrame)
	const count = 300
	frame := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1+i*200) }
	for i := range count {
		q.putFrame(frame(i))
	}
	got, batches, done := 0, 0, make(chan struct{})
	go q.pump(sinkFunc(func(frames []nic.Frame) {
		batches++
		for _, f := range frames {
			if !bytes.Equal(f.Head, frame(got)) {
				t.Errorf("frame %d is another", got)
			}
			got++
		}
		if got == count {
			close(done)
		}
	}))
	<-done
	q.close()
	if batches < count/pumpBatch || batches > count/2 {
		t.Errorf("%d frames in %d batches", count, batches)
	}
}

// TestQueueAllocations: a packet passes through without any.
func TestQueueAllocations(t *testing.T) {
	q := newQueue(1514)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(make([]byte, 1514))})
	first, rest := make([]byte, 128), make([]byte, 1514)
	if n := testing.AllocsPerRun(1000, func() {
		q.put(pkt)
		q.ReadFrame(first, rest)
	}); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}
