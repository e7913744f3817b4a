package conform

import (
	"encoding/binary"

	"hvnet/hv"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// How much of an RNDIS message is copied for the text: all of a control message, and
// of a frame the head.
const (
	maxControl = 8 << 10
	maxHead    = rndis.PacketHeadSize
)

// buffers is what a device's guest has shared for its sections, as far as the NVSP
// messages have told.
type buffers struct {
	receive, send uint32 // GPADLs
	section       uint32 // bytes of a send section
	views         map[uint32]*hv.Mapping
}

// learn takes from an NVSP message where sections are.
func (b *buffers) learn(t nvsp.MessageType, payload []byte) {
	switch t {
	case nvsp.TypeSendReceiveBuffer:
		if m, err := nvsp.ParseSendReceiveBuffer(payload); err == nil {
			b.receive = m.GPADL
		}
	case nvsp.TypeSendSendBuffer:
		if m, err := nvsp.ParseSendSendBuffer(payload); err == nil {
			b.send = m.GPADL
		}
	case nvsp.TypeSendSendBufferComplete:
		if m, err := nvsp.ParseSendSendBufferComplete(payload); err == nil {
			b.section = m.SectionSize
		}
	}
}

// appendBytes appends what there is of n bytes at an offset of a buffer, up to the
// capacity of out.
func (b *buffers) appendBytes(out []byte, gpadl uint32, at uint64, n uint32) []byte {
	m := b.views[gpadl]
	if m == nil || at >= uint64(len(m.Bytes)) {
		return out
	}
	from := m.Bytes[at:]
	return append(out, from[:min(len(from), int(n), cap(out)-len(out))]...)
}

// drop gives a view back.
func (b *buffers) drop(gpadl uint32) {
	if m := b.views[gpadl]; m != nil {
		m.Close()
		delete(b.views, gpadl)
	}
}

// The most that one packet has of ranges of the receive buffer, and of runs of pages.
const (
	maxRanges = 375
	maxSpans  = 96
)

// contents finds what packets carry elsewhere: in a send section, in pages, in
// receive sections.
type contents struct {
	d      *device
	buf    [maxControl]byte
	spans  [maxSpans]vmbus.Span
	ranges [maxRanges]vmbus.ByteRange
}

// of returns a private copy of the first RNDIS bytes of a packet, nil if there are
// none or they can't be found.
func (c *contents) of(from Side, b []byte) []byte {
	p, err := vmbus.ParsePacket(b)
	if err != nil {
		return nil
	}
	t, err := nvsp.PeekType(p.Payload)
	if err != nil {
		return nil
	}
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock() // a fault in guest memory comes this way
	d.buffers.learn(t, p.Payload)
	m, err := nvsp.ParseRNDISPacket(p.Payload)
	if err != nil {
		return nil
	}
	out := c.buf[:0]
	if from == Host {
		if _, ranges, err := p.TransferPages(c.ranges[:0]); err == nil && len(ranges) > 0 {
			out = d.buffers.appendBytes(out, d.buffers.receive, uint64(ranges[0].Offset), ranges[0].Count)
		}
	} else {
		if m.Section != nvsp.NoSection {
			out = d.buffers.appendBytes(out, d.buffers.send, uint64(m.Section)*uint64(d.buffers.section), m.SectionBytes)
		}
		out = c.appendPages(out, &p)
	}
	if len(out) >= 4 && rndis.MessageType(binary.LittleEndian.Uint32(out)) == rndis.TypePacket {
		out = out[:min(len(out), maxHead)]
	}
	return out
}

// appendPages appends what is in the pages that a packet names.
func (c *contents) appendPages(out []byte, p *vmbus.Packet) []byte {
	spans, _, err := p.GPASpans(c.spans[:0], 1<<20)
	if err != nil {
		return out
	}
	mem := c.d.Memory()
	mem.RLock()
	defer mem.RUnlock()
	for _, s := range spans {
		b, err := mem.Bytes(hv.GPA(s.GPA), min(s.Len, cap(out)-len(out)))
		if err != nil {
			break
		}
		out = append(out, b...)
	}
	return out
}
