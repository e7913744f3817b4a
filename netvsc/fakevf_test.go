package netvsc

import (
	"fmt"
	"sync"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/vmbus"
)

// A fakeVFSide is what a fakeHost knows of virtual functions.
type fakeVFSide struct {
	caps   nvsp.Capabilities
	paths  []uint32 // that the driver has asked for
	serial uint32   // associated in answer to NDIS_CONFIG; 0: none
}

// vfMessage takes a message that is about virtual functions.
func (q *fakeQueue) vfMessage(t nvsp.MessageType, m []byte, tid uint64) {
	h := q.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if t == nvsp.TypeNDISConfig {
		c, _ := nvsp.ParseNDISConfig(m)
		if h.vf.caps = c.Capabilities; h.vf.serial != 0 {
			q.associate(true, h.vf.serial)
		}
		return
	}
	r, _ := nvsp.ParseSwitchDataPath(m)
	h.vf.paths = append(h.vf.paths, r.Path)
	q.send(vmbus.AppendCompletion(nil, tid))
}

// associate tells the driver of a virtual function; like hosts do, asking for an answer.
func (q *fakeQueue) associate(on bool, serial uint32) {
	q.send(vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, 1<<63), nvsp.VFAssociation{Allocated: on, Serial: serial}.Append(nil))
}

// takeBack tells the driver that the path is the synthetic one again.
func (q *fakeQueue) takeBack() {
	q.send(vmbus.AppendInBand(nil, 0, 1<<63|1), nvsp.SwitchDataPath{Path: nvsp.PathSynthetic}.Append(nil))
}

// A fakeVF is a virtual function that keeps what it is to send, and what it was told.
type fakeVF struct {
	*recorder
	mac     nic.MAC
	serial  uint32
	dropped uint64

	mu   sync.Mutex
	told []string
	err  error // of what it is told
}

func newFakeVF(h *fakeHost) *fakeVF {
	return &fakeVF{recorder: newRecorder(), mac: h.mac, serial: 7}
}

func (v *fakeVF) MAC() nic.MAC    { return v.mac }
func (v *fakeVF) Serial() uint32  { return v.serial }
func (v *fakeVF) Dropped() uint64 { return v.dropped }

func (v *fakeVF) tell(format string, a ...any) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err == nil {
		v.told = append(v.told, fmt.Sprintf(format, a...))
	}
	return v.err
}

func (v *fakeVF) SetUp(on bool) error          { return v.tell("up %v", on) }
func (v *fakeVF) SetMTU(mtu int) error         { return v.tell("mtu %d", mtu) }
func (v *fakeVF) SetMAC(m nic.MAC) error       { return v.tell("mac %v", m) }
func (v *fakeVF) SetPromiscuous(on bool) error { return v.tell("promiscuous %v", on) }

// heard returns what the VF was told since the last time.
func (v *fakeVF) heard() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	told := v.told
	v.told = nil
	return told
}

// asked returns the paths that the driver has asked the host for since the last time.
func (h *fakeHost) askedPaths() []uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.vf.paths
	h.vf.paths = nil
	return p
}
