package host

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hvnet/hv"
	"hvnet/vmbus"
)

// A model plays guest, backends and operator at random, in any order, and checks
// after each event what must always hold.
type model struct {
	t    interface{ Fatalf(string, ...any) }
	m    *machine
	next func(n int) int // a choice below n

	bodies  [][]byte // messages of GPADLs begun
	acks    []func() // actions under way
	devices int

	open    map[uint32]deviceID   // channels that a backend has or is about to get or lose
	used    map[deviceID]bool     // backends that have met the connection
	gone    map[deviceID]bool     // forgotten devices
	offered map[uint32]vmbus.GUID // relids that the guest may know
}

func newModel(t interface{ Fatalf(string, ...any) }, next func(n int) int) *model {
	hasPage := func(pfn uint64) bool { return firstPage <= pfn && pfn <= lastPage }
	return &model{
		t: t, next: next,
		m:       newMachine([]vmbus.Version{vmbus.Version2_4, vmbus.Version5_3}, 4, hasPage),
		open:    make(map[uint32]deviceID),
		used:    make(map[deviceID]bool),
		gone:    make(map[deviceID]bool),
		offered: make(map[uint32]vmbus.GUID),
	}
}

// relid is mostly one that exists.
func (m *model) relid() uint32 {
	relids := slices.Sorted(maps.Keys(m.m.channels))
	if len(relids) == 0 || m.next(12) == 0 {
		return uint32(m.next(8))
	}
	return relids[m.next(len(relids))]
}

// gpadl is mostly one that exists.
func (m *model) gpadl() (relid, id uint32) {
	ids := slices.Sorted(maps.Keys(m.m.gpadls))
	if len(ids) == 0 || m.next(12) == 0 {
		return m.relid(), uint32(1 + m.next(4))
	}
	g := m.m.gpadls[ids[m.next(len(ids))]]
	return g.ch.relid, g.id
}

func (m *model) post(b []byte) { m.m.message(vmbus.ConnMessage, b) }

func (m *model) contact() {
	v := []vmbus.Version{vmbus.Version2_4, vmbus.Version5_3, vmbus.Version5_3, vmbus.Version4_0}[m.next(4)]
	m.m.message(vmbus.ConnContact, vmbus.InitiateContact{Version: v, SINT: hv.SINT, TargetVP: uint32(m.next(5))}.Append(nil))
	if m.next(8) != 0 {
		m.ack()
		m.post(vmbus.RequestOffers{}.Append(nil))
	}
}

// create begins a GPADL, with a wrong page now and then. Bodies go separately.
func (m *model) create(relid, id uint32, pages int) {
	first := firstPage - m.next(16)/15
	msgs, _ := vmbus.AppendGPADL(nil, relid, id, pages, func(i int) uint64 { return uint64(first + i) })
	m.post(msgs[0])
	m.bodies = append(m.bodies, msgs[1:]...)
}

// step is one event.
func (m *model) step() {
	switch n := m.next(40); {
	case n < 8: // a channel as guests open it
		relid, id := m.relid(), uint32(10+m.next(20))
		m.create(relid, id, 4)
		m.post(vmbus.OpenChannel{Relid: relid, GPADL: id, DownOffset: 2}.Append(nil, 0))
	case n < 18:
		m.ack()
	case n < 21:
		m.post(vmbus.CloseChannel{Relid: m.relid()}.Append(nil))
	case n < 24:
		relid, id := m.gpadl()
		m.post(vmbus.GPADLTeardown{Relid: relid, ID: id}.Append(nil))
	case n < 26:
		relid, id := m.gpadl()
		m.post(vmbus.OpenChannel{Relid: relid, GPADL: id, DownOffset: uint32(1 + m.next(3))}.Append(nil, 0))
	case n < 28:
		m.create(m.relid(), uint32(1+m.next(4)), []int{1, 3, 4, 26, 27, 60}[m.next(6)])
	case n < 30:
		if len(m.bodies) > 0 {
			m.post(m.bodies[0])
			m.bodies = m.bodies[1:]
		}
	case n < 32:
		m.post(vmbus.RelidReleased{Relid: m.relid()}.Append(nil))
	case n < 34:
		m.add()
	case n == 34:
		m.m.withdraw(deviceID(1 + m.next(m.devices)))
	case n < 37:
		m.m.offerSubs(deviceID(1+m.next(m.devices)), 1+m.next(3))
	case n == 37:
		m.post(vmbus.ModifyChannel{Relid: m.relid(), TargetVP: uint32(m.next(5))}.Append(nil))
	case n == 38 && m.next(3) == 0:
		m.contact()
	case n == 38 && m.next(3) == 0:
		m.post(vmbus.Unload{}.Append(nil))
	case n == 39:
		b := make([]byte, m.next(64))
		for i := range b {
			b[i] = byte(m.next(256))
		}
		m.post(b)
	}
	m.check()
}

