package netvsp

import (
	"hvnet/nic"
	"hvnet/rndis"
	"hvnet/rule"
)

// adapter is the device's half of RNDIS as a value: a control message goes in, the
// answer and what has changed come out. Frames do not come here.
type adapter struct {
	ctl       *control // version, MTU, channel limit
	name      string
	permanent nic.MAC
	mac       nic.MAC // as the guest has set it, else the permanent one
	freeMAC   bool    // the guest may set its MAC
	link      nic.LinkState

	// total sums up the frames of the port, for the statistics.
	total func() *counters

	initialized bool
	filter      uint32
	rss         rssState
	sums        rxSums       // checksums that the guest is told of
	coalesced   nic.Offloads // what it gets as coalesced packets
}

// A change says what a control message has changed, for the data path to follow.
type change uint8

const (
	changedFilter change = 1 << iota
	changedRSS
	changedMAC
	changedOffload
)

// handle answers one control message in private memory. reply is nil where the
// protocol has no answer. A fault is for the counter and the log; the answer says
// it too if there is one.
func (a *adapter) handle(msg []byte) (reply []byte, ch change, fault error) {
	h, err := rndis.ParseHeader(msg, len(msg))
	if err != nil {
		return nil, 0, rule.RNDISLayout.Err(err)
	}
	if !a.initialized && h.Type != rndis.TypeInitialize && h.Type != rndis.TypeHalt && h.Type != rndis.TypeKeepalive {
		return a.refuse(msg, h.Type), 0, rule.RNDISFirst.Broken("%v before INITIALIZE", h.Type)
	}
	switch h.Type {
	case rndis.TypeInitialize:
		return a.initialize(msg)
	case rndis.TypeHalt:
		a.initialized, a.filter = false, 0
		return nil, changedFilter, nil
	case rndis.TypeQuery:
		return a.query(msg)
	case rndis.TypeSet:
		return a.set(msg)
	case rndis.TypeKeepalive:
		m, err := rndis.ParseKeepalive(msg)
		if err != nil {
			return nil, 0, wrong(h.Type, err)
		}
		return rndis.KeepaliveComplete{RequestID: m.RequestID}.Append(nil), 0, nil
	case rndis.TypeReset:
		// Guests of today never send it. The filter has to be set again, that is
		// all there is to reset.
		a.filter = 0
		return rndis.ResetComplete{AddressingReset: 1}.Append(nil), changedFilter, nil
	}
	return a.refuse(msg, h.Type), 0, rule.RNDISDirection.Broken("%v is not for a host", h.Type)
}

// wrong says in which section it is written what a message should look like.
func wrong(t rndis.MessageType, err error) error {
	return rule.Layout(rule.RNDISLayout, t.String(), err)
}

// refuse answers a request with failure, so that a guest that waits is told.
func (a *adapter) refuse(msg []byte, t rndis.MessageType) []byte {
	id, ok := rndis.RequestID(msg)
	if !ok {
		return nil
	}
	switch t {
	case rndis.TypeQuery:
		return rndis.QueryComplete{RequestID: id, Status: rndis.StatusFailure}.Append(nil)
	case rndis.TypeSet:
		return rndis.SetComplete{RequestID: id, Status: rndis.StatusFailure}.Append(nil)
	case rndis.TypeSetEx:
		return rndis.SetExComplete{RequestID: id, Status: rndis.StatusNotSupported}.Append(nil)
	}
	return nil
}

// initialize starts the conversation; once, until HALT.
func (a *adapter) initialize(msg []byte) ([]byte, change, error) {
	m, err := rndis.ParseInitialize(msg)
	if err != nil {
		return nil, 0, wrong(rndis.TypeInitialize, err)
	}
	answer := rndis.InitializeComplete{
		RequestID: m.RequestID, Major: rndis.MajorVersion, Minor: rndis.MinorVersion,
		Flags: rndis.FlagConnectionless, Medium: rndis.MediumEthernet,
		MaxPackets: a.ctl.profile.MaxPackets, MaxTransfer: a.ctl.profile.MaxTransfer, AlignmentFactor: a.ctl.profile.AlignmentFactor,
	}
	switch {
	case a.initialized:
		err = rule.RNDISFirst.Broken("second INITIALIZE")
		answer.Status = rndis.StatusFailure
	case m.Major != rndis.MajorVersion:
		err = rule.RNDISFirst.Broken("INITIALIZE of RNDIS %d.%d", m.Major, m.Minor)
		answer.Status = rndis.StatusBadVersion
	default:
		a.initialized = true
	}
	return answer.Append(nil), 0, err
}

func (a *adapter) query(msg []byte) ([]byte, change, error) {
	m, err := rndis.ParseQuery(msg)
	if err != nil {
		return a.refuse(msg, rndis.TypeQuery), 0, wrong(rndis.TypeQuery, err)
	}
	answer := rndis.QueryComplete{RequestID: m.RequestID}
	if o, ok := oids[m.OID]; ok && o.query != nil {
		answer.Info, answer.Status = o.query(a, m.Info)
	} else {
		answer.Status = rndis.StatusNotSupported
	}
	if answer.Status != rndis.StatusSuccess {
		answer.Info = nil
	}
	return answer.Append(nil), 0, nil
}

func (a *adapter) set(msg []byte) ([]byte, change, error) {
	m, err := rndis.ParseSet(msg)
	if err != nil {
		return a.refuse(msg, rndis.TypeSet), 0, wrong(rndis.TypeSet, err)
	}
	answer := rndis.SetComplete{RequestID: m.RequestID, Status: rndis.StatusNotSupported}
	var ch change
	if o, ok := oids[m.OID]; ok && o.set != nil {
		ch, answer.Status = o.set(a, m.Info)
	}
	return answer.Append(nil), ch, nil
}
