package impair

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/bits"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// A keeper keeps copies of the frames that it gets, and when.
type keeper struct {
	mu      sync.Mutex
	frames  [][]byte
	meta    []nic.Frame
	at      []time.Time
	batches int
	hook    func([]nic.Frame)
}

func (k *keeper) WriteFrames(frames []nic.Frame) {
	k.mu.Lock()
	k.batches++
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		k.frames = append(k.frames, b)
		k.meta = append(k.meta, frames[i])
		k.at = append(k.at, time.Now())
	}
	hook := k.hook
	k.mu.Unlock()
	if hook != nil {
		hook(frames)
	}
}

func (k *keeper) order() (ids []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.frames {
		ids = append(ids, int(binary.BigEndian.Uint32(b[14:])))
	}
	return ids
}

// frame returns frame number id, of n bytes, in pieces.
func frame(id, n int) nic.Frame {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * id)
	}
	copy(b, tcp[:14])
	b[12] = 0x88 // no IP
	binary.BigEndian.PutUint32(b[14:], uint32(id))
	f := nic.Frame{Head: b, Channel: uint16(id), Hash: uint32(id), HashKind: nic.HashL4}
	if n > nic.HeadLen {
		rest := b[nic.HeadLen:]
		f.Head, f.Body = b[:nic.HeadLen], [][]byte{rest[:len(rest)/2], rest[len(rest)/2:]}
	}
	return f
}

func frames(from, n int) (list []nic.Frame) {
	for i := range n {
		list = append(list, frame(from+i, 60+i))
	}
	return list
}

func whole(f nic.Frame) []byte {
	b := make([]byte, f.Len())
	f.CopyTo(b)
	return b
}

// balanced checks that every frame is accounted for.
func balanced(t testing.TB, s *Sink) Info {
	t.Helper()
	i := s.Info()
	if i.Frames+i.Doubled != i.Passed+i.Lost+i.Overflowed+i.Discarded+uint64(i.Waiting) {
		t.Errorf("the account does not balance: %+v", i)
	}
	return i
}

// state reads what Info does not tell.
func (s *Sink) state() (bytes int, running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.running
}

// TestUntouched: what nothing happens to is passed on in place, as one batch.
func TestUntouched(t *testing.T) {
	k := &keeper{}
	s := New(Config{}, k)
	list := []nic.Frame{frame(1, 60), frame(2, 1514)}
	s.WriteFrames(list)
	if k.batches != 1 || len(k.meta) != 2 {
		t.Fatalf("%d batches, %d frames", k.batches, len(k.meta))
	}
	for i, f := range k.meta {
		if &f.Head[0] != &list[i].Head[0] || len(f.Body) != len(list[i].Body) {
			t.Errorf("frame %d was copied", i)
		}
	}
	s.WriteFrames(nil)
	if i := balanced(t, s); i.Frames != 2 || i.Passed != 2 || k.batches != 1 {
		t.Errorf("%+v, %d batches", i, k.batches)
	}
}

// TestDelay: frames wait as copies, and come in order and whole.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		s := New(Config{Delay: 5 * time.Millisecond}, k)
		start := time.Now()
		var want [][]byte
		for i := range 10 {
			list := []nic.Frame{frame(2*i, 60), frame(2*i+1, 9000)}
			for j := range list {
				want = append(want, whole(list[j]))
			}
			s.WriteFrames(list)
			for j := range list { // the sender uses its memory for other things
				clear(list[j].Head)
				for _, p := range list[j].Body {
					clear(p)
				}
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !slices.EqualFunc(k.frames, want, bytes.Equal) {
			t.Fatalf("%d frames, or others", len(k.frames))
		}
		for i, at := range k.at {
			if d, want := at.Sub(start), 5*time.Millisecond+time.Duration(i/2)*time.Millisecond; d != want {
				t.Errorf("frame %d came after %v, want %v", i, d, want)
			}
			if m := k.meta[i]; int(m.Channel) != i || int(m.Hash) != i || m.HashKind != nic.HashL4 {
				t.Errorf("frame %d: what is known about it is lost: %+v", i, m)
			}
		}
		i := balanced(t, s)
		if _, running := s.state(); i.Delayed != 20 || i.Passed != 20 || running {
			t.Errorf("%+v, runs %v", i, running)
		}
	})
}

