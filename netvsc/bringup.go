package netvsc

import (
	"context"
	"errors"
	"fmt"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// attach brings the device up with the given settings. On failure nothing is left
// behind.
func (n *NIC) attach(ctx context.Context, want settings) (*session, error) {
	s := &session{n: n, dev: n.dev, want: want, failed: make(chan struct{}), drained: make(chan struct{}, 1)}
	s.features.Store(&features{}) // until the host has said what it offers
	err := s.bringUp(ctx)
	if err == nil {
		return s, nil
	}
	// The caller's time may be over; tidying up has its own.
	ctx, cancel := n.ownTime(ctx)
	defer cancel()
	if e := s.close(ctx); e != nil {
		err = errors.Join(err, fmt.Errorf("tidy up: %w", e))
	}
	return nil, err
}

// bringUp does everything from the opening of the primary channel to the last
// setting, in the order that hosts insist on.
func (s *session) bringUp(ctx context.Context) error {
	for i, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"open the primary channel", s.openPrimary},
		{"negotiate a version", s.negotiate},
		{"announce", s.announce},
		{"share the receive buffer", s.shareReceiveBuffer},
		{"share the send buffer", s.shareSendBuffer},
		{"initialize RNDIS", s.initialize},
		{"identify", s.identify},
		{"prepare offloads", s.prepareOffload},
		{"ask for the link", s.askLink},
		{"restore the address", s.restoreAddress},
		{"open further channels", s.openChannels},
	} {
		s.n.log.Debug("netvsc: bring-up", "step", i+1, "what", step.what)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	s.log("up")
	return nil
}

func (s *session) log(what string) {
	s.n.log.Info("netvsc: device "+what, "nvsp", s.version, "mac", *s.address.Load(), "mtu", s.mtu, "channels", len(s.queues),
		"rx", s.rxSections, "rxSize", s.rxSectionSize, "tx", s.txSections, "txSize", s.txSectionSize)
}

func (s *session) openPrimary(ctx context.Context) error {
	if err := s.allocateControl(); err != nil {
		return err
	}
	return s.openQueue(ctx, 0)
}

// openQueue opens the channel with the given index and starts its goroutine.
func (s *session) openQueue(ctx context.Context, index int) error {
	ctx, cancel := s.n.bound(ctx)
	defer cancel()
	ch, err := s.dev.Open(ctx, index, s.n.ringBytes)
	if err != nil {
		return fmt.Errorf("open channel %d: %w", index, err)
	}
	q := newQueue(s, ch, index)
	s.queues = append(s.queues, q)
	go q.run()
	return nil
}

// negotiate finds the newest version of NVSP that the host has, asking for one
// after the other.
func (s *session) negotiate(ctx context.Context) error {
	var last nvsp.Status
	for _, v := range nvsp.Versions() {
		m, err := s.ask(ctx, "answer to INIT of NVSP "+v.String(), nvsp.Init{Min: v, Max: v}.Append(nil), nvsp.TypeInitComplete)
		if err != nil {
			return err
		}
		c, err := nvsp.ParseInitComplete(m)
		if err != nil {
			return err
		}
		if last = c.Status; last == nvsp.StatusSuccess {
			s.version = v
			return nil
		}
	}
	return fmt.Errorf("negotiate NVSP: the host has none of versions %v: %w", nvsp.Versions(), last)
}

// announce tells the host what this driver can do. A capability that is not
// implemented is not announced.
func (s *session) announce(ctx context.Context) error {
	s.mtu = s.want.mtu
	if s.version == nvsp.V1 {
		s.mtu = min(s.mtu, defaultMTU)
	} else {
		caps := nvsp.CapVLAN
		if s.version >= nvsp.V5 {
			caps |= nvsp.CapTeaming // or the host doesn't tell the link speed
			if s.sriov.Store(s.n.vf.on); s.n.vf.on {
				caps |= nvsp.CapSRIOV
			}
		}
		if s.version >= nvsp.V61 {
			caps |= nvsp.CapRSC
		}
		m := nvsp.NDISConfig{MTU: uint32(s.mtu + nic.HeaderLen), Capabilities: caps}
		if err := s.tell(ctx, "NDIS_CONFIG", m.Append(nil)); err != nil {
			return err
		}
	}
	return s.tell(ctx, "NDIS_VERSION", s.version.NDIS().Append(nil))
}

