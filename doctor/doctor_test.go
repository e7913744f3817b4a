package doctor

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the reports of testdata and docs/doctor.md anew")

// TestMachines examines what was recorded of machines: testdata/NAME.json, as
// hvnet doctor --facts writes it, gives the report NAME.txt.
func TestMachines(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("recorded machines: %d, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			f := load(t, file)
			var b bytes.Buffer
			WriteText(&b, f, Examine(f))
			golden(t, strings.TrimSuffix(file, ".json")+".txt", b.String())
		})
	}
}

func load(t *testing.T, file string) *Facts {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	f := new(Facts)
	if err := d.Decode(f); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return f
}

// golden compares a text with a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (-update writes it anew): got\n%s\nwant\n%s", file, got, want)
	}
}

// well returns a machine on Azure with an interface and its virtual function, at which
// there is nothing to find.
func well() *Facts {
	return &Facts{
		Machine: Machine{Kernel: "6.8.0-1017-azure", Release: "6.8.12", CPUs: 8, Azure: true, VMBus: "5.3", SNMP: map[string]uint64{}},
		Interfaces: []Interface{{
			Name: "eth0", Up: true, Link: true, MTU: 1500, MAC: "00:22:48:01:02:03", Burnt: "00:22:48:01:02:03", Driver: "hv_netvsc", Version: "6.8.0",
			Channels: 8, MaxChannels: 8, RxSections: 9362, TxSections: 170, MaxRx: 18139, MaxTx: 2560, RSSEntries: 128, RSSChannels: 8,
			Hash:     map[string]string{"tcp4": "L4", "tcp6": "L4", "udp4": "L4", "udp6": "L4"},
			Features: []string{"rx-lro", "rx-gro", "rx-checksum", "tx-tcp-segmentation"},
			Counters: map[string]uint64{"tx_queue_0_packets": 5000, "vf_tx_packets": 90000, "vf_rx_packets": 80000},
			Received: 80000, Sent: 95000, Device: "00224801-0203-0022-4801-020300224801",
			Places: []Place{{21, 0}, {22, 1}, {23, 2}, {24, 3}, {25, 4}, {26, 5}, {27, 6}, {28, 7}},
			VF:     &Neighbour{Name: "enP1s1", Driver: "mlx5_core", Bus: "0001:00:02.0", MTU: 1500, Up: true, Slave: true},
		}},
	}
}

