package netvsp

import (
	"errors"
	"fmt"

	"hvnet/hv"
	"hvnet/rndis"
	"hvnet/rule"
	"hvnet/vmbus"
)

// The rules that packets with frames break. They are values, so that a hostile guest
// can't make the data path allocate.
var (
	errOffload = rule.FrameOffload.Broken("an offload that was not offered, or not for such a frame")
	errSplit   = rule.FrameHeader.Broken("RNDIS header split over page ranges, or too many of them")
	errSection = rule.SendSection.Broken("a send section that is not in the send buffer")
	errControl = rule.RNDISAlone.Broken("a message that is no frame, where none may be")
	errEarly   = rule.FrameFirst.Broken("a frame before RNDIS is initialized")

	errPlace      = rule.NVSPChannel.Broken("an NVSP message where none may be")
	errPacketType = rule.PacketType.Broken("a ring packet of another type")
	errPacketSize = rule.PacketSize.Broken("a ring packet that is too long")
	errCompletion = rule.Completion.Broken("a completion of what was not sent")
)

// broken returns err with the rule that it breaks. The errors of the parsers that the
// data path uses do not carry one, and get it here, when somebody wants to know.
func broken(err error) error {
	switch {
	case rule.Of(err) != nil:
		return err
	case errors.Is(err, rndis.ErrMalformed):
		return wrong(rndis.TypePacket, err)
	case errors.Is(err, vmbus.ErrMalformed):
		return rule.PacketLayout.Err(err)
	case errors.Is(err, hv.ErrBounds):
		return rule.SendPages.Err(err)
	}
	return err
}

// bad counts a rule that the guest broke, and tells of it.
func (q *queue) bad(err error) {
	if q.closing.Load() {
		return
	}
	q.count.faults.Add(1)
	q.blameGuest(err)
}

// blameGuest tells of it alone.
func (q *queue) blameGuest(err error) {
	q.s.d.log.Debug("the guest broke a rule", "channel", q.index, "err", err)
	if f := q.s.d.cfg.Broken; f != nil {
		f(fmt.Errorf("channel %d: %w", q.index, broken(err)))
	}
}
