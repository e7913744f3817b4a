package function

import (
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
	"hvnet/nic"
)

// TestDownOrNews: who sends notices first that a device is down, and no news are undone by that.
func TestDownOrNews(t *testing.T) {
	p := &port{changes: make(chan [2]bool, 4)}
	d := &Device{port: p}
	want := func(states ...[2]bool) {
		t.Helper()
		for _, w := range states {
			if len(p.changes) == 0 {
				t.Fatalf("the port is not told %v", w)
			}
			if got := <-p.changes; got != w {
				t.Errorf("the port is told %v, want %v", got, w)
			}
		}
		if len(p.changes) > 0 {
			t.Errorf("the port is told %v", <-p.changes)
		}
	}
	news := d.news.Load()
	d.down(news)
	want([2]bool{false, false})
	d.tell(true, true)
	d.down(news) // it was down before it was up
	want([2]bool{true, true})
	d.down(d.news.Load())
	want([2]bool{false, false})
}

// TestHostDown: a host whose end is set down, which the kernel does to one that it removes, is
// done with the function.
func TestHostDown(t *testing.T) {
	ns := enter(t)
	h := made(t, ns, 7)
	_, err := h.client.Do(rtnl.Link(unix.RTM_SETLINK, h.index, 0, unix.IFF_UP))
	check(t, err)
	h.WriteFrames([]nic.Frame{{Head: make([]byte, 60)}})
	select {
	case <-h.Gone(): // at once
	default:
		t.Error("it has sent, and not noticed")
	}
	check(t, h.Close())
}
