package attach

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/boundary"
)

// accepting counts what reaches the handler.
type accepting struct {
	messages, signals atomic.Int64
	signalled         chan uint32
}

func (a *accepting) Messages(_ uint32, m []hv.Message) hv.Status {
	a.messages.Add(int64(len(m)))
	return hv.StatusSuccess
}

func (a *accepting) Signal(conn uint32) {
	a.signals.Add(1)
	if a.signalled != nil {
		a.signalled <- conn
	}
}

// mapped maps a memfd as the raw guest sees it.
func mapped(t *testing.T, fd, size int) []byte {
	t.Helper()
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b
}

// TestBadRecords sends an attached guest's malformed requests. Each is answered,
// none changes anything, and the guest may go on.
func TestBadRecords(t *testing.T) {
	h := new(accepting)
	memory := goodMemory(t)
	r, g, _, _ := attachRaw(t, ListenConfig{Limits: hv.Limits{Regions: 3, Bytes: 20 * hv.PageSize}}, memory, h)
	unsealed := file(t, 8*hv.PageSize, 0, 0)
	add := func(gpa hv.GPA, pages uint64) []byte {
		return appendAdd(nil, 7, region{gpa: gpa, size: pages * hv.PageSize})
	}
	before := descriptors(t)
	for _, x := range []struct {
		name   string
		record []byte
		fds    []int
		want   hv.Status
	}{
		{"only a header", header{typePost, 7}.append(nil), nil, hv.StatusInvalidInput},
		{"type 0", header{0, 7}.append(nil), nil, hv.StatusInvalidInput},
		{"unknown type", header{99, 7}.append(nil), nil, hv.StatusInvalidInput},
		{"reply of a guest", reply{}.append(nil, 7), nil, hv.StatusInvalidInput},
		{"second hello", goodHello().append(nil, 7), nil, hv.StatusInvalidInput},
		{"second hello with memory", goodHello().append(nil, 7), []int{memory}, hv.StatusInvalidInput},
		{"post of 241 bytes", appendPost(nil, 7, 1, 1, make([]byte, 241)), nil, hv.StatusInvalidInput},
		{"post of 100000 bytes", appendPost(nil, 7, 1, 1, make([]byte, 100000)), nil, hv.StatusInvalidInput},
		{"posts of none", appendPosts(nil, 7, 1, 1, nil), nil, hv.StatusInvalidInput},
		{"posts of 65 messages", appendPosts(nil, 7, 1, 1, make([][]byte, 65)), nil, hv.StatusInvalidInput},
		{"posts of 241 bytes", appendPosts(nil, 7, 1, 1, [][]byte{nil, make([]byte, 241)}), nil, hv.StatusInvalidInput},
		{"posts with half a length", append(appendPosts(nil, 7, 1, 1, [][]byte{{1}}), 0), nil, hv.StatusInvalidInput},
		{"posts of which the last is cut", append(appendPosts(nil, 7, 1, 1, [][]byte{{1}}), 2, 0, 9), nil, hv.StatusInvalidInput},
		{"posts of type 0", appendPosts(nil, 7, 1, 0, [][]byte{{1}, {2}}), nil, hv.StatusInvalidParameter},
		{"post with a descriptor", appendPost(nil, 7, 1, 1, nil), []int{memory}, hv.StatusInvalidInput},
		{"post of type 0", appendPost(nil, 7, 1, 0, nil), nil, hv.StatusInvalidParameter},
		{"post of a hypervisor's type", appendPost(nil, 7, 1, 0x80000010, nil), nil, hv.StatusInvalidParameter},
		{"add without descriptor", add(testGPA<<1, 1), nil, hv.StatusInvalidInput},
		{"add with two", add(testGPA<<1, 1), []int{memory, memory}, hv.StatusInvalidInput},
		{"add with a hundred", add(testGPA<<1, 1), make([]int, 100), hv.StatusInvalidInput},
		{"add too short", add(testGPA<<1, 1)[:31], []int{memory}, hv.StatusInvalidInput},
		{"add too long", append(add(testGPA<<1, 1), 0), []int{memory}, hv.StatusInvalidInput},
		{"add that overlaps", add(testGPA+7*hv.PageSize, 8), []int{memory}, hv.StatusInvalidParameter},
		{"add the same again", add(testGPA, 8), []int{memory}, hv.StatusInvalidParameter},
		{"add around", add(testGPA-hv.PageSize, 8), []int{memory}, hv.StatusInvalidParameter},
		{"add beyond the file", add(testGPA<<1, 9), []int{memory}, hv.StatusInvalidParameter},
		{"add unsealed", add(testGPA<<1, 1), []int{unsealed}, hv.StatusInvalidParameter},
		{"add", add(testGPA<<1, 8), []int{memory}, hv.StatusSuccess},
		{"add too much", add(testGPA<<2, 8), []int{memory}, hv.StatusInsufficientMemory},
		{"add the last", add(testGPA<<2, 4), []int{memory}, hv.StatusSuccess},
		{"add too many", add(testGPA<<3, 1), []int{memory}, hv.StatusInsufficientMemory},
		{"remove inside", appendRemove(nil, 7, testGPA<<1+hv.PageSize), nil, hv.StatusInvalidParameter},
		{"remove nothing", appendRemove(nil, 7, 0), nil, hv.StatusInvalidParameter},
		{"remove too short", appendRemove(nil, 7, testGPA<<1)[:12], nil, hv.StatusInvalidInput},
		{"remove", appendRemove(nil, 7, testGPA<<1), nil, hv.StatusSuccess},
		{"remove twice", appendRemove(nil, 7, testGPA<<1), nil, hv.StatusInvalidParameter},
		{"remove the SynIC's pages", appendRemove(nil, 7, testGPA), nil, hv.StatusSuccess},
	} {
		r.send(x.record, x.fds...)
		a, _ := r.reply()
		if a.status != x.want || (a.status != hv.StatusSuccess && a.text == "" && a.status != hv.StatusInvalidParameter) {
			t.Errorf("%s: %v %q, want %v", x.name, a.status, a.text, x.want)
		}
	}
	if n := h.messages.Load(); n != 0 {
		t.Errorf("%d messages reached the handler", n)
	}
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors are open, there were %d", now, before)
	}
	// It is alive, and its SynIC pages too, though their region is gone.
	r.send(appendPost(nil, 8, 1, 1, []byte("still here")))
	if a, _ := r.reply(); a.status != hv.StatusSuccess || h.messages.Load() != 1 {
		t.Errorf("good message after bad ones: %v", a.status)
	}
	if err := g.PostMessage(0, []byte("hello")); err != nil {
		t.Error(err)
	}
	if b := mapped(t, memory, 8*hv.PageSize); b[hv.PageSize+512] != 1 {
		t.Error("no message in the slot")
	}
}

