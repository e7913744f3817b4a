package profile

import (
	"slices"
	"strings"
	"testing"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

func TestTable(t *testing.T) {
	for _, w := range []struct {
		name    string
		bus     vmbus.Version
		nvsp    nvsp.Version
		ndis    string
		section int // for 1514
		receive int
		chans   int
		rss     int
		mbps    uint32
	}{
		{"ws2008r2", vmbus.Version2_4, nvsp.V2, "6.1", 1728, 15 << 20, 1, 0, 10000},
		{"ws2012", vmbus.Version2_4, nvsp.V4, "6.1", 1728, 31 << 20, 1, 0, 10000},
		{"ws2012r2", vmbus.Version3_0, nvsp.V5, "6.30", 1728, 31 << 20, 64, 128, 10000},
		{"ws2016", vmbus.Version4_0, nvsp.V6, "6.30", 1728, 31 << 20, 64, 128, 10000},
		{"win10", vmbus.Version5_1, nvsp.V6, "6.30", 1728, 31 << 20, 64, 128, 10000},
		{"ws2019", vmbus.Version5_2, nvsp.V61, "6.30", 1806, 31 << 20, 64, 128, 10000},
		{"ws2022", vmbus.Version5_3, nvsp.V61, "6.30", 1806, 31 << 20, 64, 128, 10000},
		{"azure", vmbus.Version6_0, nvsp.V61, "6.30", 1806, 31 << 20, 64, 128, 50000},
	} {
		p, err := Lookup(w.name)
		if err != nil {
			t.Error(err)
			continue
		}
		if p.Name != w.name || p.VMBus[0] != w.bus || p.NVSP[0] != w.nvsp || p.NDIS.String() != w.ndis ||
			p.ReceiveSectionSize(1514) != w.section || p.SendSectionSize != 6144 || p.MaxReceiveBuffer != w.receive ||
			p.MaxChannels != w.chans || p.RSSEntries != w.rss || p.LinkMbps != w.mbps {
			t.Errorf("%+v\nwant %+v", p, w)
		}
	}
	if !slices.Contains(Names(), Default) {
		t.Errorf("the default %q is not in %v", Default, Names())
	}
}

// What holds for every release.
func TestCoherent(t *testing.T) {
	for _, name := range Names() {
		p, err := Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		check := func(ok bool, what string) {
			if !ok {
				t.Errorf("%s: %s: %+v", name, what, p)
			}
		}
		check(p.Name == name && p.Release != "", "names")
		check(slices.IsSortedFunc(p.VMBus, func(a, b vmbus.Version) int { return int(b) - int(a) }), "VMBus versions newest first")
		check(slices.IsSortedFunc(p.NVSP, func(a, b nvsp.Version) int { return int(b) - int(a) }), "NVSP versions newest first")
		check(slices.Contains(p.VMBus, vmbus.Version2_4), "today's oldest guests can connect")
		check(slices.Contains(p.NVSP, nvsp.V1), "the oldest guests are served")
		check((p.MaxChannels == 1) == (p.NVSP[0] < nvsp.V5), "sub-channels come with version 5")
		check((p.RSSEntries > 0) == (p.MaxChannels > 1), "a table where there is something to choose")
		check(p.DataOffset >= rndis.MaxPacketHeader, "header and PPIs fit in front of the frame")
		for _, mtu := range []int{1514, 9216, 65535} {
			check(p.ReceiveSectionSize(mtu) >= p.DataOffset+mtu, "a frame of the MTU fits into a section")
		}
		check(p.SendSectionSize >= nvsp.MinSection && p.SendSectionSize%4 == 0, "guests accept the section size")
		check(p.MaxReceiveBuffer <= p.NVSP[0].MaxReceiveBuffer(), "no guest asks for more")
		packets, align := rndis.InitializeComplete{MaxPackets: p.MaxPackets, AlignmentFactor: p.AlignmentFactor}.Batch()
		check(packets == int(p.MaxPackets) && align == 1<<p.AlignmentFactor, "guests use the limits as they are")
		check(p.MaxTransfer > uint32(p.SendSectionSize), "a whole section can be sent")
		check(p.UDPByAddress == (p.NVSP[0] < nvsp.V61) && p.FragmentsFirst == p.UDPByAddress, "the ports of UDP count since 2019")
		check(p.LinkMbps > 0, "the link has a speed")
		check((p.FragmentSkew > 0) == (name == "azure"), "where fragments get lost")
	}
}

func TestUnknown(t *testing.T) {
	_, err := Lookup("ws2003")
	if err == nil {
		t.Fatal("ws2003 was found")
	}
	for _, s := range append(Names(), `"ws2003"`) {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not mention %s", err, s)
		}
	}
}

// A profile is the caller's own: changing it changes no other.
func TestLookupIsFresh(t *testing.T) {
	a, _ := Lookup(Default)
	a.VMBus[0], a.NVSP[0] = 0, 0
	b, _ := Lookup(Default)
	if b.VMBus[0] == 0 || b.NVSP[0] == 0 {
		t.Error("Lookup returned shared slices")
	}
}
