package linuxguest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hvnet/internal/linuxguest"
)

// A flow is data by TCP between Linux and this machine's kernel, a stream each way, until
// it is ended.
type flow struct {
	text     []byte // which comes again and again
	up, down atomic.Int64
	more     chan struct{} // capacity 1: something has moved
	stop     chan struct{} // closed: no more for Linux
	done     chan error    // of each stream
	sent     hash.Hash     // what has gone to Linux
}

// flow starts data both ways.
func (r *rig) flow(t *testing.T) *flow {
	t.Helper()
	var text strings.Builder
	for i := 1; i <= 100000; i++ {
		fmt.Fprintln(&text, i)
	}
	f := &flow{text: []byte(text.String()), more: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan error, 2), sent: sha256.New()}
	for port, serve := range map[string]func(net.Conn) error{"5001": f.take, "5002": f.give} {
		l, err := net.Listen("tcp", here+":"+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			c, err := l.Accept()
			if err == nil {
				err = errors.Join(serve(c), c.Close())
			}
			f.done <- err
		}()
	}
	r.Run(t, "seq 1 100000 >/tmp/numbers; touch /tmp/on; (while [ -e /tmp/on ]; do cat /tmp/numbers; done | nc "+here+" 5001) >/dev/null 2>&1 & "+
		"(nc "+here+" 5002 </dev/null | sha256sum >/tmp/sum) 2>/dev/null &")
	return f
}

// note counts bytes of a stream.
func (f *flow) note(count *atomic.Int64, n int) {
	count.Add(int64(n))
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// take looks at what Linux sends.
func (f *flow) take(c net.Conn) error {
	buf := make([]byte, len(f.text))
	for {
		c.SetDeadline(time.Now().Add(linuxguest.Patience))
		n, err := io.ReadAtLeast(c, buf, 1)
		at := int(f.up.Load()) % len(f.text)
		first := min(n, len(f.text)-at)
		if !bytes.Equal(buf[:first], f.text[at:at+first]) || !bytes.Equal(buf[first:n], f.text[:n-first]) {
			return fmt.Errorf("from Linux: after %d bytes come others than were sent", f.up.Load())
		}
		f.note(&f.up, n)
		if err == io.EOF && int(f.up.Load())%len(f.text) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("from Linux: after %d bytes: %w", f.up.Load(), err)
		}
	}
}

// give sends to Linux.
func (f *flow) give(c net.Conn) error {
	for at := 0; ; {
		select {
		case <-f.stop:
			return nil
		default:
		}
		c.SetDeadline(time.Now().Add(linuxguest.Patience))
		n, err := c.Write(f.text[at:min(at+65536, len(f.text))])
		f.sent.Write(f.text[at : at+n])
		f.note(&f.down, n)
		if err != nil {
			return fmt.Errorf("to Linux: after %d bytes: %w", f.down.Load(), err)
		}
		at = (at + n) % len(f.text)
	}
}

// moves waits until a megabyte more has gone each way.
func (f *flow) moves(t *testing.T) {
	t.Helper()
	up, down := f.up.Load()+1<<20, f.down.Load()+1<<20
	late := time.NewTimer(linuxguest.Patience)
	defer late.Stop()
	for f.up.Load() < up || f.down.Load() < down {
		select {
		case <-f.more:
		case err := <-f.done:
			t.Fatalf("a stream has ended: %v", err)
		case <-late.C:
			t.Fatalf("no more moves: %d bytes have come from Linux, want %d; %d gone, want %d", f.up.Load(), up, f.down.Load(), down)
		}
	}
}

// end ends both streams, and compares what has arrived with what was sent.
func (f *flow) end(t *testing.T, r *rig) {
	t.Helper()
	close(f.stop)
	r.Run(t, "rm /tmp/on")
	for range 2 {
		if err := <-f.done; err != nil {
			t.Error(err)
		}
	}
	want := fmt.Sprintf("%x", f.sent.Sum(nil))
	if got := r.Run(t, "lgv_wait 60 '[ -s /tmp/sum ]' && cat /tmp/sum"); !strings.HasPrefix(got, want) {
		t.Errorf("to Linux: sum %s, want %s", got, want)
	}
}