func TestShortRecordEnds(t *testing.T) {
	r, _, _, served := attachRaw(t, ListenConfig{}, goodMemory(t), new(accepting))
	r.send([]byte("short"))
	r.ended()
	if err := boundary.Await(t, served, "Serve"); !errors.Is(err, ErrProtocol) {
		t.Errorf("Serve: %v", err)
	}
}

// TestDeafGuest posts and never reads the replies.
func TestDeafGuest(t *testing.T) {
	r, _, _, served := attachRaw(t, ListenConfig{}, goodMemory(t), new(accepting))
	post := appendPost(nil, 1, 1, 1, nil)
	for {
		if _, err := r.conn.Write(post); err != nil {
			break
		}
	}
	if err := boundary.Await(t, served, "Serve"); !errors.Is(err, ErrProtocol) {
		t.Errorf("Serve: %v", err)
	}
}

// TestDoorbellAbuse rings with all that a datagram can be, and fills the doorbells
// that are not the guest's to ring.
func TestDoorbellAbuse(t *testing.T) {
	h := &accepting{signalled: make(chan uint32, 1)}
	memory := goodMemory(t)
	_, g, bells, _ := attachRaw(t, ListenConfig{}, memory, h)
	b := mapped(t, memory, 8*hv.PageSize)
	ring := func(datagram []byte) {
		for {
			err := unix.Send(bells[0], datagram, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if !errors.Is(err, unix.EAGAIN) {
				if err != nil {
					t.Errorf("ring of %d bytes: %v", len(datagram), err)
				}
				return
			}
		}
	}
	signals := (*uint64)(unsafe.Pointer(&b[0]))
	for i, datagram := range [][]byte{nil, {1}, make([]byte, 60000)} {
		for range 1000 {
			ring(datagram)
		}
		atomic.OrUint64(signals, 1<<i)
		ring(datagram)
		if conn := boundary.Await(t, h.signalled, "the signal"); conn != uint32(i) {
			t.Errorf("signal of %d, want %d", conn, i)
		}
	}
	if err := unix.Send(bells[1], []byte{1}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err == nil {
		t.Error("the VP's doorbell can be rung from the wrong end")
	}
	// A guest that never listens: the host never waits.
	for range 5000 {
		atomic.StoreUint64((*uint64)(unsafe.Pointer(&b[2*hv.PageSize+512])), 0)
		if err := g.SetFlag(0, 5); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSlotAbuse scribbles over the message slot while the host posts.
func TestSlotAbuse(t *testing.T) {
	memory := goodMemory(t)
	_, g, bells, _ := attachRaw(t, ListenConfig{}, memory, new(accepting))
	b := mapped(t, memory, 8*hv.PageSize)
	slot := (*uint64)(unsafe.Pointer(&b[hv.PageSize+512]))
	for i := range 5000 {
		switch i % 4 {
		case 0:
			atomic.StoreUint64(slot, 0)
		case 1:
			atomic.StoreUint64(slot, ^uint64(0))
		case 2:
			unix.Send(bells[0], []byte{1}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		if err := g.PostMessage(0, make([]byte, i%241)); err != nil && !errors.Is(err, hv.ErrQueueFull) {
			t.Fatal(err)
		}
	}
}

// TestShrinkingMemory truncates memory that a host was told to trust.
func TestShrinkingMemory(t *testing.T) {
	memory := file(t, 8*hv.PageSize, 0, 0)
	_, g, bells, served := attachRaw(t, ListenConfig{TrustMemory: true}, memory, new(accepting))
	if err := unix.Ftruncate(memory, 0); err != nil {
		t.Fatal(err)
	}
	err := hv.Guard(func() {
		m := g.Memory()
		m.RLock()
		defer m.RUnlock()
		b, err := m.Bytes(testGPA+4*hv.PageSize, 8)
		if err != nil {
			t.Error(err)
		}
		b[0] = 1
		t.Error("wrote to memory that is not there")
	})
	if !errors.Is(err, hv.ErrFault) {
		t.Errorf("access: %v", err)
	}
	if err := hv.Guard(func() { g.SetFlag(0, 1) }); !errors.Is(err, hv.ErrFault) {
		t.Errorf("SetFlag: %v", err)
	}
	if err := hv.Guard(func() { g.PostMessage(0, nil) }); !errors.Is(err, hv.ErrFault) {
		t.Errorf("PostMessage: %v", err)
	}
	// The host's own goroutine runs into it too, and detaches the guest.
	unix.Send(bells[0], []byte{1}, unix.MSG_NOSIGNAL)
	if err := boundary.Await(t, served, "Serve"); !errors.Is(err, hv.ErrFault) {
		t.Errorf("Serve: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

// TestSilentGuest: who connects and says nothing is dropped, after its time, or soon
// when all places are taken and another guest comes.
func TestSilentGuest(t *testing.T) {
	for silent, timeout := range map[int]time.Duration{maxHandshakes - 1: 100 * time.Millisecond, 2 * maxHandshakes: time.Hour} {
		l, path := testListen(t, ListenConfig{HelloTimeout: timeout})
		before := descriptors(t)
		var list []*raw
		for range silent {
			list = append(list, newRaw(t, path))
		}
		p, err := Dial(t.Context(), path, Hello{VPs: 1})
		if err != nil {
			t.Fatal(err)
		}
		g, _, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
		g.Close()
		for i, r := range list {
			if i < maxHandshakes { // nobody waits for the others' places
				r.ended()
			}
			r.conn.Close()
		}
		l.Close()
		awaitDescriptors(t, before)
	}
}

// TestHurry: who has said hello does not have to make way for others, neither before
// it is accepted nor after.
func TestHurry(t *testing.T) {
	l, path := testListen(t, ListenConfig{})
	var list []*raw
	for range 2 * maxHandshakes {
		r := newRaw(t, path)
		r.send(goodHello().append(nil, 1), goodMemory(t))
		list = append(list, r)
	}
	welcome := func(list []*raw) {
		for _, r := range list {
			if a, _ := r.reply(); a.status != hv.StatusSuccess {
				t.Errorf("answer %+v", a)
			}
		}
	}
	welcome(list[:maxHandshakes]) // they have the places until they are accepted
	l.hurry()
	for range list {
		g, _, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
	}
	welcome(list[maxHandshakes:])
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.silent); n != 0 {
		t.Errorf("%d guests are to hurry that have said hello", n)
	}
}

// TestDeathAtEachStage ends a guest at each point of its life and looks for what
// it leaves.
func TestDeathAtEachStage(t *testing.T) {
	l, path := testListen(t, ListenConfig{})
	memory := goodMemory(t)
	before := descriptors(t)
	for stage := range 6 {
		t.Run(fmt.Sprint(stage), func(t *testing.T) {
			r := newRaw(t, path)
			if stage == 0 { // connected
				r.conn.Close()
				awaitDescriptors(t, before)
				return
			}
			r.send(goodHello().append(nil, 1), memory)
			if stage == 1 { // has said hello: the host may have noticed its death or not
				r.conn.Close()
				for descriptors(t) > before {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
					if g, _, err := l.Accept(ctx); err == nil {
						g.Close()
					}
					cancel()
				}
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), boundary.Patience)
			defer cancel()
			g, _, err := l.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if stage == 2 { // attached, not served
				r.conn.Close()
			}
			served := make(chan error, 1)
			go func() {
				served <- g.Serve(boundary.Funcs{OnMessage: func(uint32, *hv.Message) hv.Status {
					r.conn.Close() // in stage 5 it dies while its message is handled
					return hv.StatusSuccess
				}})
			}()
			switch stage {
			case 3:
				r.conn.Close()
			case 4:
				r.send(appendAdd(nil, 2, region{gpa: testGPA << 1, size: hv.PageSize}), memory)
				r.conn.Close()
			case 5:
				r.send(appendPost(nil, 2, 1, 1, nil))
			}
			if err := boundary.Await(t, served, "Serve"); !errors.Is(err, hv.ErrGone) {
				t.Errorf("Serve: %v", err)
			}
			boundary.Await(t, g.Done(), "Done")
			if err := g.SetFlag(0, 1); !errors.Is(err, hv.ErrGone) {
				t.Errorf("SetFlag: %v", err)
			}
			awaitDescriptors(t, before)
		})
	}
}
