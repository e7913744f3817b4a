package hv

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// The layout, by the example of id 37: group 1, bit 5.
func TestMonitorPageLayout(t *testing.T) {
	page := make([]byte, PageSize)
	m := NewMonitor(page)
	m.Enable(37, 0x2007, 100*time.Microsecond)
	TriggerMonitor(page, 37)
	want := map[int][]byte{
		0:     {2, 0, 0, 0},                // group 1 is enabled
		16:    {0x20, 0, 0, 0},             // its pending bits
		0x28a: {0xe8, 3},                   // 1000 times 100 ns
		0x568: {7, 0x20, 0, 0, 0, 0, 0, 0}, // connection id, flag
	}
	rest := slices.Clone(page)
	for at, b := range want {
		if got := page[at : at+len(b)]; !slices.Equal(got, b) {
			t.Errorf("at %#x: % x, want % x", at, got, b)
		}
		clear(rest[at : at+len(b)])
	}
	for at, b := range rest {
		if b != 0 {
			t.Errorf("at %#x: %#x, want 0", at, b)
		}
	}
}

func (m *Monitor) taken() (ids []uint8) {
	m.take(func(id uint8) { ids = append(ids, id) })
	return ids
}

func TestMonitorTakes(t *testing.T) {
	page := make([]byte, PageSize)
	m := NewMonitor(page)
	for _, id := range []uint8{0, 31, 32, 127} {
		m.Enable(id, uint32(id), time.Millisecond)
		TriggerMonitor(page, id)
		TriggerMonitor(page, id) // one signal
	}
	TriggerMonitor(page, 1) // not enabled: nobody's
	TriggerMonitor(page, 70)
	if got := m.taken(); !slices.Equal(got, []uint8{0, 31, 32, 127}) {
		t.Errorf("took %v", got)
	}
	if got := m.taken(); got != nil {
		t.Errorf("took %v once more", got)
	}
	m.Disable(31)
	m.Enable(1, 1, time.Millisecond)
	TriggerMonitor(page, 31)
	TriggerMonitor(page, 0)
	if got := m.taken(); !slices.Equal(got, []uint8{0}) {
		t.Errorf("took %v after one was disabled", got)
	}
}

// A guest may fill its page with anything: no more comes of it than signals for what
// is in use.
func TestMonitorHostilePage(t *testing.T) {
	page := make([]byte, PageSize)
	m := NewMonitor(page)
	m.Enable(5, 5, time.Millisecond)
	m.Enable(100, 100, time.Millisecond)
	for i := range page {
		page[i] = 0xff
	}
	if got := m.taken(); !slices.Equal(got, []uint8{5, 100}) {
		t.Errorf("took %v", got)
	}
	if got := monitorPause(m.latency(), 0); got != 65535*monitorUnit {
		t.Errorf("pause %v", got)
	}
	clear(page)
	if got := monitorPause(m.latency(), 0); got != minMonitorLatency {
		t.Errorf("pause %v with a latency of 0", got)
	}
}

func TestMonitorLatency(t *testing.T) {
	page := make([]byte, PageSize)
	m := NewMonitor(page)
	if got := m.latency(); got != maxMonitorLatency {
		t.Errorf("%v with nothing in use", got)
	}
	m.Enable(3, 3, 100*time.Microsecond)
	m.Enable(4, 4, 50*time.Microsecond)
	if got := m.latency(); got != 50*time.Microsecond {
		t.Errorf("%v, want the shorter one", got)
	}
	binary.LittleEndian.PutUint16(page[0x240+2*3:], 200) // by the guest
	if got := m.latency(); got != 20*time.Microsecond {
		t.Errorf("%v, want what the guest has set", got)
	}
	m.Disable(3)
	if got := m.latency(); got != 50*time.Microsecond {
		t.Errorf("%v, want that of what is in use", got)
	}
}

func TestMonitorPause(t *testing.T) {
	for _, c := range []struct{ latency, silence, want time.Duration }{
		{0, 0, 10 * time.Microsecond},
		{100 * time.Microsecond, 0, 100 * time.Microsecond},
		{100 * time.Microsecond, 99 * time.Millisecond, 100 * time.Microsecond},
		{100 * time.Microsecond, 100 * time.Millisecond, time.Millisecond},
		{5 * time.Millisecond, time.Hour, 5 * time.Millisecond},
		{time.Hour, 0, 10 * time.Millisecond},
	} {
		if got := monitorPause(c.latency, c.silence); got != c.want {
			t.Errorf("latency %v after a silence of %v: pause %v, want %v", c.latency, c.silence, got, c.want)
		}
	}
}

func TestMonitorDoesNotAllocate(t *testing.T) {
	page := make([]byte, PageSize)
	m := NewMonitor(page)
	m.Enable(77, 77, time.Millisecond)
	seen := 0
	signal := func(uint8) { seen++ }
	if n := testing.AllocsPerRun(100, func() {
		TriggerMonitor(page, 77)
		m.take(signal)
		m.latency()
	}); n != 0 || seen != 101 {
		t.Errorf("%v allocations, %d signals", n, seen)
	}
}

// Every trigger is seen, also by a host that looks just then.
func TestMonitorRun(t *testing.T) {
	page := make([]byte, PageSize)
	m := NewMonitor(page)
	m.Enable(9, 9, 10*time.Microsecond)
	seen, done := make(chan uint8, 1), make(chan struct{})
	go func() {
		defer close(done)
		m.Run(func(id uint8) { seen <- id })
	}()
	for range 1000 {
		TriggerMonitor(page, 9)
		if id := <-seen; id != 9 {
			t.Fatalf("saw %d", id)
		}
	}
	m.Stop()
	<-done
}
