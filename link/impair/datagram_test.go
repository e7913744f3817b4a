package impair

import (
	"encoding/binary"
	"testing"
	"time"
)

// part4 and part6 return the head of a fragment: length bytes from a byte on.
func part4(id uint16, from, length int, more bool) []byte {
	b := append([]byte(nil), tcp...)
	bits := uint16(from / 8)
	if more {
		bits |= 0x2000
	}
	binary.BigEndian.PutUint16(b[16:], uint16(20+length))
	binary.BigEndian.PutUint16(b[18:], id)
	binary.BigEndian.PutUint16(b[20:], bits)
	return b
}

func part6(id uint16, from, length int, more bool) []byte {
	b := make([]byte, 62)
	b[12], b[13], b[14], b[20], b[54] = 0x86, 0xdd, 0x60, 44, 17
	bits := uint16(from)
	if more {
		bits |= 1
	}
	binary.BigEndian.PutUint16(b[18:], uint16(8+length))
	binary.BigEndian.PutUint16(b[56:], bits)
	binary.BigEndian.PutUint32(b[58:], uint32(id))
	return b
}

// TestFollows: a fragment comes right behind the one before it, or does not.
func TestFollows(t *testing.T) {
	for name, part := range map[string]func(uint16, int, int, bool) []byte{"IPv4": part4, "IPv6": part6} {
		var d datagrams
		for i, c := range []struct {
			id           uint16
			from, length int
			more         bool
			at           time.Duration
			want         bool
		}{
			{1, 0, 1480, true, 10, true},
			{2, 1480, 1480, true, 10, false}, // its first is yet to come
			{2, 0, 1480, true, 20, true},
			{1, 1480, 1480, true, 10, true}, // at the same time
			{1, 2960, 1480, true, 9, false}, // overtakes
			{1, 4440, 1480, true, 30, false},
			{1, 2960, 1480, true, 30, true}, // sent once more
			{1, 4440, 100, false, 31, true},
			{1, 4440, 100, false, 32, false}, // and is forgotten
			{2, 1488, 8, false, 40, false},   // a gap
			{3, 0, 8, false, 0, true},
		} {
			if got := d.follows(part(c.id, c.from, c.length, c.more), c.at); got != c.want {
				t.Errorf("%s, line %d: %v", name, i, got)
			}
		}
		if !d.follows(tcp, 0) || !d.follows(part(1, 0, 8, true)[:40], 0) || !d.follows(nil, 0) {
			t.Errorf("%s: what is no fragment does not follow", name)
		}
		for i := range 10 * maxDatagrams {
			d.follows(part(uint16(i), 0, 8, true), 0)
			if len(d.young) > maxDatagrams || len(d.old) > maxDatagrams {
				t.Fatalf("%s: keeps %d and %d in mind", name, len(d.young), len(d.old))
			}
		}
		if !d.follows(part(10*maxDatagrams-1, 8, 8, false), 0) || d.follows(part(1, 8, 8, false), 0) {
			t.Errorf("%s: remembers the wrong ones", name)
		}
	}
}

// TestSkew: each channel has a delay of its own, always the same, and its frames stay in
// order; fragments that so come out of order are lost.
func TestSkew(t *testing.T) {
	c := Config{Skew: 10 * time.Millisecond, Jitter: time.Millisecond, Delay: time.Millisecond, Unordered: 1, Seed: 4}
	d := newDecider(c)
	var last [4]time.Duration
	var skews [4]time.Duration
	for i := range 4 {
		skews[i] = d.channels[i].skew
	}
	if skews == ([4]time.Duration{}) || skews[0] == skews[1] || max(skews[0], skews[1], skews[2], skews[3]) > c.Skew {
		t.Fatalf("channels differ by %v", skews)
	}
	for i := range 1000 {
		ch := i % 4
		now := time.Duration(i) * 10 * time.Microsecond
		f := d.decide(now, uint16(ch), tcp, 60, 0)
		if f.at < last[ch] || f.at < now+skews[ch] || !f.wait || f.lost {
			t.Fatalf("frame %d of channel %d: %+v", i, ch, f)
		}
		last[ch] = f.at
	}
	d = newDecider(Config{Skew: c.Skew, Unordered: 1, Seed: 4})
	slow, fast := uint16(0), uint16(1)
	if skews[slow] < skews[fast] {
		slow, fast = fast, slow
	}
	for i, c := range []struct{ first, rest uint16 }{{slow, fast}, {fast, slow}, {slow, slow}} {
		now := time.Duration(i) * time.Second
		a := d.decide(now, c.first, part4(uint16(i), 0, 1480, true), 1514, 0)
		b := d.decide(now, c.rest, part4(uint16(i), 1480, 1480, true), 1514, 0)
		e := d.decide(now, c.rest, part4(uint16(i), 2960, 8, false), 60, 0)
		if want := c.first == slow && c.rest == fast; a.lost || b.lost != want || e.lost != want || b.fault != want {
			t.Errorf("from channel %d to %d: %+v, %+v, %+v", c.first, c.rest, a, b, e)
		}
	}
	if again := newDecider(c); again.channels[3].skew != skews[3] {
		t.Error("the same seed gives other delays")
	}
}
