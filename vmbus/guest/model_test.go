package guest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hvnet/hv"
	"hvnet/vmbus"
)

// A model plays driver and host at random, in any order, and checks after each
// event what must always hold. The host is mostly a sane one, which doesn't mean
// that it answers in order, or at all.
type model struct {
	t    interface{ Fatalf(string, ...any) }
	m    *machine
	next func(n int) int // a choice below n

	waits    map[wait]bool        // somebody waits
	asked    [][]byte             // messages of the guest that the host may answer
	mine     map[uint64]bool      // regions that are shared
	wanted   map[uint64]hv.Region // of them, those that are to be freed
	regions  uint64
	finished map[*chanState]bool // channels lost
	held     map[*chanState]bool // channels that a driver opens, has open or closes
}

func newModel(t interface{ Fatalf(string, ...any) }, next func(n int) int) *model {
	m := &model{
		t: t, next: next,
		m:        newMachine(newPlacement(4, 1)),
		waits:    make(map[wait]bool),
		mine:     make(map[uint64]bool),
		wanted:   make(map[uint64]hv.Region),
		finished: make(map[*chanState]bool),
		held:     make(map[*chanState]bool),
	}
	m.connect()
	return m
}

func (m *model) connect() {
	v := []vmbus.Version{vmbus.Version2_4, vmbus.Version5_3}[m.next(2)]
	m.waits[m.m.contact(v)] = true
	m.check()
	m.m.message(vmbus.VersionResponse{Supported: true, Version: v, ConnID: 1}.Append(nil, v))
	m.check()
}

func (m *model) channel() *chanState {
	relids := sortedKeys(m.m.channels)
	if len(relids) == 0 {
		return nil
	}
	return m.m.channels[relids[m.next(len(relids))]]
}

func (m *model) gpadl() uint32 {
	ids := sortedKeys(m.m.gpadls)
	if len(ids) == 0 {
		return 0
	}
	return ids[m.next(len(ids))]
}

// wait notes a wait that a driver has begun.
func (m *model) wait(w wait, err error) {
	if err == nil {
		m.waits[w] = true
	}
}

func (m *model) step() {
	ch := m.channel()
	switch n := m.next(40); {
	case n < 6:
		o := vmbus.Offer{Instance: vmbus.GUID{byte(m.next(3))}, SubChannel: uint16(max(0, m.next(5)-2)), Relid: uint32(m.next(12))}
		m.m.message(o.Append(nil, vmbus.Version5_3))
	case n < 12:
		m.reply()
	case n < 14 && ch != nil:
		m.m.message(vmbus.RescindOffer{Relid: ch.offer.Relid}.Append(nil))
	case n < 19 && ch != nil:
		m.regions++
		r := hv.Region{GPA: hv.GPA(m.regions) * hv.PageSize, Bytes: make([]byte, hv.PageSize*(1+40*m.next(2)))}
		_, w, err := m.m.create(ch, r)
		m.wait(w, err)
		if err == nil {
			m.mine[uint64(r.GPA)] = true
		}
	case n < 22:
		if id := m.gpadl(); id != 0 {
			m.wait(m.m.unshare(id))
		}
	case n < 24:
		if g := m.m.gpadls[m.gpadl()]; g != nil && m.wanted[uint64(g.region.GPA)].Bytes == nil {
			if m.m.freeLater(g.region) {
				m.wanted[uint64(g.region.GPA)] = g.region
			}
		}
	case n < 29 && ch != nil:
		if m.m.beginOpen(ch) == nil {
			m.held[ch] = true
		}
		if ch.state == reserved {
			m.wait(m.m.open(ch, m.gpadl(), 2))
		}
	case n < 32 && ch != nil:
		if ch.state == open || ch.state == opening || ch.state == reserved {
			m.m.close(ch)
		}
	case n < 34 && ch != nil:
		if ch.state == closing {
			delete(m.held, ch)
			m.m.closed(ch)
		}
	case n == 34 && ch != nil:
		m.wait(m.m.modify(ch, 1))
	case n < 37:
		for _, w := range m.m.waits() {
			if m.next(4) == 0 {
				m.m.abandon(w)
				delete(m.waits, w)
				break
			}
		}
	case n == 37 && m.next(4) == 0:
		m.wait(m.m.unload())
	case n == 38:
		b := make([]byte, m.next(40))
		for i := range b {
			b[i] = byte(m.next(256))
		}
		m.m.message(b)
	case n == 39:
		m.m.claim(vmbus.GUID{})
	}
	m.check()
}

