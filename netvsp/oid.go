package netvsp

import (
	"maps"
	"slices"

	"hvnet/nic"
	"hvnet/rndis"
)

// An oid is how an OID is answered. What an OID does not have is not supported,
// and unknown OIDs are not passed to anyone.
type oid struct {
	query func(a *adapter, in []byte) ([]byte, rndis.Status)
	set   func(a *adapter, in []byte) (change, rndis.Status)
}

// oids is the table of what this device answers. The constants are those of
// Hyper-V's virtual switch.
var oids map[rndis.OID]oid

func init() {
	oids = map[rndis.OID]oid{
		rndis.OIDSupportedList:          {query: supportedList},
		rndis.OIDHardwareStatus:         number(0), // ready
		rndis.OIDMediaSupported:         number(rndis.MediumEthernet),
		rndis.OIDMediaInUse:             number(rndis.MediumEthernet),
		rndis.OIDMaximumLookahead:       {query: mtu},
		rndis.OIDMaximumFrameSize:       {query: mtu},
		rndis.OIDCurrentLookahead:       {query: mtu, set: ignore},
		rndis.OIDLinkSpeed:              {query: linkSpeed},
		rndis.OIDTransmitBufferSpace:    number(256 << 10),
		rndis.OIDReceiveBufferSpace:     number(256 << 10),
		rndis.OIDTransmitBlockSize:      {query: frameSize},
		rndis.OIDReceiveBlockSize:       {query: frameSize},
		rndis.OIDMaximumTotalSize:       {query: frameSize},
		rndis.OIDVendorID:               number(0x155d), // 00:15:5d is Microsoft's
		rndis.OIDVendorDescription:      {query: vendor},
		rndis.OIDVendorDriverVersion:    number(0xffffffff),
		rndis.OIDDriverVersion:          {query: driverVersion},
		rndis.OIDMaximumSendPackets:     number(0xffffffff),
		rndis.OIDMACOptions:             number(0x24d), // copies lookahead data, no pending, no loopback, 802.1p and 802.1Q
		rndis.OIDMediaConnectStatus:     {query: mediaStatus},
		rndis.OIDMaxLinkSpeed:           {query: maxLinkSpeed},
		rndis.OIDLinkState:              {query: linkState},
		rndis.OIDNetworkLayerAddresses:  {set: ignore},
		rndis.OIDMulticastList:          {set: ignore}, // group frames are not filtered by address
		rndis.OIDMaximumListSize:        number(0),
		rndis.OIDFriendlyName:           {query: friendlyName},
		rndis.OIDPermanentAddress:       {query: permanentAddress},
		rndis.OIDCurrentAddress:         {query: currentAddress},
		rndis.OIDConfigParameter:        {set: configParameter},
		rndis.OIDTransmitOK:             {query: transmitOK},
		rndis.OIDReceiveOK:              {query: receiveOK},
		rndis.OIDTransmitError:          {query: transmitError},
		rndis.OIDReceiveError:           number(0), // nothing comes in broken
		rndis.OIDReceiveNoBuffer:        {query: receiveNoBuffer},
		rndis.OIDReceiveErrorAlignment:  number(0), // these three are of wires
		rndis.OIDTransmitOneCollision:   number(0),
		rndis.OIDTransmitCollisions:     number(0),
		rndis.OIDCurrentPacketFilter:    {query: packetFilter, set: setPacketFilter},
		rndis.OIDReceiveScaleCaps:       {query: rssCapabilities},
		rndis.OIDReceiveScaleParameters: {set: setRSS},
		rndis.OIDOffloadHardwareCaps:    {query: hardwareOffload},
		rndis.OIDOffloadCurrentConfig:   {query: hardwareOffload},
		rndis.OIDOffloadParameters:      {set: setOffload},
		rndis.OIDOffloadEncapsulation:   {set: setEncapsulation},
	}
}

// number is an OID that always has the same value.
func number(v uint32) oid {
	return oid{query: func(*adapter, []byte) ([]byte, rndis.Status) { return rndis.AppendUint32(nil, v), rndis.StatusSuccess }}
}

// ignore accepts a value that changes nothing here.
func ignore(*adapter, []byte) (change, rndis.Status) { return 0, rndis.StatusSuccess }

func supportedList(*adapter, []byte) (b []byte, _ rndis.Status) {
	for _, o := range slices.Sorted(maps.Keys(oids)) {
		b = rndis.AppendUint32(b, uint32(o))
	}
	return b, rndis.StatusSuccess
}