// add offers one of three identities, if no device has it.
func (m *model) add() {
	instance := vmbus.GUID{byte(m.next(3))}
	for _, d := range m.m.devices {
		if !d.withdrawn && d.offer.Instance == instance {
			return
		}
	}
	m.devices++
	m.m.add(deviceID(m.devices), vmbus.Offer{Instance: instance})
}

// ack ends an action, in any order.
func (m *model) ack() {
	if len(m.acks) == 0 {
		return
	}
	i := m.next(len(m.acks))
	f := m.acks[i]
	m.acks = append(m.acks[:i:i], m.acks[i+1:]...)
	f()
}

// check takes the actions and compares the books.
func (m *model) check() {
	for _, a := range m.m.out {
		m.action(a)
	}
	m.m.out = nil
	words, partial := 0, 0
	for id, g := range m.m.gpadls {
		words += g.words
		if g.list != nil {
			partial++
		}
		if g.id != id || m.m.channels[g.ch.relid] != g.ch {
			m.t.Fatalf("GPADL %d belongs to nothing", id)
		}
	}
	if words != m.m.pages || partial != m.m.partial {
		m.t.Fatalf("%d words and %d incomplete GPADLs counted, there are %d and %d", m.m.pages, m.m.partial, words, partial)
	}
	for relid, ch := range m.m.channels {
		if held := ch.state == opening || ch.state == open || ch.state == closing; held != (m.open[relid] == ch.dev.id) {
			m.t.Fatalf("relid %d is %s, its backend thinks otherwise", relid, ch.state)
		}
		if ch.state == open && m.m.gpadls[ch.ring] == nil {
			m.t.Fatalf("relid %d is open without rings", relid)
		}
		if ch.state == open && ch.index != 0 && ch.dev.primary.state != open {
			m.t.Fatalf("relid %d is an open sub-channel of a primary that is %s", relid, ch.dev.primary.state)
		}
	}
}

func (m *model) alive(id deviceID) {
	if m.gone[id] {
		m.t.Fatalf("device %d was forgotten", id)
	}
}

func (m *model) action(a action) {
	switch a := a.(type) {
	case send:
		m.sent(a)
	case contact:
		clear(m.offered)
	case share:
		m.alive(a.dev)
		m.used[a.dev] = true
	case revoke:
		m.alive(a.dev)
		m.acks = append(m.acks, func() { m.m.revoked(a.gpadl) })
	case openChannel:
		m.alive(a.dev)
		m.used[a.dev] = true
		if _, ok := m.open[a.relid]; ok {
			m.t.Fatalf("relid %d is opened twice", a.relid)
		}
		m.open[a.relid] = a.dev
		m.acks = append(m.acks, func() {
			ok := m.next(4) != 0
			if !ok {
				delete(m.open, a.relid)
			}
			m.m.opened(a.relid, ok)
		})
	case closeChannel:
		m.alive(a.dev)
		if m.open[a.relid] != a.dev {
			m.t.Fatalf("relid %d is closed and was not open", a.relid)
		}
		m.acks = append(m.acks, func() {
			delete(m.open, a.relid)
			m.m.closed(a.relid)
		})
	case retarget:
		if m.open[a.relid] != a.dev {
			m.t.Fatalf("relid %d is moved and not open", a.relid)
		}
	case remove:
		m.alive(a.dev)
		for relid, dev := range m.open {
			if dev == a.dev {
				m.t.Fatalf("device %d is removed while relid %d is open", dev, relid)
			}
		}
		if !m.used[a.dev] {
			m.t.Fatalf("device %d is removed and was never used", a.dev)
		}
		delete(m.used, a.dev)
	case forget:
		m.alive(a.dev)
		if m.used[a.dev] {
			m.t.Fatalf("device %d is forgotten before it is removed", a.dev)
		}
		m.gone[a.dev] = true
	}
}

