package host

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"hvnet/vmbus"
)

// A line is one message of testdata/netvsc.txt.
type line struct {
	conn    uint32 // 0: of the host
	message []byte
}

func readTranscript(t *testing.T) (lines []line) {
	t.Helper()
	text, err := os.ReadFile("testdata/netvsc.txt")
	if err != nil {
		t.Fatal(err)
	}
	var hexBytes string
	end := func() {
		b, err := hex.DecodeString(hexBytes)
		if err != nil {
			t.Fatal(err)
		}
		if hexBytes = ""; len(lines) > 0 {
			copy(lines[len(lines)-1].message, b)
		}
	}
	for s := range strings.Lines(string(text)) {
		s, _, _ = strings.Cut(s, "#")
		var l line
		var size int
		switch {
		case strings.HasPrefix(s, "  "):
			hexBytes += strings.TrimSpace(s)
			continue
		case strings.HasPrefix(s, "guest"):
			_, err = fmt.Sscanf(s, "guest %d %d", &l.conn, &size)
		case strings.HasPrefix(s, "host"):
			_, err = fmt.Sscanf(s, "host %d", &size)
		default:
			continue
		}
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		end()
		l.message = make([]byte, size)
		lines = append(lines, l)
	}
	end()
	return lines
}

// A real guest's whole life, byte for byte: it sees what it saw from the host that it
// was recorded with.
func TestLinuxGuest(t *testing.T) {
	lines := readTranscript(t)
	if len(lines) < 50 {
		t.Fatalf("%d messages", len(lines))
	}
	m := newMachine([]vmbus.Version{vmbus.Version5_3}, 2, func(pfn uint64) bool { return pfn < 0x28000 })
	o, err := vmbus.ParseOffer(lines[3].message, vmbus.Version5_3)
	if err != nil {
		t.Fatal(err)
	}
	m.add(1, o)

	var sent [][]byte // and not yet expected
	perform := func() {
		for len(m.out) > 0 {
			a := m.out[0]
			m.out = m.out[1:]
			switch a := a.(type) {
			case send:
				if a.vp != 0 {
					t.Errorf("message to VP %d", a.vp)
				}
				sent = append(sent, a.message)
			case openChannel:
				m.opened(a.relid, true)
			case closeChannel:
				m.closed(a.relid)
			case revoke:
				m.revoked(a.gpadl)
			case drop:
				// After UNLOAD Linux goes on to release what is no more.
				if a.message != vmbus.TypeRelidReleased {
					t.Errorf("dropped: %s: %s", a.message, a.why)
				}
			}
		}
	}
	for i, l := range lines {
		typ, _ := vmbus.PeekType(l.message)
		if l.conn != 0 {
			m.message(l.conn, l.message)
			perform()
			if b, err := vmbus.ParseGPADLBody(l.message); err == nil {
				fill := vmbus.GPADLBody{ID: b.ID, Data: b.Data[:8]}.Append(nil)
				for m.gpadls[b.ID].list != nil {
					m.message(l.conn, fill)
				}
				perform()
			}
			continue
		}
		want := l.message
		if typ == vmbus.TypeOffer {
			if o, _ := vmbus.ParseOffer(want, vmbus.Version5_3); o.SubChannel != 0 {
				m.offerSubs(1, int(o.SubChannel))
				perform()
			}
			want[188], want[189] = noMonitor, 0 // ours are not monitored
		}
		if len(sent) == 0 {
			t.Fatalf("message %d: no %s", i, typ)
		}
		if !bytes.Equal(sent[0], want) {
			t.Errorf("message %d, %s:\n got %x\nwant %x", i, typ, sent[0], want)
		}
		sent = sent[1:]
	}
	if len(sent) != 0 {
		t.Errorf("%d messages more than the guest saw", len(sent))
	}
}