// cases has for every rule machines at which it has something to say, and how bad that is.
var cases = []struct {
	rule     string
	severity Severity
	ill      func(*Facts, *Interface)
	text     string // in the sentence
	mend     string // in the command
}{
	{"no-link", Warning, func(_ *Facts, i *Interface) { i.Link = false }, "no link", "Connect-VMNetworkAdapter"},
	{"no-link", Warning, func(_ *Facts, i *Interface) { i.Link, i.Ours = false, true }, "no link", "hvnet host ctl"},
	{"address-changed", Warning, func(_ *Facts, i *Interface) { i.MAC = "02:00:00:00:00:01" }, "drops all it sends", "ip link set eth0 address 00:22:48:01:02:03"},
	{"spoofing", Warning, func(_ *Facts, i *Interface) { i.Master = &Neighbour{Name: "br0", Kind: "bridge", MTU: 1500} }, "bridge br0", "ipvlan"},
	{"spoofing", Warning, func(f *Facts, i *Interface) {
		f.Machine.Azure = false
		i.Uppers = []Neighbour{{Name: "m0", Kind: "macvlan", MTU: 1500}}
	}, "macvlan m0", "Set-VMNetworkAdapter"},
	{"spoofing", Warning, func(_ *Facts, i *Interface) { i.Ours, i.Master = true, &Neighbour{Name: "br0", Kind: "bridge"} }, "br0", "--allow-spoofing"},
	{"mtu-upper", Warning, func(_ *Facts, i *Interface) { i.Uppers = []Neighbour{{Name: "v7", Kind: "vlan", MTU: 9000}} }, "v7 has MTU 9000", "ip link set v7 mtu 1500"},
	{"mtu-upper", Warning, func(_ *Facts, i *Interface) { i.Master = &Neighbour{Name: "bond0", Kind: "bond", MTU: 9000} }, "bond0", "bond0 mtu 1500"},
	{"mtu-vf", Warning, func(_ *Facts, i *Interface) { i.VF.MTU = 3900 }, "3900", "ip link set enP1s1 mtu 1500"},

	{"channels-few", Advice, func(_ *Facts, i *Interface) { i.Channels = 4; i.RSSChannels = 4; i.Places = i.Places[:4] }, "could have 8", "ethtool -L eth0 combined 8"},
	{"channels-many", Advice, func(f *Facts, i *Interface) { f.Machine.CPUs = 6 }, "8 channels on 6", "ethtool -L eth0 combined 6"},
	{"channels-crowded", Advice, func(_ *Facts, i *Interface) { i.Places[4].CPU = 0 }, "8 channels of eth0 share 7 processors, of 8", "echo 4 >/sys/bus/vmbus/devices/00224801-0203-0022-4801-020300224801/channels/25/cpu"},
	{"channels-crowded", Advice, func(_ *Facts, i *Interface) { i.Ours, i.Places[4].CPU = true, 0 }, "share 7 processors", "hvnet channels eth0 --move 4:4"},
	{"rss-uneven", Advice, func(_ *Facts, i *Interface) { i.RSSChannels = 1 }, "1 of its 8", "ethtool -X eth0 equal 8"},
	{"offload-off", Advice, func(_ *Facts, i *Interface) { i.Off = []string{"rx-gro-list", "tx-tcp-segmentation", "rx-gro"} }, "tso, gro is", "ethtool -K eth0 tso on gro on"},
	{"lro-router", Warning, func(f *Facts, _ *Interface) { f.Machine.Forward = true }, "router", "ethtool -K eth0 lro off"},
	{"lro-xdp", Warning, func(_ *Facts, i *Interface) { i.XDP = "generic" }, "generic mode", "ethtool -K eth0 lro off"},
	{"monitor", Note, func(_ *Facts, i *Interface) { i.Monitor = "5" }, "bit 5", ""},

	{"udp-hash", Advice, func(f *Facts, _ *Interface) { f.Machine.SNMP["IpFragCreates"] = 3 }, "3 fragments", "ethtool -N eth0 rx-flow-hash udp4 sd"},
	{"udp-hash", Warning, func(f *Facts, i *Interface) {
		i.Ours = true
		f.Machine.SNMP["Ip6FragCreates"], f.Machine.SNMP["Ip6ReasmFails"] = 3, 1
	}, "1 datagram", "hvnet ethtool -N eth0 rx-flow-hash udp6 sd"},
	{"fragments-lost", Warning, func(f *Facts, i *Interface) {
		i.Hash["udp4"] = "L3"
		f.Machine.SNMP["IpReasmReqds"], f.Machine.SNMP["IpReasmFails"] = 3000, 1
	}, "1 datagram could not", "nstat"},
	{"fragments-refused", Advice, func(f *Facts, _ *Interface) { f.Machine.SNMP["IpFragFails"] = 1 }, "1 packet of", "tcp_mtu_probing"},

	{"send-sections", Advice, func(_ *Facts, i *Interface) { i.Counters["tx_send_full"] = 51 }, "51 frames of 5000", "ethtool -G eth0 tx 340"},
	{"send-sections", Note, func(_ *Facts, i *Interface) { i.Counters["tx_send_full"] = 50 }, "harmless", ""},
	{"send-sections", Note, func(_ *Facts, i *Interface) { i.Counters["tx_send_full"] = 5000; i.TxSections = 2560 }, "harmless", ""},
	{"completions-late", Warning, func(_ *Facts, i *Interface) { i.Counters["rx_comp_busy"] = 1 }, "1 time", "ring_size"},
	{"completions-late", Warning, func(_ *Facts, i *Interface) { i.Counters["rx_comp_busy"] = 1; i.MaxChannels = 64; i.Channels = 2 }, "1 time", "ethtool -L eth0 combined 8"},
	{"ring-full", Advice, func(_ *Facts, i *Interface) { i.Counters["stop_queue"] = 6; i.Channels = 4 }, "6 times", "combined 8"},
	{"receive-drops", Warning, func(_ *Facts, i *Interface) { i.Dropped = 81 }, "81 of 80000", "ethtool -G eth0 rx 18139"},
	{"receive-drops", Warning, func(_ *Facts, i *Interface) { i.Dropped = 81; i.RxSections = i.MaxRx }, "81 of", "nstat"},
	{"send-failed", Warning, func(_ *Facts, i *Interface) { i.Counters["tx_no_space"] = 7 }, "tx_no_space counts: 7", "free"},
	{"too-big", Warning, func(_ *Facts, i *Interface) { i.Counters["tx_too_big"] = 7 }, "tx_too_big", "MTU"},
	{"receive-memory", Warning, func(_ *Facts, i *Interface) { i.Counters["rx_no_memory"] = 7 }, "rx_no_memory", "min_free"},
	{"checksum", Warning, func(_ *Facts, i *Interface) { i.Counters["rx_checksum_bad"] = 7 }, "rx_checksum_bad", "InCsumErrors"},
	{"vlan-damaged", Warning, func(_ *Facts, i *Interface) { i.Counters["vlan_error"] = 7 }, "vlan_error", "tcpdump"},
	{"host-refused", Fault, func(_ *Facts, i *Interface) { i.Counters["host_refused"] = 7 }, "host_refused", "dmesg"},
	{"host-broken", Fault, func(_ *Facts, i *Interface) { i.Counters["host_bad_message"] = 7 }, "host_bad_message", "report"},
	{"send-refused", Fault, func(_ *Facts, i *Interface) { i.Refused = 2 }, "2 times", "full-upgrade"},

	{"vf-none", Advice, func(_ *Facts, i *Interface) { i.VF = nil }, "is off", "--accelerated-networking true"},
	{"vf-alone", Fault, func(_ *Facts, i *Interface) { i.VF.Slave = false }, "enP1s1 (mlx5_core, 0001:00:02.0) has the address of eth0", "rescan"},
	{"vf-down", Warning, func(_ *Facts, i *Interface) { i.VF.Up = false }, "enP1s1 is down", "ip link set enP1s1 up"},
	{"vf-idle", Warning, func(_ *Facts, i *Interface) { i.Counters["vf_tx_packets"] = 0 }, "none of 5000 frames", "enP1s1"},
	{"vf-announced", Note, sriov(SRIOV{}), "does not ask", ""},
	{"vf-announced", Note, sriov(SRIOV{Wanted: true}), "NVSP 1", ""},
	{"vf-announced", Note, sriov(SRIOV{Wanted: true, Announced: true}), "given it no virtual function (", ""},
	{"vf-missing", Warning, sriov(SRIOV{Wanted: true, Announced: true, Associated: true, Serial: 9}), "function 9, and no device here has its address 00:22:48:01:02:03", "ip link"},
	{"vf-carrier", Warning, sriov(SRIOV{Wanted: true, Announced: true, Associated: true, Device: true, Up: true}), "enP1s1 has no carrier", ""},
	{"vf-unwilling", Warning, sriov(SRIOV{Wanted: true, Announced: true, Associated: true, Device: true, Up: true, Carrier: true, Unwilling: true}), "does not move", "hvnet vf timeline eth0"},
	{"vf-unwilling", Note, sriov(SRIOV{Wanted: true, Announced: true, Associated: true, Device: true, Up: true, Carrier: true, Resting: true}), "left alone", "hvnet vf timeline eth0"},
	{"vf-address", Warning, func(_ *Facts, i *Interface) { i.VF.Addresses = []string{"10.0.0.4/24"} }, "10.0.0.4/24", "ip addr flush dev enP1s1"},
	{"vf-switches", Advice, func(_ *Facts, i *Interface) { i.Switches = 900 }, "900 times", "dmesg"},
	{"vf-switches", Advice, func(_ *Facts, i *Interface) { i.Ours, i.Switches = true, 900 }, "900 times", "hvnet vf timeline eth0"},

	{"uio-oops", Fault, func(f *Facts, _ *Interface) { f.Machine.UIO, f.Machine.Release = true, "6.1.158" }, "takes it down", "full-upgrade"},
	{"uio-hang", Warning, func(f *Facts, _ *Interface) { f.Machine.UIODevices = []string{"guid"} }, "guid: it may lose a wakeup", "full-upgrade"},
	{"uio-rescind", Warning, func(f *Facts, _ *Interface) { f.Machine.UIO, f.Machine.Release = true, "6.6.50" }, "may fall", "full-upgrade"},
	{"uio-slow", Note, func(f *Facts, _ *Interface) { f.Machine.UIO = true }, "monitor page", ""},
}

