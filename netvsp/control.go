package netvsp

import (
	"slices"

	"hvnet/netvsp/profile"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/rule"
)

// The MTUs, Ethernet header included, that a guest may configure. Others count as
// the smallest, as hosts have it.
const (
	minMTU = 1514
	maxMTU = 9216
)

// control is the device's half of NVSP as a value: a message goes in, what is to
// be done comes out. It knows no channel, no memory and no clock.
//
// A message that is out of order, unknown in the negotiated version or malformed
// is a fault: it is answered with failure where an answer was asked for, and
// changes nothing.
type control struct {
	profile profile.Profile
	vps     int // virtual processors of the guest: more channels make no sense

	version nvsp.Version // 0 until negotiated
	ndis    nvsp.NDISVersion
	config  nvsp.NDISConfig
	mtu     int // as configured, Ethernet header included

	hasNDIS, hasConfig bool
	receive, send      bufferState
	subChannels        int // granted; 0 until asked for
}

// bufferState is how far a buffer has come. A buffer is set up once: a guest that
// wants another one closes the channel and starts again.
type bufferState int

const (
	bufferNone bufferState = iota
	bufferMapping
	bufferReady
	bufferRevoked
)

// An op is what the edge has to do for a message, besides answering.
type op int

const (
	opNone          op = iota
	opMapReceive       // map the GPADL and call receiveMapped, which answers
	opMapSend          // map the GPADL and call sendMapped, which answers
	opRevokeReceive    // stop using the receive buffer
	opRevokeSend       // stop using the send buffer
	opSubChannels      // once the answer is sent, offer n sub-channels
	opSwitchToVF       // move the path to the guest to the virtual function, if there is one
	opSwitchToSynthetic
)

// An effect is what comes out of a message.
type effect struct {
	op    op
	gpadl uint32
	n     int
	// reply is the payload of the completion, nil for an empty one. A message
	// that asks for no completion gets none.
	reply []byte
	// fault is the rule that the message breaks, nil if there is none.
	fault error
}

// started reports whether the guest has come so far that it may send RNDIS: the
// version is known and the receive buffer is there. The send buffer is optional.
func (c *control) started() bool { return c.version != 0 && c.receive == bufferReady }

// handle takes one message from the primary channel, but no RNDIS packet.
func (c *control) handle(msg []byte) effect {
	t, err := nvsp.PeekType(msg)
	if err != nil {
		return effect{fault: rule.NVSPLayout.Err(err)}
	}
	if t == nvsp.TypeInit {
		return c.init(msg)
	}
	if c.version == 0 {
		return effect{fault: rule.NVSPFirst.Broken("%v before INIT", t)}
	}
	if !c.version.Allows(t) {
		return effect{fault: rule.NVSPVersion.Broken("%v is unknown in NVSP %v", t, c.version)}
	}
	switch t {
	case nvsp.TypeNDISConfig:
		return c.ndisConfig(msg)
	case nvsp.TypeNDISVersion:
		return c.ndisVersion(msg)
	case nvsp.TypeSendReceiveBuffer:
		return c.sendReceiveBuffer(msg)
	case nvsp.TypeSendSendBuffer:
		return c.sendSendBuffer(msg)
	case nvsp.TypeRevokeReceiveBuffer:
		return c.revoke(&c.receive, opRevokeReceive, t)
	case nvsp.TypeRevokeSendBuffer:
		return c.revoke(&c.send, opRevokeSend, t)
	case nvsp.TypeSubChannel:
		return c.subChannel(msg)
	case nvsp.TypeOIDQueryEx:
		return effect{reply: c.pad(nvsp.OIDQueryExComplete{Status: uint32(rndis.StatusNotSupported)}.Append(nil))}
	case nvsp.TypePDAPI:
		if m, err := nvsp.ParsePDRequest(msg); err == nil { // there is no PacketDirect
			return effect{reply: c.pad(nvsp.PDComplete{Op: m.Op, Status: nvsp.StatusFail}.Append(nil))}
		}
	case nvsp.TypeAllocateReceiveBuffer:
		if m, err := nvsp.ParseAllocateReceiveBuffer(msg); err == nil { // buffers are the guest's
			return effect{reply: c.pad(nvsp.AllocateReceiveBufferComplete{Status: nvsp.StatusFail, ID: m.ID}.Append(nil))}
		}
	case nvsp.TypeSwitchDataPath:
		return c.switchPath(msg) // answered with nothing, whatever comes of it
	}
	return effect{fault: rule.NVSPDirection.Broken("%v is not for this device", t)}
}