// TestReorder: who is held back is overtaken, by those behind it alone.
func TestReorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		s := New(Config{Reorder: .2, Seed: 1}, k)
		for i := range 100 {
			s.WriteFrames(frames(i, 1))
			time.Sleep(300 * time.Microsecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		got := k.order()
		if slices.IsSorted(got) {
			t.Error("nobody was overtaken")
		}
		place := make([]int, len(got))
		for p, id := range got {
			place[id] = p
		}
		moved := 0
		for id, p := range place {
			switch {
			case p > id+4:
				t.Errorf("frame %d came as number %d", id, p)
			case p > id:
				moved++
			}
		}
		slices.Sort(got)
		if len(got) != 100 || got[99] != 99 {
			t.Errorf("frames %v", got)
		}
		if i := balanced(t, s); i.Reordered == 0 || int(i.Reordered) < moved {
			t.Errorf("%+v, %d moved", i, moved)
		}
	})
}

// TestCorrupt: one bit of the payload changes, in a copy.
func TestCorrupt(t *testing.T) {
	k := &keeper{}
	s := New(Config{Corrupt: 1, Duplicate: 1, Seed: 9}, k)
	for _, n := range []int{14, 15, 60, 1514, 9000} {
		k.frames = nil
		list := []nic.Frame{frame(3, max(n, 18))}
		if n < 18 {
			list[0].Head = list[0].Head[:n]
		}
		want := whole(list[0])
		s.WriteFrames(list)
		if !bytes.Equal(whole(list[0]), want) {
			t.Errorf("%d bytes: the sender's frame was changed", n)
		}
		if len(k.frames) != 2 || !bytes.Equal(k.frames[0], k.frames[1]) {
			t.Fatalf("%d bytes: %d frames", n, len(k.frames))
		}
		differ := 0
		for i := range want {
			differ += bits.OnesCount8(want[i] ^ k.frames[0][i])
		}
		if wantBits := min(n-14, 1); differ != wantBits || !bytes.Equal(want[:14], k.frames[0][:14]) {
			t.Errorf("%d bytes: %d bits differ, want %d behind the header", n, differ, wantBits)
		}
	}
	if i := balanced(t, s); i.Corrupted != 4 || i.Doubled != 5 {
		t.Errorf("%+v", i)
	}
}

// TestLimit: what waits is bounded.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		s := New(Config{Delay: time.Second, Limit: 10 * charge}, k)
		s.WriteFrames(frames(0, 15))
		synctest.Wait()
		i := balanced(t, s)
		if bytes, _ := s.state(); i.Overflowed != 5 || i.Waiting != 10 || bytes != 10*charge {
			t.Errorf("%+v, %d bytes", i, bytes)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		i = balanced(t, s)
		if bytes, _ := s.state(); i.Passed != 10 || bytes != 0 {
			t.Errorf("%+v, %d bytes", i, bytes)
		}
	})
}

// TestNobodyOvertakes: while the goroutine is busy with frames, others stay behind
// them, although their time has come, and are bounded too.
func TestNobodyOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		var s *Sink
		inside, leave := make(chan struct{}), make(chan struct{})
		first := true
		k.hook = func([]nic.Frame) {
			if first {
				first = false
				close(inside)
				<-leave
			}
		}
		s = New(Config{Rate: 1_000_000_000, Limit: 5 * charge}, k)
		s.WriteFrames(frames(0, 1))
		<-inside
		time.Sleep(time.Second) // the line is idle again, but the frame is not through
		s.WriteFrames(frames(1, 10))
		if i := balanced(t, s); i.Waiting != 5 || i.Overflowed != 5 {
			t.Errorf("%+v", i)
		}
		close(leave)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := k.order(); !slices.Equal(got, []int{0, 1, 2, 3, 4, 5}) {
			t.Errorf("came as %v", got)
		}
	})
}