// maxTransfer is the longest control message in bytes that the driver says it
// takes, as Linux does.
const maxTransfer = 0x4000

// initialize starts RNDIS and sets the limits for sending.
func (s *session) initialize(ctx context.Context) error {
	b, err := s.exchange(ctx, "answer to RNDIS INITIALIZE", rndis.TypeInitializeComplete, func(b []byte, id uint32) []byte {
		return rndis.Initialize{RequestID: id, Major: rndis.MajorVersion, Minor: rndis.MinorVersion, MaxTransfer: maxTransfer}.Append(b)
	})
	if err != nil {
		return err
	}
	c, err := rndis.ParseInitializeComplete(b)
	if err != nil {
		return err
	}
	if c.Status != rndis.StatusSuccess {
		return fmt.Errorf("RNDIS INITIALIZE: refused by the host: %w", c.Status)
	}
	packets, align := c.Batch()
	s.maxPackets, s.align = uint32(packets), align
	return nil
}

// query asks for the value of an OID.
func (s *session) query(ctx context.Context, oid rndis.OID, info []byte) ([]byte, error) {
	b, err := s.exchange(ctx, "answer to the query of "+oid.String(), rndis.TypeQueryComplete, func(b []byte, id uint32) []byte {
		return rndis.Query{RequestID: id, OID: oid, Info: info}.Append(b)
	})
	if err != nil {
		return nil, err
	}
	c, err := rndis.ParseQueryComplete(b)
	if err != nil {
		return nil, fmt.Errorf("query %v: %w", oid, err)
	}
	if c.Status != rndis.StatusSuccess {
		return nil, fmt.Errorf("query %v: %w", oid, c.Status)
	}
	return c.Info, nil
}

// query32 asks for the value of an OID that is a number.
func (s *session) query32(ctx context.Context, oid rndis.OID) (uint32, error) {
	b, err := s.query(ctx, oid, nil)
	if err != nil {
		return 0, err
	}
	v, err := rndis.ParseUint32(b)
	if err != nil {
		return 0, fmt.Errorf("query %v: %w", oid, err)
	}
	return v, nil
}

// set changes the value of an OID.
func (s *session) set(ctx context.Context, oid rndis.OID, info []byte) error {
	b, err := s.exchange(ctx, "answer to the setting of "+oid.String(), rndis.TypeSetComplete, func(b []byte, id uint32) []byte {
		return rndis.Set{RequestID: id, OID: oid, Info: info}.Append(b)
	})
	if err != nil {
		return err
	}
	c, err := rndis.ParseSetComplete(b)
	if err != nil {
		return fmt.Errorf("set %v: %w", oid, err)
	}
	if c.Status != rndis.StatusSuccess {
		return fmt.Errorf("set %v: %w", oid, c.Status)
	}
	return nil
}

// refused reports whether err is the host's word against a request, after which
// the device works on: not a timeout, and not its end.
func refused(err error) bool {
	var s rndis.Status
	return errors.As(err, &s) || errors.Is(err, rndis.ErrMalformed)
}