// mtu is the MTU without Ethernet header. The guest has told it, and lowers its own
// if the host's answer is smaller.
func mtu(a *adapter, _ []byte) ([]byte, rndis.Status) {
	return rndis.AppendUint32(nil, uint32(a.ctl.mtu-nic.HeaderLen)), rndis.StatusSuccess
}

func frameSize(a *adapter, _ []byte) ([]byte, rndis.Status) {
	return rndis.AppendUint32(nil, uint32(a.ctl.mtu)), rndis.StatusSuccess
}

func linkSpeed(a *adapter, _ []byte) ([]byte, rndis.Status) {
	return rndis.AppendUint32(nil, rndis.LinkSpeed(a.link.Mbps)), rndis.StatusSuccess
}

func mediaStatus(a *adapter, _ []byte) ([]byte, rndis.Status) {
	s := uint32(rndis.MediaDisconnected)
	if a.link.Up {
		s = rndis.MediaConnected
	}
	return rndis.AppendUint32(nil, s), rndis.StatusSuccess
}

func maxLinkSpeed(a *adapter, _ []byte) ([]byte, rndis.Status) {
	bps := uint64(a.link.Mbps) * 1_000_000
	b := rndis.LinkState{TxBPS: bps, RxBPS: bps}.Append(nil)
	return b[16:32], rndis.StatusSuccess
}

func linkState(a *adapter, _ []byte) ([]byte, rndis.Status) {
	bps := uint64(a.link.Mbps) * 1_000_000
	s := rndis.LinkState{Connect: rndis.LinkDisconnected, Duplex: rndis.DuplexFull, TxBPS: bps, RxBPS: bps, Pause: 1}
	if a.link.Up {
		s.Connect = rndis.LinkConnected
	}
	return s.Append(nil), rndis.StatusSuccess
}

func vendor(*adapter, []byte) ([]byte, rndis.Status) {
	return []byte("Microsoft Corporation\x00"), rndis.StatusSuccess
}

func driverVersion(*adapter, []byte) ([]byte, rndis.Status) { return []byte{0, 1}, rndis.StatusSuccess }

// friendlyName is the adapter's name. Linux shows it as alias of the interface, so
// the port's name is what helps there.
func friendlyName(a *adapter, _ []byte) ([]byte, rndis.Status) {
	const units = 256 // of the guest's buffer, terminator included
	b := rndis.AppendUTF16(nil, a.name)
	b = b[:min(len(b), 2*(units-1))]
	return append(b, 0, 0), rndis.StatusSuccess
}

func permanentAddress(a *adapter, _ []byte) ([]byte, rndis.Status) {
	return a.permanent[:], rndis.StatusSuccess
}

func currentAddress(a *adapter, _ []byte) ([]byte, rndis.Status) {
	return a.mac[:], rndis.StatusSuccess
}

// configParameter sets the MAC if the port allows it. The names of checksum and
// large-send settings, and unknown ones, are accepted and change nothing.
func configParameter(a *adapter, in []byte) (change, rndis.Status) {
	p, err := rndis.ParseConfigParameter(in)
	if err != nil {
		return 0, rndis.StatusInvalidData
	}
	if p.Name != rndis.NetworkAddress {
		return 0, rndis.StatusSuccess
	}
	m, err := p.MAC()
	mac := nic.MAC(m)
	switch {
	case err != nil || mac.Multicast() || mac.IsZero():
		return 0, rndis.StatusInvalidData
	case mac == a.mac:
		return 0, rndis.StatusSuccess
	case mac != a.permanent && !a.freeMAC:
		return 0, rndis.StatusNotSupported
	}
	a.mac = mac
	return changedMAC, rndis.StatusSuccess
}

func packetFilter(a *adapter, _ []byte) ([]byte, rndis.Status) {
	return rndis.AppendUint32(nil, a.filter), rndis.StatusSuccess
}

func setPacketFilter(a *adapter, in []byte) (change, rndis.Status) {
	f, err := rndis.ParseUint32(in)
	if err != nil {
		return 0, rndis.StatusFailure
	}
	a.filter = f
	return changedFilter, rndis.StatusSuccess
}

// setEncapsulation accepts plain Ethernet, the only encapsulation there is. Windows
// guests need the answer.
func setEncapsulation(_ *adapter, in []byte) (change, rndis.Status) {
	if h, err := rndis.ParseObjectHeader(in); err != nil || h.Type != rndis.ObjectOffloadEncapsulation || len(in) < 28 {
		return 0, rndis.StatusInvalidData
	}
	return 0, rndis.StatusSuccess
}