// sriov has a driver of ours know so much of its virtual function.
func sriov(s SRIOV) func(*Facts, *Interface) {
	return func(f *Facts, i *Interface) {
		f.Machine.Azure = false
		i.Ours, i.SRIOV, i.Host = true, &s, map[string]string{"NVSP": "1"}
		if !s.Device {
			i.VF = nil
		}
	}
}

// companion has the rules that may speak beside another one: fewer channels are what some
// need to have something to say.
var companion = map[string]bool{"vf": true, "channels-few": true}

func TestRules(t *testing.T) {
	for _, c := range cases {
		f := well()
		c.ill(f, &f.Interfaces[0])
		all := Examine(f)
		k := slices.IndexFunc(all, func(x Finding) bool { return x.Rule == c.rule })
		if k < 0 {
			t.Errorf("%s: nothing found but %+v", c.rule, all)
			continue
		}
		x := all[k]
		if x.Severity != c.severity || !strings.Contains(x.Text, c.text) || !strings.Contains(x.Mend, c.mend) || (c.mend == "") != (x.Mend == "") {
			t.Errorf("%s: found %+v, want %v, %q, %q", c.rule, x, c.severity, c.text, c.mend)
		}
		for _, other := range all {
			if other.Rule != c.rule && !companion[other.Rule] && !strings.HasPrefix(other.Rule, "uio-") {
				t.Errorf("%s: found besides %+v", c.rule, other)
			}
		}
	}
}