// reply answers one message of the guest, perhaps twice, perhaps badly.
func (m *model) reply() {
	if len(m.asked) == 0 {
		return
	}
	i := m.next(len(m.asked))
	b := m.asked[i]
	if m.next(5) != 0 {
		m.asked = slices.Delete(m.asked, i, i+1)
	}
	status := uint32(max(0, m.next(4)-2))
	switch t, _ := vmbus.PeekType(b); t {
	case vmbus.TypeGPADLHeader:
		h, _ := vmbus.ParseGPADLHeader(b)
		m.m.message(vmbus.GPADLCreated{Relid: h.Relid, ID: h.ID, Status: status}.Append(nil))
	case vmbus.TypeGPADLTeardown:
		g, _ := vmbus.ParseGPADLTeardown(b)
		m.m.message(vmbus.GPADLTorndown{ID: g.ID}.Append(nil))
	case vmbus.TypeOpenChannel:
		o, _ := vmbus.ParseOpenChannel(b, 0)
		m.m.message(vmbus.OpenResult{Relid: o.Relid, OpenID: o.OpenID, Status: status}.Append(nil))
	case vmbus.TypeModifyChannel:
		c, _ := vmbus.ParseModifyChannel(b)
		m.m.message(vmbus.ModifyChannelResponse{Relid: c.Relid, Status: status}.Append(nil))
	case vmbus.TypeUnload:
		m.m.message(vmbus.UnloadResponse{}.Append(nil))
	}
}

func (m *model) check() {
	for _, a := range m.m.out {
		m.action(a)
	}
	m.m.out = nil
	if m.m.version == 0 {
		clear(m.held)
	}
	for ch := range m.held {
		if m.m.channels[ch.offer.Relid] != ch {
			m.t.Fatalf("relid %d was released, and a driver has it", ch.offer.Relid)
		}
	}
	if got, want := m.m.waits(), len(m.waits); len(got) != want {
		m.t.Fatalf("the machine knows %d waits of %d", len(got), want)
	}
	for id, g := range m.m.gpadls {
		if m.m.version == 0 || m.m.channels[g.ch.offer.Relid] != g.ch {
			m.t.Fatalf("GPADL %#x belongs to nothing", id)
		}
	}
	for relid, ch := range m.m.channels {
		if ch.primary != nil && m.m.channels[ch.primary.offer.Relid] != ch.primary {
			m.t.Fatalf("relid %d is a sub-channel of nothing", relid)
		}
		if ch.rescinded != m.finished[ch] {
			m.t.Fatalf("relid %d is rescinded and nobody was told", relid)
		}
	}
}

func (m *model) action(a action) {
	switch a := a.(type) {
	case post:
		m.posted(a)
	case answer:
		if !m.waits[a.wait] {
			m.t.Fatalf("an answer to %+v, for which nobody waits", a.wait)
		}
		delete(m.waits, a.wait)
	case lost:
		if m.finished[a.ch] {
			m.t.Fatalf("relid %d is lost twice", a.ch.offer.Relid)
		}
		m.finished[a.ch] = true
	case free:
		r, ok := m.wanted[uint64(a.region.GPA)]
		if !ok || len(r.Bytes) != len(a.region.Bytes) {
			m.t.Fatalf("memory is freed that nobody wanted to free")
		}
		delete(m.wanted, uint64(a.region.GPA))
		for _, g := range m.m.gpadls {
			if g.region.GPA == a.region.GPA {
				m.t.Fatalf("memory is freed that the host has")
			}
		}
	}
}

func (m *model) posted(a post) {
	t, _ := vmbus.PeekType(a.message)
	switch t {
	case vmbus.TypeInitiateContact:
		m.asked = nil
	case vmbus.TypeRelidReleased:
		r, _ := vmbus.ParseRelidReleased(a.message)
		if m.m.channels[r.Relid] != nil {
			m.t.Fatalf("relid %d is released and in use", r.Relid)
		}
	default:
		m.asked = append(m.asked, a.message)
	}
}

// end has the host leave, and checks that nothing is left.
func (m *model) end() {
	m.m.disconnected()
	m.check()
	if n := len(m.m.channels) + len(m.m.gpadls) + len(m.m.waiting) + len(m.waits) + len(m.wanted); n != 0 {
		m.t.Fatalf("the host is gone and something is left: %v %v", slices.Collect(maps.Keys(m.waits)), m.wanted)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") })
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			m.step()
		}
		m.end()
	})
}

func FuzzGuest(f *testing.F) {
	for seed := range uint64(20) {
		script := make([]byte, 500)
		rand.NewChaCha8([32]byte{byte(seed)}).Read(script)
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		script = script[:min(len(script), 1000)]
		m := newModel(t, func(n int) int {
			if len(script) == 0 {
				return 0
			}
			c := int(script[0]) % n
			script = script[1:]
			return c
		})
		for len(script) > 0 {
			m.step()
		}
		m.end()
	})
}

// FuzzMessages has the host send anything at all.
func FuzzMessages(f *testing.F) {
	f.Add(uint8(195), vmbus.Offer{Relid: 1}.Append(nil, vmbus.Version5_3))
	f.Fuzz(func(t *testing.T, n uint8, messages []byte) {
		m := newModel(t, func(int) int { return 1 })
		for size := int(n)%vmbus.MaxMessage + 1; len(messages) > 0; {
			b := messages[:min(size, len(messages))]
			messages = messages[len(b):]
			m.m.message(b)
			m.check()
		}
		m.end()
	})
}