// layout says in which structure it is written what a message should look like.
func layout(t nvsp.MessageType, err error) error {
	return rule.Layout(rule.NVSPLayout, t.String(), err)
}

// pad brings an answer to the size of the version's messages. Linux before 6.6
// checks an INIT_COMPLETE against the size of longer completions too, so no answer
// is ever shorter than 28 bytes.
func (c *control) pad(b []byte) []byte { return nvsp.Pad(b, 0, c.version.Size()) }

// init negotiates the version. Guests send one version at a time, so there is
// nothing to choose.
func (c *control) init(msg []byte) effect {
	m, err := nvsp.ParseInit(msg)
	err = layout(nvsp.TypeInit, err)
	answer := nvsp.InitComplete{Version: 0xffffffff, MaxMDL: 34, Status: nvsp.StatusFail}
	switch {
	case err != nil:
	case c.version != 0:
		err = rule.NVSPFirst.Broken("INIT after version %v was negotiated", c.version)
	case m.Min == m.Max && slices.Contains(c.profile.NVSP, m.Max):
		c.version = m.Max
		c.mtu = minMTU
		answer.Status = nvsp.StatusSuccess
		if c.version == nvsp.V1 {
			answer.Version = uint32(nvsp.V1)
		}
	case m.Min > slices.Max(c.profile.NVSP):
		answer.Status = nvsp.StatusTooNew // no fault: the guest tries the next
	case m.Max < slices.Min(c.profile.NVSP):
		answer.Status = nvsp.StatusTooOld
	default:
		answer.Status = nvsp.StatusNone
	}
	return effect{reply: c.pad(answer.Append(nil)), fault: err}
}

// ndisConfig takes MTU and capabilities.
func (c *control) ndisConfig(msg []byte) effect {
	m, err := nvsp.ParseNDISConfig(msg)
	switch {
	case err != nil:
		return effect{fault: layout(nvsp.TypeNDISConfig, err)}
	case c.hasConfig:
		return effect{fault: rule.NDISOnce.Broken("second NDIS configuration")}
	case c.receive != bufferNone:
		return effect{fault: rule.NDISOnce.Broken("NDIS configuration after the receive buffer")}
	}
	c.hasConfig, c.config = true, m
	c.mtu = int(m.MTU)
	if m.MTU < minMTU || m.MTU > maxMTU {
		c.mtu = minMTU
	}
	return effect{}
}

func (c *control) ndisVersion(msg []byte) effect {
	m, err := nvsp.ParseNDISVersion(msg)
	switch {
	case err != nil:
		return effect{fault: layout(nvsp.TypeNDISVersion, err)}
	case c.hasNDIS:
		return effect{fault: rule.NDISOnce.Broken("second NDIS version")}
	}
	c.hasNDIS, c.ndis = true, m
	return effect{}
}

// sendReceiveBuffer checks the order; receiveMapped answers.
func (c *control) sendReceiveBuffer(msg []byte) effect {
	m, err := nvsp.ParseSendReceiveBuffer(msg)
	err = layout(nvsp.TypeSendReceiveBuffer, err)
	switch {
	case err != nil:
	case c.receive != bufferNone:
		err = rule.BufferOnce.Broken("second receive buffer")
	case c.version >= nvsp.V2 && !c.hasConfig:
		err = rule.NDISOnce.Broken("receive buffer before the NDIS configuration")
	case m.ID != nvsp.ReceiveBufferID:
		err = rule.BufferID.Broken("receive buffer with id %#x, want %#x", m.ID, nvsp.ReceiveBufferID)
	default:
		c.receive = bufferMapping
		return effect{op: opMapReceive, gpadl: m.GPADL}
	}
	return effect{reply: c.pad(nvsp.SendReceiveBufferComplete{Status: nvsp.StatusFail}.Append(nil)), fault: err}
}

// receiveMapped answers SEND_RECEIVE_BUFFER once the edge knows how long the
// buffer is, or why it couldn't be mapped. n is the number of sections, 0 if the
// buffer is refused.
func (c *control) receiveMapped(length int, err error) (n, size int, e effect) {
	size = c.profile.ReceiveSectionSize(c.mtu)
	most := min(c.profile.MaxReceiveBuffer, c.version.MaxReceiveBuffer())
	n = length / size
	switch {
	case err != nil:
	case length > most:
		err = rule.BufferSize.Broken("receive buffer of %d bytes: more than %d", length, most)
	case n < minSections:
		err = rule.BufferSize.Broken("receive buffer of %d bytes: room for %d sections of %d bytes, want %d", length, n, size, minSections)
	default:
		c.receive = bufferReady
		section := nvsp.ReceiveSection{Size: uint32(size), Count: uint32(n), End: uint32(n * size)}
		answer := nvsp.SendReceiveBufferComplete{Status: nvsp.StatusSuccess, Sections: []nvsp.ReceiveSection{section}}
		return n, size, effect{reply: c.pad(answer.Append(nil))}
	}
	c.receive = bufferNone
	return 0, 0, effect{reply: c.pad(nvsp.SendReceiveBufferComplete{Status: nvsp.StatusFail}.Append(nil)), fault: err}
}