// TestWell: a machine in order has no finding but that accelerated networking is on, and
// every rule has a case in which it speaks.
func TestWell(t *testing.T) {
	all := Examine(well())
	if len(all) != 1 || all[0].Rule != "vf" || Worst(all) != Note {
		t.Errorf("found %+v", all)
	}
	spoken := map[string]Severity{"vf": Note}
	for _, c := range cases {
		spoken[c.rule] = max(spoken[c.rule], c.severity)
	}
	names := map[string]bool{}
	for _, r := range Rules() {
		if s, ok := spoken[r.Name]; !ok || s != r.Severity {
			t.Errorf("rule %s, a %v: cases have it at %v, %v", r.Name, r.Severity, s, ok)
		}
		if names[r.Name] || !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(r.Name) || !strings.HasSuffix(r.Text, ".") || !strings.HasSuffix(r.Why, ".") {
			t.Errorf("rule %+v", r)
		}
		names[r.Name] = true
	}
}

// TestOwnVF: of a driver that tells what it knows it is believed which path it uses.
func TestOwnVF(t *testing.T) {
	f := well()
	sriov(SRIOV{Wanted: true, Announced: true, Associated: true, Device: true, Up: true, Carrier: true, Active: true})(f, &f.Interfaces[0])
	f.Interfaces[0].Counters["vf_tx_packets"] = 0
	if all := Examine(f); len(all) != 1 || all[0].Rule != "vf" || !strings.Contains(all[0].Text, "enP1s1 (mlx5_core, 0001:00:02.0) is its virtual function and up") {
		t.Errorf("found %+v", all)
	}
}