// sent checks what the guest sees of offers.
func (m *model) sent(a send) {
	t, _ := vmbus.PeekType(a.message)
	switch t {
	case vmbus.TypeOffer:
		o, err := vmbus.ParseOffer(a.message, vmbus.Version5_3)
		if err != nil {
			m.t.Fatalf("offer: %v", err)
		}
		if o.Relid == 0 || o.Relid >= vmbus.RelidLimit {
			m.t.Fatalf("relid %d", o.Relid)
		}
		for relid, instance := range m.offered {
			if ch := m.m.channels[relid]; o.SubChannel == 0 && instance == o.Instance && ch != nil && ch.index == 0 && relid != o.Relid {
				m.t.Fatalf("the device of relid %d is offered again", relid)
			}
		}
		m.offered[o.Relid] = o.Instance
	case vmbus.TypeRescindOffer:
		r, _ := vmbus.ParseRescindOffer(a.message)
		if _, ok := m.offered[r.Relid]; !ok {
			m.t.Fatalf("relid %d is rescinded and not offered", r.Relid)
		}
		delete(m.offered, r.Relid)
	}
}

// end has the guest leave, and checks that nothing is left of it.
func (m *model) end() {
	m.m.gone()
	m.check()
	for len(m.acks) > 0 {
		m.ack()
		m.check()
	}
	if n := len(m.m.channels) + len(m.m.gpadls) + m.m.pages + m.m.partial + len(m.open) + len(m.used); n != 0 || m.m.ending != nil {
		m.t.Fatalf("the guest is gone and something is left")
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") })
		m.prepare()
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			m.step()
		}
		m.end()
	})
}

// prepare gets where something can happen.
func (m *model) prepare() {
	m.devices++
	m.m.add(1, vmbus.Offer{Instance: vmbus.GUID{1}})
	m.m.message(vmbus.ConnContact, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT}.Append(nil))
	m.m.message(vmbus.ConnMessage, vmbus.RequestOffers{}.Append(nil))
	m.check()
}

func FuzzHost(f *testing.F) {
	for seed := range uint64(20) {
		script := make([]byte, 500)
		rand.NewChaCha8([32]byte{byte(seed)}).Read(script)
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		m := newModel(t, func(n int) int {
			if len(script) == 0 {
				return 0
			}
			c := int(script[0]) % n
			script = script[1:]
			return c
		})
		if len(script) > 1000 {
			script = script[:1000]
		}
		m.prepare()
		for len(script) > 0 {
			m.step()
		}
		m.end()
	})
}

// FuzzMessages has the guest post anything at all.
func FuzzMessages(f *testing.F) {
	f.Add(uint8(236), gpadlMessage(1, 7))
	f.Fuzz(func(t *testing.T, n uint8, posts []byte) {
		m := newModel(t, func(int) int { return 0 })
		m.prepare()
		for size := int(n)%vmbus.MaxMessage + 1; len(posts) > 0; {
			b := posts[:min(size, len(posts))]
			posts = posts[len(b):]
			m.m.message(vmbus.ConnMessage, b)
			m.check()
		}
		m.end()
	})
}
