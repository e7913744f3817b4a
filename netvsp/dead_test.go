package netvsp

import (
	"testing"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// Messages that nobody sends any more: those with an answer of their own are
// refused, the others are faults, and none changes anything.
func TestDeadMessages(t *testing.T) {
	for typ := nvsp.TypeNone; typ <= nvsp.TypePDPostBatch+1; typ++ {
		switch typ {
		case nvsp.TypeInit, nvsp.TypeNDISConfig, nvsp.TypeNDISVersion, nvsp.TypeSendReceiveBuffer, nvsp.TypeSendSendBuffer,
			nvsp.TypeRevokeReceiveBuffer, nvsp.TypeRevokeSendBuffer, nvsp.TypeSwitchDataPath, nvsp.TypeOIDQueryEx, nvsp.TypeSubChannel:
			continue
		}
		c := ready(t, nvsp.V61)
		before := *c
		msg := make([]byte, nvsp.MaxSize)
		msg[0], msg[4] = byte(typ), byte(nvsp.PDCreateQueue)
		e := c.handle(msg)
		switch typ {
		case nvsp.TypePDAPI:
			if m, err := nvsp.ParsePDComplete(e.reply); err != nil || m.Op != nvsp.PDCreateQueue || m.Status != nvsp.StatusFail || e.fault != nil {
				t.Errorf("%v: %+v, %v, fault %v", typ, m, err, e.fault)
			}
		case nvsp.TypeAllocateReceiveBuffer:
			if m, err := nvsp.ParseAllocateReceiveBufferComplete(e.reply); err != nil || m.ID != 5 || m.Status != nvsp.StatusFail || e.fault != nil {
				t.Errorf("%v: %+v, %v, fault %v", typ, m, err, e.fault)
			}
		default:
			if e.fault == nil || e.reply != nil {
				t.Errorf("%v: %+v", typ, e)
			}
		}
		if e.op != opNone || c.version != before.version || c.receive != before.receive || c.send != before.send || c.subChannels != before.subChannels {
			t.Errorf("%v changed something: %+v", typ, e)
		}
	}
	c := ready(t, nvsp.V5)
	if e := c.handle(nvsp.PDRequest{Op: nvsp.PDOpen}.Append(nil)); e.fault == nil || e.reply != nil {
		t.Errorf("PacketDirect with version 5: %+v", e)
	}
}

// Windows guests set it, and need the answer.
func TestOffloadEncapsulation(t *testing.T) {
	a := newAdapter(t, nvsp.V61)
	encapsulation := append(rndis.ObjectHeader{Type: rndis.ObjectOffloadEncapsulation, Revision: 1, Size: 28}.Append(nil), make([]byte, 24)...)
	if s, _ := set(t, a, rndis.OIDOffloadEncapsulation, encapsulation); s != rndis.StatusSuccess {
		t.Errorf("OFFLOAD_ENCAPSULATION: %v", s)
	}
	if s, _ := set(t, a, rndis.OIDOffloadEncapsulation, encapsulation[:27]); s != rndis.StatusInvalidData {
		t.Errorf("OFFLOAD_ENCAPSULATION of 27 bytes: %v", s)
	}
}

func TestStatistics(t *testing.T) {
	c := new(counters)
	c.txFrames.Store(1<<32 + 7)
	c.rxFrames.Store(8)
	c.txDropped[DropSource].Store(2)
	c.txDropped[DropRunt].Store(3)
	c.rxDropped[DropRingFull].Store(4)
	c.rxDropped[DropNoSection].Store(5)
	c.rxDropped[DropFilter].Store(100)
	a := newAdapter(t, nvsp.V61)
	a.total = func() *counters { return c }
	for o, want := range map[rndis.OID]uint32{
		rndis.OIDTransmitOK: 7, rndis.OIDReceiveOK: 8, rndis.OIDTransmitError: 5, rndis.OIDReceiveError: 0, rndis.OIDReceiveNoBuffer: 9,
		rndis.OIDReceiveErrorAlignment: 0, rndis.OIDTransmitOneCollision: 0, rndis.OIDTransmitCollisions: 0,
	} {
		b, s := query(t, a, o, nil)
		if v, err := rndis.ParseUint32(b); s != rndis.StatusSuccess || err != nil || v != want {
			t.Errorf("%v: %d, want %d; %v, %v", o, v, want, s, err)
		}
	}
}

// A live device counts what its guest has sent.
func TestStatisticsOfDevice(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	f := nic.Frame{Head: make([]byte, 60)}
	copy(f.Head, nic.Broadcast[:])
	g.dev.WriteFrames([]nic.Frame{f, f})
	p := g.next(g.ch)
	g.complete(g.ch, p.TID)
	if v, err := rndis.ParseUint32(g.query(rndis.OIDReceiveOK, nil).Info); err != nil || v != 2 {
		t.Errorf("%d frames, %v", v, err)
	}
}
