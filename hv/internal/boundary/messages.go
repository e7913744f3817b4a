package boundary

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"hvnet/hv"
)

func testGuestPosts(t *testing.T, open Opener) {
	p, g := open(t, 1)
	type posted struct {
		conn uint32
		typ  uint32
		data string
	}
	var got []posted
	Serve(t, g, Funcs{OnMessage: func(conn uint32, m *hv.Message) hv.Status {
		got = append(got, posted{conn, m.Type, string(m.Payload())})
		if conn == 99 {
			return hv.StatusInvalidConnectionID
		}
		return hv.StatusSuccess
	}})
	long := bytes.Repeat([]byte("x"), hv.MaxPayload)
	for _, x := range []struct {
		conn uint32
		data []byte
		want error
	}{
		{1, []byte("hello"), nil},
		{4, long, nil},
		{99, []byte("who?"), hv.StatusInvalidConnectionID},
		{1, nil, nil},
		{1, append(long, 'x'), hv.StatusInvalidParameter},
	} {
		if err := p.PostMessage(x.conn, x.data); !errors.Is(err, x.want) {
			t.Errorf("post of %d bytes to %d: %v, want %v", len(x.data), x.conn, err, x.want)
		}
	}
	// Several together arrive in order, or not at all.
	if err := p.PostMessage(7, []byte("one"), nil, long); err != nil {
		t.Errorf("three together: %v", err)
	}
	for _, bad := range [][][]byte{{}, make([][]byte, hv.MaxPosts+1), {[]byte("good"), append(long, 'x')}} {
		if err := p.PostMessage(7, bad...); !errors.Is(err, hv.StatusInvalidParameter) {
			t.Errorf("%d together: %v", len(bad), err)
		}
	}
	if err := p.PostMessage(8, make([][]byte, hv.MaxPosts)...); err != nil {
		t.Errorf("as many as can be: %v", err)
	}
	g.Close()
	want := []posted{{1, 1, "hello"}, {4, 1, string(long)}, {99, 1, "who?"}, {1, 1, ""},
		{7, 1, "one"}, {7, 1, ""}, {7, 1, string(long)}}
	for range hv.MaxPosts {
		want = append(want, posted{8, 1, ""})
	}
	if !slices.Equal(got, want) {
		t.Errorf("handler got %v", got)
	}
}

func testHostPosts(t *testing.T, open Opener) {
	p, g := open(t, 2)
	Serve(t, g, Funcs{})
	const n = 100
	for i := range n {
		if err := g.PostMessage(1, bytes.Repeat([]byte{byte(i)}, i)); err != nil {
			t.Fatal(err)
		}
	}
	var m hv.Message
	if p.TakeMessage(0, &m) {
		t.Error("a message on the other VP")
	}
	for i := range n {
		for !p.TakeMessage(1, &m) {
			wait(t, p, 1)
		}
		if m.Type != hv.MessageVMBus || m.Size != i || !bytes.Equal(m.Payload(), bytes.Repeat([]byte{byte(i)}, i)) {
			t.Fatalf("message %d is %v", i, m)
		}
	}
	if p.TakeMessage(1, &m) {
		t.Error("a message too many")
	}
}

// wait is Wait with an end: a lost interrupt fails the test instead of hanging it.
func wait(t *testing.T, p hv.Partition, vp int) {
	t.Helper()
	timer := time.AfterFunc(Patience, func() { p.Close() })
	err := p.Wait(vp)
	if !timer.Stop() || err != nil {
		t.Fatalf("wait for an interrupt of VP %d: %v", vp, err)
	}
}

func testBackPressure(t *testing.T, open Opener) {
	p, g := open(t, 2)
	Serve(t, g, Funcs{OnMessage: func(uint32, *hv.Message) hv.Status { return hv.StatusSuccess }})
	n := 0
	for ; ; n++ {
		if err := g.PostMessage(0, []byte{byte(n), byte(n >> 8)}); err != nil {
			if !errors.Is(err, hv.ErrQueueFull) {
				t.Fatal(err)
			}
			break
		}
		if n > 100000 {
			t.Fatal("the queue has no bound")
		}
	}
	if err := p.PostMessage(1, nil); !errors.Is(err, hv.StatusInsufficientBuffers) {
		t.Errorf("post of a guest that does not listen: %v", err)
	}
	if err := g.PostMessage(1, []byte("other VP")); err != nil {
		t.Errorf("post to the other VP: %v", err)
	}
	var m hv.Message
	for i := range n {
		for !p.TakeMessage(0, &m) {
			wait(t, p, 0)
		}
		if m.Size != 2 || int(m.Data[0])|int(m.Data[1])<<8 != i {
			t.Fatalf("message %d is %v", i, m.Payload())
		}
	}
	// The host may not have heard of it yet: it says to try again.
	end := time.Now().Add(Patience)
	for err := hv.StatusInsufficientBuffers.Err(); err != nil; err = p.PostMessage(1, nil) {
		if !errors.Is(err, hv.StatusInsufficientBuffers) || time.Now().After(end) {
			t.Fatalf("post of a guest that has listened: %v", err)
		}
	}
}
