package pcap

import (
	"encoding/binary"
	"time"

	"github.com/gopacket/gopacket/layers"
)

// A Message is something that guest and host have said about the NIC, or that somebody
// has to say about them.
type Message struct {
	Direction Direction
	Protocol  string // such as NVSP; empty: it is about them
	Text      string // what it means
	Bytes     []byte // what was said; only lent
}

// Message has a message captured by those who want any.
func (p *Point) Message(m Message) {
	l := p.open.Load()
	if l == nil {
		return
	}
	now := time.Now().UnixNano()
	for _, c := range *l {
		if c.cfg.Messages {
			c.tell(now, m)
		}
	}
}

// tell copies a message.
func (c *Capture) tell(now int64, m Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || c.left == 0 {
		return
	}
	s := &c.fill
	at := len(s.data)
	data := appendMessage(s.data, &m)
	whole := len(data) - at
	if len(s.packets) == cap(s.packets) || len(data) > cap(s.data) {
		c.count.Dropped++
		return
	}
	m.Bytes = nil
	s.packets = append(s.packets, packet{at: now, whole: uint32(whole), kept: uint32(whole), queue: -1, message: &m})
	s.data = data
	c.count.Captured++
	if c.left > 0 {
		c.left--
	}
	c.wake()
}

// linkTypeUpperPDU is that of Wireshark's own form of a message of any protocol
// (LINKTYPE_WIRESHARK_UPPER_PDU): tags, most significant byte first, and then the bytes.
const linkTypeUpperPDU layers.LinkType = 252

// The tags, from epan/exported_pdu.h of Wireshark.
const (
	tagEnd       = 0
	tagDissector = 12 // who shows the bytes
	tagProtocol  = 33 // what the column Protocol shows
	tagDirection = 35 // 0: sent, 1: received
	tagInfo      = 36 // what the column Info shows, from Wireshark 4.2 on
)

// appendMessage appends a message in that form.
func appendMessage(b []byte, m *Message) []byte {
	be := binary.BigEndian
	tag := func(t uint16, v string) {
		b = be.AppendUint16(be.AppendUint16(b, t), uint16((len(v)+3)&^3))
		b = append(b, v...)
		for ; len(v)%4 != 0; v += " " {
			b = append(b, 0)
		}
	}
	protocol := m.Protocol
	if protocol == "" {
		protocol = "hvnet"
	}
	direction := "\x00\x00\x00\x01"
	if m.Direction == Outbound {
		direction = "\x00\x00\x00\x00"
	}
	tag(tagDissector, "data")
	tag(tagProtocol, protocol)
	tag(tagDirection, direction)
	tag(tagInfo, m.Text[:min(len(m.Text), maxText)])
	tag(tagEnd, "")
	return append(b, m.Bytes...)
}

// maxText is how much of a text a tag has room for.
const maxText = 1<<16 - 4