// sendSendBuffer checks the order; sendMapped answers.
func (c *control) sendSendBuffer(msg []byte) effect {
	m, err := nvsp.ParseSendSendBuffer(msg)
	err = layout(nvsp.TypeSendSendBuffer, err)
	switch {
	case err != nil:
	case c.send != bufferNone:
		err = rule.BufferOnce.Broken("second send buffer")
	case c.version >= nvsp.V2 && !c.hasConfig:
		err = rule.NDISOnce.Broken("send buffer before the NDIS configuration")
	default:
		c.send = bufferMapping
		return effect{op: opMapSend, gpadl: m.GPADL}
	}
	return effect{reply: c.pad(nvsp.SendSendBufferComplete{Status: nvsp.StatusFail}.Append(nil)), fault: err}
}

// sendMapped answers SEND_SEND_BUFFER, as receiveMapped does.
func (c *control) sendMapped(length int, err error) (n, size int, e effect) {
	size = c.profile.SendSectionSize
	n = length / size
	switch {
	case err != nil:
	case n < 1:
		err = rule.BufferSize.Broken("send buffer of %d bytes: no room for a section of %d", length, size)
	case length > nvsp.MaxSendBuffer+size:
		err = rule.BufferSize.Broken("send buffer of %d bytes: more than %d", length, nvsp.MaxSendBuffer)
	default:
		c.send = bufferReady
		answer := nvsp.SendSendBufferComplete{Status: nvsp.StatusSuccess, SectionSize: uint32(size)}
		return n, size, effect{reply: c.pad(answer.Append(nil))}
	}
	c.send = bufferNone
	return 0, 0, effect{reply: c.pad(nvsp.SendSendBufferComplete{Status: nvsp.StatusFail}.Append(nil)), fault: err}
}

// revoke takes a buffer away. It is not answered. The guest goes on to tear down
// the GPADL by another way, which may be the faster one.
func (c *control) revoke(state *bufferState, do op, t nvsp.MessageType) effect {
	switch *state {
	case bufferReady:
		*state = bufferRevoked
		return effect{op: do}
	case bufferRevoked:
		return effect{}
	}
	return effect{fault: rule.BufferRevoke.Broken("%v without a buffer", t)}
}

// revoked notes that the guest tore down the GPADL below a buffer.
func (c *control) revoked(o op) {
	switch o {
	case opRevokeReceive:
		c.receive = bufferRevoked
	case opRevokeSend:
		c.send = bufferRevoked
	}
}

// maxChannels is how many channels the guest may have: what the host release
// allows, one for each virtual processor, and one alone below version 5.
func (c *control) maxChannels() int {
	if c.version < nvsp.V5 {
		return 1
	}
	return max(1, min(c.profile.MaxChannels, c.vps))
}

// subChannel grants sub-channels, once: as many as asked for or as there may be.
func (c *control) subChannel(msg []byte) effect {
	m, err := nvsp.ParseSubChannelRequest(msg)
	err = layout(nvsp.TypeSubChannel, err)
	most := c.maxChannels() - 1
	switch {
	case err != nil:
	case m.Op != nvsp.SubChannelAllocate:
		err = rule.SubChannels.Broken("sub-channel operation %d", m.Op)
	case !c.started():
		err = rule.SubChannels.Broken("sub-channels before the receive buffer")
	case c.subChannels > 0:
		err = rule.SubChannels.Broken("sub-channels asked for twice")
	case m.Count == 0 || most == 0:
		err = rule.SubChannels.Broken("%d sub-channels asked for, at most %d possible", m.Count, most)
	default:
		c.subChannels = min(int(min(m.Count, 1<<16)), most)
		answer := nvsp.SubChannelComplete{Status: nvsp.StatusSuccess, Count: uint32(c.subChannels)}
		return effect{op: opSubChannels, n: c.subChannels, reply: c.pad(answer.Append(nil))}
	}
	return effect{reply: c.pad(nvsp.SubChannelComplete{Status: nvsp.StatusFail}.Append(nil)), fault: err}
}