// identify asks what the NIC is: how long its frames may be, its address, its name.
func (s *session) identify(ctx context.Context) error {
	size, err := s.query32(ctx, rndis.OIDMaximumFrameSize)
	switch {
	case err == nil && size >= MinMTU:
		s.mtu = min(s.mtu, int(min(size, MaxMTU)))
	case err != nil && !refused(err):
		return err
	}
	if err := s.setLimits(); err != nil {
		return err
	}
	b, err := s.query(ctx, rndis.OIDPermanentAddress, nil)
	if err != nil {
		return err
	}
	if s.mac, err = rndis.ParseMAC(b); err != nil {
		return fmt.Errorf("query %v: %w", rndis.OIDPermanentAddress, err)
	}
	if s.mac.IsZero() || s.mac.Multicast() {
		return fmt.Errorf("query %v: %v is not the address of a NIC", rndis.OIDPermanentAddress, s.mac)
	}
	s.address.Store(&s.mac)
	b, err = s.query(ctx, rndis.OIDFriendlyName, nil)
	if err == nil {
		s.name, _ = rndis.ParseUTF16(b) // a bad name is no name
	} else if !refused(err) {
		return err
	}
	return nil
}

// tagged is how much longer a frame may be than MTU and header.
const tagged = tagSize

// maxLarge is the longest frame that a source may leave to be cut.
const maxLarge = nic.MaxFrame + tagged

// setLimits works out what fits where, once MTU, sections and alignment are known.
func (s *session) setLimits() error {
	s.maxFrame = s.mtu + nic.HeaderLen + tagged
	rx := *s.receive.Load()
	rx.mtu = s.mtu
	s.receive.Store(&rx)
	s.limit = (s.txSectionSize - 1) &^ (s.align - 1)
	s.needRun = headroom+maxLarge > s.limit
	s.landing = headroom + s.maxFrame
	if s.landing > s.limit {
		// No section takes a frame of the MTU; half of one is worth it.
		s.landing = s.limit / 2
	}
	if s.limit < 2*(headroom+nic.HeaderLen+nic.TagLen) {
		// Sections too short to be of use: everything goes from pages.
		s.sections = newPool(nil, 0, 0)
	}
	return s.allocateRuns()
}

// prepareOffload asks what the host can do with frames, and has it do what the driver
// makes use of.
func (s *session) prepareOffload(ctx context.Context) error {
	revision := 1
	switch {
	case s.version >= nvsp.V5:
		revision = 3
	case s.version == nvsp.V4:
		revision = 2
	}
	h := rndis.HardwareOffloadQuery(revision)
	ask := make([]byte, h.Size)
	h.Append(ask[:0])
	b, err := s.query(ctx, rndis.OIDOffloadHardwareCaps, ask)
	if err != nil {
		return err
	}
	caps, err := rndis.ParseHardwareOffload(b)
	if err != nil {
		return fmt.Errorf("query %v: %w", rndis.OIDOffloadHardwareCaps, err)
	}
	s.offer(&caps)
	p := s.granted.parameters()
	size := rndis.OffloadParametersSize
	if s.version >= nvsp.V5 {
		p.RSCv4, p.RSCv6 = rndis.OffloadOff, rndis.OffloadOff
		if s.features.Load().Active.Has(nic.FeatureLRO) {
			p.RSCv4, p.RSCv6 = rndis.OffloadOn, rndis.OffloadOn
		}
	} else {
		size = rndis.OffloadParametersShort
		p.UDPv4, p.UDPv6 = rndis.ChecksumNoChange, rndis.ChecksumNoChange
	}
	return s.set(ctx, rndis.OIDOffloadParameters, p.Append(nil, size))
}

// askLink asks for the state of the link. Later changes are indicated.
func (s *session) askLink(ctx context.Context) error {
	s.n.link.forget() // what was indicated before is older than the answers
	state := nic.LinkState{Up: true}
	v, err := s.query32(ctx, rndis.OIDMediaConnectStatus)
	switch {
	case err == nil:
		state.Up = v == rndis.MediaConnected
	case !refused(err):
		return err
	}
	if s.version >= nvsp.V5 {
		v, err := s.query32(ctx, rndis.OIDLinkSpeed)
		switch {
		case err == nil:
			state.Mbps = rndis.LinkMbps(v)
		case !refused(err):
			return err
		}
	}
	s.n.link.found(state)
	return nil
}
