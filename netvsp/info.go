package netvsp

import (
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/vmbus"
)

// A Stage is how far a guest has come in bringing its NIC up.
type Stage string

// The stages, in order.
const (
	StageClosed  Stage = "closed"         // the primary channel is not open
	StageOpen    Stage = "channel open"   // no NVSP version yet
	StageNVSP    Stage = "nvsp"           // version negotiated
	StageBuffers Stage = "receive buffer" // the receive buffer is there
	StageRNDIS   Stage = "rndis"          // RNDIS is initialized: the guest may send
	StageUp      Stage = "up"             // the packet filter is set: frames go both ways
)

// Info describes a device for people.
type Info struct {
	Name    string
	MAC     nic.MAC // current address
	Profile string
	Stage   Stage
	// Opened is how often guests have opened the device: one that takes its NIC
	// apart to change settings, or gets it back after a rescind, does so again.
	Opened uint64

	VMBus           vmbus.Version // 0 while closed
	NVSP            nvsp.Version  // 0 before it is negotiated
	NDIS            nvsp.NDISVersion
	MTU             int // without Ethernet header
	Channels        int // open
	ReceiveSections int
	SendSections    int
	// Receive says where the receive sections are: in flight are those that the guest
	// has at this moment.
	Receive          nic.Account
	RSS              bool
	Filter           uint32
	Link             nic.LinkState
	VF               VFInfo // the virtual function beside the NIC
	Stats            Stats
	Queues           []Stats         // of the open channels, since they were opened
	Faults, Failures uint64          // rules that guests broke; sends answered with failure
	Wakeups          uint64          // of the goroutines of all channels
	Signals          uint64          // doorbells rung at the guest, of the open channels
	TxDropped        map[Drop]uint64 // frames from the guest
	RxDropped        map[Drop]uint64 // frames for the guest
}

// Stats counts frames: Tx from the guest, Rx to it.
type Stats struct{ TxFrames, TxBytes, RxFrames, RxBytes uint64 }

func (c *counters) stats() Stats {
	return Stats{c.txFrames.Load(), c.txBytes.Load(), c.rxFrames.Load(), c.rxBytes.Load()}
}

// Info describes the device as it is now. Totals are of all guests that have had it.
// If Opened is larger than before, so is the Stage of a later session.
func (d *Device) Info() Info {
	info := Info{Name: d.cfg.Name, MAC: d.cfg.MAC, Profile: d.cfg.Profile.Name, Stage: StageClosed, Link: d.Link(),
		Opened: d.opened.Load(), TxDropped: map[Drop]uint64{}, RxDropped: map[Drop]uint64{}}
	var sum counters
	d.lost.addTo(&sum)
	s := d.live.Load()
	var sriov bool
	if s != nil {
		sriov = s.info(&info, &sum)
	}
	info.VF = d.function.info(d.cfg.SRIOV, sriov, s)
	info.Stats = sum.stats()
	info.Faults, info.Failures, info.Wakeups = sum.faults.Load(), sum.txFailed.Load(), sum.wakeups.Load()
	for i := range sum.txDropped {
		if n := sum.txDropped[i].Load(); n > 0 {
			info.TxDropped[Drop(i)] = n
		}
		if n := sum.rxDropped[i].Load(); n > 0 {
			info.RxDropped[Drop(i)] = n
		}
	}
	return info
}

// Stats returns the frames and bytes of all guests that have had the device.
func (d *Device) Stats() Stats { return d.Info().Stats }

// info adds what is of the session, and returns whether its guest has asked for SR-IOV.
func (s *session) info(info *Info, sum *counters) (sriov bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.ctl
	info.MAC, info.VMBus, info.NVSP, info.NDIS = s.rndis.mac, s.bus.Version(), c.version, c.ndis
	info.Link, info.Filter = s.rndis.link, s.rndis.filter
	info.RSS = len(s.steer.Load().table) > 0
	info.ReceiveSections, info.SendSections = s.receive.count, s.send.count
	info.Receive = nic.Account{What: "receive sections", Total: s.receive.count}
	if c.mtu > 0 {
		info.MTU = c.mtu - nic.HeaderLen
	}
	switch {
	case s.rndis.initialized && s.rndis.filter != 0:
		info.Stage = StageUp
	case s.rndis.initialized:
		info.Stage = StageRNDIS
	case c.started():
		info.Stage = StageBuffers
	case c.version != 0:
		info.Stage = StageNVSP
	default:
		info.Stage = StageOpen
	}
	if s.pool != nil {
		info.Receive.Free = s.pool.idle()
	}
	for _, q := range s.queues {
		if q == nil {
			continue
		}
		info.Channels++
		q.ch.Lock()
		info.Receive.InFlight += q.data.given + q.control.given
		info.Receive.Free += len(q.data.free) + len(q.control.free)
		q.ch.Unlock()
		info.Signals += q.ch.Stats().Signals
		info.Queues = append(info.Queues, q.count.stats())
		q.count.addTo(sum)
	}
	return c.sriov()
}