// TestClose: nothing passes afterwards, and the goroutine ends.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		s := New(Config{Delay: time.Hour}, k)
		s.WriteFrames(frames(0, 3))
		s.Close()
		s.WriteFrames(frames(0, 2))
		synctest.Wait()
		i := balanced(t, s)
		if _, running := s.state(); i.Discarded != 5 || i.Waiting != 0 || running || len(k.frames) > 0 {
			t.Errorf("%+v, runs %v", i, running)
		}
		s.Close()
	})
}

// TestDrain: when a line is drained nothing waits in it, or it is said what was waited for.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		s := New(Config{Delay: 5 * time.Millisecond}, k)
		if err := s.Drain(t.Context()); err != nil {
			t.Errorf("an empty line: %v", err)
		}
		s.WriteFrames(frames(0, 3))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) || len(k.frames) > 0 {
			t.Errorf("%v, %d frames", err, len(k.frames))
		}
		if err := s.Drain(t.Context()); err != nil || len(k.frames) != 3 {
			t.Errorf("%v, %d frames", err, len(k.frames))
		}
		s.WriteFrames(frames(0, 3))
		s.Close()
		if err := s.Drain(t.Context()); err != nil || len(k.frames) != 3 {
			t.Errorf("closed: %v, %d frames", err, len(k.frames))
		}
	})
}

// TestManySenders: from many goroutines at once, nothing is lost without a name
// and each sender's frames stay in order.
func TestManySenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		s := New(Config{Loss: .1, Duplicate: .1, Delay: time.Millisecond, Jitter: time.Millisecond, Seed: 5}, k)
		var wg sync.WaitGroup
		for sender := range 4 {
			wg.Go(func() {
				for i := range 500 {
					s.WriteFrames(frames(sender<<16|i*4, 4))
					if i%50 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		i := balanced(t, s)
		if i.Frames != 8000 || i.Waiting != 0 || i.Passed != uint64(len(k.frames)) {
			t.Errorf("%+v, %d arrived", i, len(k.frames))
		}
		last := [4]int{-1, -1, -1, -1}
		for _, id := range k.order() {
			if id&0xffff < last[id>>16] {
				t.Fatalf("sender %d: %d came after %d", id>>16, id&0xffff, last[id>>16])
			}
			last[id>>16] = id & 0xffff
		}
	})
}

// nowhere takes frames and forgets them.
type nowhere struct{}

func (nowhere) WriteFrames([]nic.Frame) {}

// TestNoAllocation: what passes at once costs no allocation, also if it is changed.
func TestNoAllocation(t *testing.T) {
	list := frames(0, 64)
	for what, c := range map[string]Config{
		"untouched": {Loss: .01},
		"changed":   {Corrupt: .5, Duplicate: .5},
	} {
		s := New(c, nowhere{})
		for range 10 {
			s.WriteFrames(list)
		}
		if n := testing.AllocsPerRun(100, func() { s.WriteFrames(list) }); n > 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

func BenchmarkUntouched(b *testing.B) {
	list := frames(0, 64)
	s := New(Config{Loss: .01}, nowhere{})
	for b.Loop() {
		s.WriteFrames(list)
	}
}

// TestMemoryThatGoes: a panic in the copy, as when a guest takes its memory away,
// leaves the sink in order.
func TestMemoryThatGoes(t *testing.T) {
	s := New(Config{Delay: time.Hour}, nowhere{})
	defer s.Close()
	gone, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(gone)
	func() {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() { recover() }()
		s.WriteFrames([]nic.Frame{frame(1, 60), {Head: make([]byte, 60), Body: [][]byte{gone}}})
		t.Error("there was no panic")
	}()
	s.WriteFrames(frames(0, 1))
	if i := balanced(t, s); i.Frames != 2 || i.Waiting != 2 {
		t.Errorf("%+v", i)
	}
}
