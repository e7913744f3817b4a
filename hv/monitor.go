package hv

import (
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A monitor page lets a guest signal its host with one store: it sets a bit in the
// page, and the host, which looks at the page every now and then, takes the bit for
// a signalled connection. That is cheaper than a hypercall for the guest and later
// for the host. TLFS, "Monitored Notifications"; the layout is HV_MONITOR_PAGE.
//
// Ids are 0 to 127; id i is bit i%32 of group i/32.
const (
	// MonitorIDs is how many connections one page can signal.
	MonitorIDs = 128

	monitorGroups    = MonitorIDs / 32
	monitorEnabled   = 0     // u32: bit g says that group g is looked at
	monitorPending   = 0x8   // groups of u32 pending, u32 armed
	monitorLatency   = 0x240 // u16 each, in monitorUnit
	monitorParameter = 0x440 // u32 connection id, u16 event flag, u16 0 each
	monitorUnit      = 100 * time.Nanosecond
)

// How often a host looks: as often as the page says, within bounds, and rarely when
// nothing has come for a while.
const (
	minMonitorLatency = 10 * time.Microsecond
	maxMonitorLatency = 10 * time.Millisecond
	monitorIdle       = time.Millisecond
	monitorSilence    = 100 * time.Millisecond
)

// monitorWord returns a word of a monitor page. Both sides use the words at any time.
func monitorWord(page []byte, at int) *uint32 { return (*uint32)(unsafe.Pointer(&page[at])) }

// TriggerMonitor signals the connection that the host has given the monitor id, 0
// to 127: what the guest does. The bit stays until the host has seen it.
func TriggerMonitor(page []byte, id uint8) {
	word := monitorWord(page, monitorPending+int(id)/32*8)
	bit := uint32(1) << (id % 32)
	// Also if the bit is set already: the host may be just about to take it.
	atomic.OrUint32(word, bit)
}

// A Monitor is the host's watch over a guest's monitor page. Enable may be called
// while Run runs.
type Monitor struct {
	page  []byte
	inUse [monitorGroups]atomic.Uint32
	stop  atomic.Bool
}

// NewMonitor returns a watch over a page in which no id is enabled yet.
func NewMonitor(page []byte) *Monitor {
	m := &Monitor{page: page}
	atomic.StoreUint32(monitorWord(page, monitorEnabled), 0)
	return m
}

// Enable begins to look for an id, and publishes for the guest how late the host may
// be and which connection is meant. The guest may change the latency. Bits of ids
// that are not enabled are taken and mean nothing.
func (m *Monitor) Enable(id uint8, conn uint32, latency time.Duration) {
	group, bit := int(id)/32, uint32(1)<<(id%32)
	at := monitorLatency + int(id)*2
	shift := 8 * (at % 4)
	word := monitorWord(m.page, at&^3)
	for {
		old := atomic.LoadUint32(word)
		v := old&^(0xffff<<shift) | uint32(uint16(latency/monitorUnit))<<shift
		if atomic.CompareAndSwapUint32(word, old, v) {
			break
		}
	}
	atomic.StoreUint32(monitorWord(m.page, monitorParameter+int(id)*8), conn)
	atomic.StoreUint32(monitorWord(m.page, monitorParameter+int(id)*8+4), 0)
	m.inUse[group].Or(bit)
	atomic.OrUint32(monitorWord(m.page, monitorEnabled), 1<<group)
}

// Disable forgets an id.
func (m *Monitor) Disable(id uint8) { m.inUse[id/32].And(^(uint32(1) << (id % 32))) }

// Run looks at the page until Stop, and calls signal for each id that the guest has
// triggered. The page may be memory that goes away, see [Guard].
func (m *Monitor) Run(signal func(id uint8)) {
	last := time.Now()
	for !m.stop.Load() {
		if m.take(signal) {
			last = time.Now()
		}
		pause := monitorPause(m.latency(), time.Since(last))
		// The runtime's own timers are rounded up to milliseconds when a
		// process has nothing else to do.
		t := unix.NsecToTimespec(int64(pause))
		unix.Nanosleep(&t, nil)
	}
}

// Stop makes Run return after the current pause, 10 ms at most.
func (m *Monitor) Stop() { m.stop.Store(true) }

// take takes what is pending and reports whether anything was.
func (m *Monitor) take(signal func(id uint8)) (any bool) {
	for g := range m.inUse {
		use := m.inUse[g].Load()
		word := monitorWord(m.page, monitorPending+g*8)
		if use == 0 || atomic.LoadUint32(word) == 0 {
			continue
		}
		for v := atomic.SwapUint32(word, 0) & use; v != 0; v &= v - 1 {
			any = true
			signal(uint8(g*32 + bits.TrailingZeros32(v)))
		}
	}
	return any
}

// latency returns the shortest latency of all ids in use as the page has it now.
func (m *Monitor) latency() time.Duration {
	least := maxMonitorLatency
	for g := range m.inUse {
		for v := m.inUse[g].Load(); v != 0; v &= v - 1 {
			at := monitorLatency + 2*(g*32+bits.TrailingZeros32(v))
			word := atomic.LoadUint32(monitorWord(m.page, at&^3))
			least = min(least, time.Duration(uint16(word>>(8*(at%4))))*monitorUnit)
		}
	}
	return least
}

// monitorPause returns how long to wait before the next look.
func monitorPause(latency, silence time.Duration) time.Duration {
	latency = min(max(latency, minMonitorLatency), maxMonitorLatency)
	if silence >= monitorSilence {
		return max(latency, monitorIdle)
	}
	return latency
}
