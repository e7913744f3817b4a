package impair

import (
	"math"
	"testing"
	"time"
)

// tcp is the head of a frame that is no fragment.
var tcp = []byte{0, 21, 93, 1, 2, 3, 0, 21, 93, 4, 5, 6, 8, 0, 0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}

// change returns b with a byte changed.
func change(b []byte, at int, v byte) []byte {
	c := append([]byte(nil), b...)
	c[at] = v
	return c
}

// TestChances: over many frames each thing happens as often as its probability
// says, within five standard deviations of the binomial distribution, and a
// fragment fault is of each kind as often.
func TestChances(t *testing.T) {
	const n = 200_000
	c := Config{Loss: .01, Duplicate: .02, Corrupt: .001, Reorder: .05, Fragment: .3, Seed: 7}
	d := newDecider(c)
	fragment := change(tcp, 20, 0x20)
	var lost, double, corrupt, late, fault, faultLost int
	for range n {
		f := d.decide(0, 0, tcp, 60, 0)
		count := func(c *int, b bool) {
			if b {
				*c++
			}
		}
		count(&lost, f.lost)
		count(&double, f.double)
		count(&corrupt, f.corrupt)
		count(&late, f.late)
		if f.fault {
			t.Fatal("a fault of a fragment in a frame that is none")
		}
		if f.corrupt && (f.bit < 8*14 || f.bit >= 8*60) {
			t.Fatalf("bit %d of a frame of 60 bytes is changed", f.bit)
		}
		f = d.decide(0, 0, fragment, 60, 0)
		count(&fault, f.fault)
		count(&faultLost, f.fault && f.lost)
	}
	near := func(what string, got int, p float64) {
		t.Helper()
		want, dev := n*p, math.Sqrt(n*p*(1-p))
		if math.Abs(float64(got)-want) > 5*dev {
			t.Errorf("%s: %d of %d, want %.0f ± %.0f", what, got, n, want, 5*dev)
		}
	}
	near("lost", lost, c.Loss)
	near("doubled", double, c.Duplicate*(1-c.Loss))
	near("corrupted", corrupt, c.Corrupt*(1-c.Loss))
	near("held back", late, c.Reorder*(1-c.Loss))
	near("faults of fragments", fault, c.Fragment)
	near("faults of fragments that lose", faultLost, c.Fragment*(1./3+2./3*c.Loss))
}

// TestSeed: the same seed gives the same fates, another one others.
func TestSeed(t *testing.T) {
	c := Config{Loss: .1, Duplicate: .1, Corrupt: .1, Reorder: .1, Delay: time.Second, Jitter: time.Second, Seed: 1}
	same, again := newDecider(c), newDecider(c)
	c.Seed = 2
	other := newDecider(c)
	differ := 0
	for i := range 1000 {
		now := time.Duration(i) * time.Millisecond
		f := same.decide(now, 0, tcp, 100, 0)
		if g := again.decide(now, 0, tcp, 100, 0); f != g {
			t.Fatalf("frame %d: %+v and %+v", i, f, g)
		}
		if other.decide(now, 0, tcp, 100, 0) != f {
			differ++
		}
	}
	if differ < 500 {
		t.Errorf("another seed: %d of 1000 fates differ", differ)
	}
}

// TestTimes: when frames are released.
func TestTimes(t *testing.T) {
	const ms = time.Millisecond
	t.Run("delay", func(t *testing.T) {
		d := newDecider(Config{Delay: 5 * ms})
		for i := range 10 {
			now := time.Duration(i) * ms
			if f := d.decide(now, 0, tcp, 60, 0); f.at != now+5*ms || !f.wait {
				t.Errorf("at %v: %+v", now, f)
			}
		}
	})
	t.Run("jitter keeps the order", func(t *testing.T) {
		d := newDecider(Config{Delay: 5 * ms, Jitter: 5 * ms, Seed: 3})
		var last, least, most time.Duration = 0, time.Hour, 0
		for i := range 10_000 {
			now := time.Duration(i) * 20 * ms
			f := d.decide(now, 0, tcp, 60, 0)
			if f.at < last || f.at < now || f.at > now+10*ms {
				t.Fatalf("at %v: released at %v, the one before at %v", now, f.at, last)
			}
			last, least, most = f.at, min(least, f.at-now), max(most, f.at-now)
		}
		if least > ms/10 || most < 10*ms-ms/10 {
			t.Errorf("delays of %v to %v, want nearly 0 to 10ms", least, most)
		}
		d = newDecider(Config{Delay: 5 * ms, Jitter: 5 * ms, Seed: 3})
		last = 0
		for range 1000 { // all at one time
			f := d.decide(0, 0, tcp, 60, 0)
			if f.at < last {
				t.Fatalf("released at %v, the one before at %v", f.at, last)
			}
			last = f.at
		}
	})
	t.Run("held back", func(t *testing.T) {
		d := newDecider(Config{Reorder: 1, Delay: 5 * ms, Gap: 3 * ms})
		if f := d.decide(ms, 0, tcp, 60, 0); f.at != 9*ms || !f.late {
			t.Errorf("%+v", f)
		}
		d = newDecider(Config{Reorder: 1})
		if f := d.decide(0, 0, tcp, 60, 0); f.at != DefaultGap || !f.wait {
			t.Errorf("%+v", f)
		}
	})
	t.Run("rate", func(t *testing.T) {
		d := newDecider(Config{Rate: 8_000_000, Delay: ms}) // a byte in a microsecond
		for i := range 5 {
			if f := d.decide(0, 0, tcp, 1000, 0); f.at != time.Duration(i+1)*ms+ms {
				t.Errorf("frame %d: %+v", i, f)
			}
		}
		if f := d.decide(10*ms, 0, tcp, 500, 0); f.at != 11*ms+ms/2 {
			t.Errorf("after a rest: %+v", f)
		}
	})
	t.Run("limit", func(t *testing.T) {
		d := newDecider(Config{Rate: 8_000_000, Limit: 3 * charge})
		if f := d.decide(0, 0, tcp, 60, 2*charge); f.lost {
			t.Errorf("%+v", f)
		}
		f := d.decide(0, 0, tcp, 60, 2*charge+1)
		if !f.full || !f.lost {
			t.Errorf("%+v", f)
		}
		// What is lost takes no time of the line.
		if f := d.decide(0, 0, tcp, 60, 0); f.at != 120*time.Microsecond {
			t.Errorf("%+v", f)
		}
	})
	t.Run("no delay", func(t *testing.T) {
		d := newDecider(Config{Loss: .5})
		if f := d.decide(0, 0, tcp, 60, 0); f.wait {
			t.Errorf("%+v", f)
		}
	})
}

func TestIsFragment(t *testing.T) {
	v6 := make([]byte, 60)
	v6[12], v6[13], v6[14] = 0x86, 0xdd, 0x60
	tagged := append(append(append([]byte(nil), tcp[:12]...), 0x81, 0, 0, 5), tcp[12:]...)
	for _, c := range []struct {
		what string
		head []byte
		want bool
	}{
		{"whole", tcp, false},
		{"first of several", change(tcp, 20, 0x20), true},
		{"last of several", change(tcp, 21, 1), true},
		{"IPv6", v6, false},
		{"IPv6 fragment", change(v6, 20, 44), true},
		{"tagged", tagged, false},
		{"tagged fragment", change(tagged, 24, 0x20), true},
		{"ARP", change(change(tcp, 20, 0x20), 13, 6), false},
		{"short", change(tcp, 20, 0x20)[:33], false},
		{"nothing", nil, false},
	} {
		if got := isFragment(c.head); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
