package netvsc

import (
	"bytes"
	"errors"
	"fmt"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// rndis takes a packet of RNDIS messages.
func (q *fakeQueue) rndis(p *vmbus.Packet) {
	h := q.h
	m, err := nvsp.ParseRNDISPacket(p.Payload)
	if err != nil {
		h.wrong("%v", err)
		return
	}
	var data []byte
	if m.Section != nvsp.NoSection {
		at := int(m.Section) * h.txSection
		if int(m.SectionBytes) >= h.txSection || at+int(m.SectionBytes) > len(h.tx.Bytes) {
			h.wrong("section %d with %d bytes", m.Section, m.SectionBytes)
			return
		}
		data = append(data, h.tx.Bytes[at:at+int(m.SectionBytes)]...)
	}
	if p.Type == vmbus.PacketGPADirect {
		spans, _, err := p.GPASpans(make([]vmbus.Span, 0, 64), 1<<17)
		if err != nil {
			h.wrong("%v", err)
			return
		}
		for _, s := range spans {
			b := h.memory(s.GPA, s.Len)
			if b == nil {
				h.wrong("pages %#x+%d are not the guest's", s.GPA, s.Len)
				return
			}
			data = append(data, b...)
		}
	}
	if m.Channel == nvsp.ChannelControl {
		q.control(data, p.TID)
		return
	}
	if h.onData != nil && h.onData(q, p.TID) {
		return
	}
	q.data(data, m, p)
	q.complete(p.TID, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
}

// data takes a chain of PACKET messages and checks what a host checks.
func (q *fakeQueue) data(b []byte, m nvsp.RNDISPacket, p *vmbus.Packet) {
	h := q.h
	n := send{channel: q.index, section: m.Section, used: m.SectionBytes, total: len(b), direct: p.Type == vmbus.PacketGPADirect}
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(b) > 0 {
		k, err := rndis.ParsePacket(b[:min(len(b), rndis.PacketHeadSize)], len(b))
		if err != nil {
			h.bad = append(h.bad, fmt.Sprintf("message %d: %v", n.messages, err))
			break
		}
		n.messages++
		if next := b[k.Length:]; len(next) > 0 && k.Length%(1<<h.align) != 0 {
			h.bad = append(h.bad, fmt.Sprintf("message of %d bytes is not aligned", k.Length))
		}
		h.heads = append(h.heads, bytes.Clone(b[:k.DataOffset]))
		h.frames = append(h.frames, bytes.Clone(b[k.DataOffset:k.DataOffset+k.DataLen]))
		h.from = append(h.from, q.index)
		var info rndis.Info
		if err := k.Info(&info); err != nil {
			h.bad = append(h.bad, fmt.Sprintf("message %d: %v", n.messages, err))
		}
		h.asked = append(h.asked, info.Has)
		h.perChan[q.index]++
		b = b[k.Length:]
	}
	if n.messages > int(h.maxPackets) {
		h.bad = append(h.bad, fmt.Sprintf("%d messages in a send", n.messages))
	}
	h.sends = append(h.sends, n)
	h.tell()
}

// control answers a control message.
func (q *fakeQueue) control(m []byte, tid uint64) {
	h := q.h
	if h.onRNDIS != nil {
		h.onRNDIS(m)
	}
	hd, err := rndis.ParseHeader(m, len(m))
	if err != nil {
		h.wrong("%v", err)
		return
	}
	what := fmt.Sprint(hd.Type)
	if c, err := rndis.ParseQuery(m); err == nil {
		what += fmt.Sprint(" ", c.OID)
	}
	if c, err := rndis.ParseSet(m); err == nil {
		what += fmt.Sprint(" ", c.OID)
	}
	h.mu.Lock()
	h.event("%s", what)
	hook := h.onControl
	h.mu.Unlock()
	if hook != nil && hook(q, hd.Type, m, tid) {
		return
	}
	if a := q.answer(hd.Type, m); a != nil {
		q.indicate(a)
	}
	q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
}

// answer returns what Hyper-V answers to a control message.
func (q *fakeQueue) answer(t rndis.MessageType, m []byte) []byte {
	h := q.h
	switch t {
	case rndis.TypeInitialize:
		r, _ := rndis.ParseInitialize(m)
		return rndis.InitializeComplete{RequestID: r.RequestID, Major: 1, Flags: rndis.FlagConnectionless,
			MaxPackets: h.maxPackets, MaxTransfer: 0xefffffff, AlignmentFactor: h.align}.Append(nil)
	case rndis.TypeQuery:
		r, _ := rndis.ParseQuery(m)
		h.mu.Lock()
		a, ok := h.oid[r.OID]
		h.mu.Unlock()
		if !ok {
			a, ok = h.value(r.OID)
		}
		if !ok {
			return rndis.QueryComplete{RequestID: r.RequestID, Status: rndis.StatusNotSupported}.Append(nil)
		}
		return rndis.QueryComplete{RequestID: r.RequestID, Info: a}.Append(nil)
	case rndis.TypeSet:
		r, _ := rndis.ParseSet(m)
		if r.OID == rndis.OIDCurrentPacketFilter {
			h.mu.Lock()
			h.filter, _ = rndis.ParseUint32(r.Info)
			h.mu.Unlock()
		}
		return rndis.SetComplete{RequestID: r.RequestID}.Append(nil)
	}
	return nil
}

func (h *fakeHost) value(o rndis.OID) ([]byte, bool) {
	switch o {
	case rndis.OIDMaximumFrameSize:
		return rndis.AppendUint32(nil, h.mtu), true
	case rndis.OIDPermanentAddress:
		return h.mac[:], true
	case rndis.OIDFriendlyName:
		return rndis.AppendUTF16(nil, "Fake Adapter"), true
	case rndis.OIDOffloadHardwareCaps:
		return h.offload.Append(nil, 3), true
	case rndis.OIDMediaConnectStatus:
		return rndis.AppendUint32(nil, rndis.MediaConnected), true
	case rndis.OIDLinkSpeed:
		return rndis.AppendUint32(nil, rndis.LinkSpeed(40000)), true
	case rndis.OIDReceiveScaleCaps:
		return rndis.RSSCapabilities{Flags: rndis.RSSFlagsStandard, Queues: uint32(h.queues), Entries: 128}.Append(nil), true
	}
	return nil, false
}

// indicate sends messages to the driver, each in a section, as one packet.
func (q *fakeQueue) indicate(messages ...[]byte) error {
	h := q.h
	h.mu.Lock()
	var ranges []vmbus.ByteRange
	for _, m := range messages {
		if len(h.rxFree) < len(messages) {
			h.mu.Unlock()
			return errors.New("no receive section")
		}
		i := h.rxFree[len(h.rxFree)-1-len(ranges)]
		at := i * uint32(h.rxSection)
		copy(h.rx.Bytes[at:], m)
		ranges = append(ranges, vmbus.ByteRange{Count: uint32(len(m)), Offset: at})
	}
	// One id stands for all sections of a packet; they are counted as one.
	h.lastTID++
	tid := h.lastTID
	h.rxBusy[tid] = h.rxFree[len(h.rxFree)-1]
	h.rxFree = h.rxFree[:len(h.rxFree)-1]
	h.mu.Unlock()
	return q.send(vmbus.AppendTransferPages(nil, tid, nvsp.ReceiveBufferID, ranges),
		nvsp.RNDISPacket{Section: nvsp.NoSection}.Append(nil))
}

// packetMessage returns a frame as hosts send it: at byte 256 of the section.
func packetMessage(frame []byte, info *rndis.Info) []byte {
	m := make([]byte, 256+len(frame))
	rndis.PutPacketAt(m, 256, len(frame), info)
	copy(m[256:], frame)
	return m
}