// TestAwayFromHost: a driver that has lost its host, or sleeps, has announced nothing to it. The
// host's version is not the reason.
func TestAwayFromHost(t *testing.T) {
	for _, version := range []string{"5", "6", "6.1"} {
		f := well()
		sriov(SRIOV{Wanted: true})(f, &f.Interfaces[0])
		f.Interfaces[0].Link, f.Interfaces[0].Host["NVSP"] = false, version
		if all := Examine(f); len(all) != 1 || all[0].Rule != "no-link" {
			t.Errorf("NVSP %s: found %+v", version, all)
		}
	}
}

// TestCure: a driver that keeps fragments together may tell flows apart by ports.
func TestCure(t *testing.T) {
	f := well()
	f.Machine.SNMP["IpFragCreates"] = 3
	f.Interfaces[0].Cure = true
	if all := Examine(f); len(all) != 1 {
		t.Errorf("found %+v", all)
	}
}

// TestEmpty: of what is not known nothing is said but what that means.
func TestEmpty(t *testing.T) {
	if all := Examine(&Facts{Interfaces: []Interface{{Name: "eth0"}}}); len(all) != 0 {
		t.Errorf("found %+v", all)
	}
}

func TestExitStatus(t *testing.T) {
	for s, want := range map[Severity]int{Note: 0, Advice: 3, Warning: 4, Fault: 5} {
		if got := s.ExitStatus(); got != want {
			t.Errorf("%v: %d, want %d", s, got, want)
		}
	}
}

// TestOrder: the machine first, then interface by interface, the worst first.
func TestOrder(t *testing.T) {
	f := well()
	f.Machine.SNMP["IpFragFails"] = 1
	f.Interfaces[0].Counters["host_refused"] = 1
	f.Interfaces[0].VF.MTU = 9000
	f.Interfaces = append(f.Interfaces, f.Interfaces[0])
	f.Interfaces[1].Name = "eth1"
	var got []string
	for _, x := range Examine(f) {
		got = append(got, x.Interface+" "+x.Rule)
	}
	want := []string{" fragments-refused", "eth0 host-refused", "eth0 mtu-vf", "eth0 vf", "eth1 host-refused", "eth1 mtu-vf", "eth1 vf"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := f.Keep([]string{"eth1"}); err != nil || len(f.Interfaces) != 1 || f.Interfaces[0].Name != "eth1" {
		t.Errorf("%v, left %v", err, f.Interfaces)
	}
	if err := f.Keep([]string{"eth7"}); err == nil {
		t.Error("an interface that there is not is kept")
	}
}

func TestJSON(t *testing.T) {
	f := well()
	var b bytes.Buffer
	if err := WriteJSON(&b, f, Examine(f)); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Severity string
		Findings []struct{ Severity, Rule, Text string }
		Facts    Facts
	}
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if back.Severity != "note" || len(back.Findings) != 1 || back.Findings[0].Rule != "vf" || back.Facts.Machine.CPUs != 8 {
		t.Errorf("%s", &b)
	}
	b.Reset()
	if err := WriteJSON(&b, &Facts{}, nil); err != nil || !strings.Contains(b.String(), `"findings": []`) {
		t.Errorf("%v, %s", err, &b)
	}
}

// TestDoc: docs/doctor.md has the table of rules.
func TestDoc(t *testing.T) {
	const path, head = "../docs/doctor.md", "| rule |"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(page), head)
	var b strings.Builder
	b.WriteString(before + head + " worst | says something if | why |\n|---|---|---|---|\n")
	for _, r := range Rules() {
		fmt.Fprintf(&b, "| `%s` | %v | %s | %s |\n", r.Name, r.Severity, r.Text, r.Why)
	}
	golden(t, path, b.String())
}
