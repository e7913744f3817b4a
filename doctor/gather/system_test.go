package gather

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	"hvnet/doctor"
)

// tree makes a file system of files and links: a content that begins with -> is where a
// link leads.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(content) > 2 && content[:2] == "->" {
			err = os.Symlink(content[2:], path)
		} else {
			err = os.WriteFile(path, []byte(content+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	nicGUID = "f2ff183c-f332-712b-2977-8789ccff19b3"
	uioGUID = "00224801-0203-0022-4801-020300224801"
)

func azure(t *testing.T) *collector {
	return &collector{
		root: tree(t, map[string]string{
			"proc/sys/kernel/osrelease":                                "6.1.0-40-cloud-amd64",
			"proc/sys/kernel/version":                                  "#1 SMP PREEMPT_DYNAMIC Debian 6.1.158-1 (2025-11-09)",
			"sys/devices/system/cpu/online":                            "0-2,5",
			"sys/class/dmi/id/chassis_asset_tag":                       azureTag,
			"proc/sys/net/ipv4/ip_forward":                             "0",
			"proc/sys/net/ipv6/conf/all/forwarding":                    "1",
			"proc/net/snmp":                                            "Ip: Forwarding ReasmReqds ReasmFails FragCreates\nIp: 2 30 4 5\nIcmp: InMsgs\nIcmp: 0",
			"proc/net/snmp6":                                           "Ip6InReceives  \t9\nIp6ReasmFails \t7\nIcmp6InMsgs 3",
			"sys/bus/vmbus/drivers/uio_hv_generic/new_id":              "",
			"sys/bus/vmbus/drivers/uio_hv_generic/" + uioGUID:          "->../../devices/" + uioGUID,
			"sys/class/net/eth0/ifindex":                               "2",
			"sys/class/net/eth0/device":                                "->../../../" + nicGUID,
			"sys/bus/vmbus/devices/" + nicGUID + "/channel_vp_mapping": "21:1\n30:5",
			"sys/bus/vmbus/devices/" + nicGUID + "/monitor_id":         "4",
		}),
		log: "[ 0.1] Hyper-V: Host Build 10.0.20348.1129-1-0\n[ 0.2] hv_vmbus: Vmbus version:5.3\n" +
			"[ 9.1] hv_netvsc " + nicGUID + " eth0: Data path switched to VF: enP1\n" +
			"[ 9.2] hv_netvsc " + nicGUID + " eth0: Data path switched from VF: enP1\n" +
			"[ 9.3] hv_netvsc " + nicGUID + " eth1: Data path switched from VF: enP2\n" +
			"[ 9.4] hv_netvsc " + nicGUID + " eth0: nvsp_rndis_pkt_complete error status: 2\n",
	}
}

func TestMachine(t *testing.T) {
	got := azure(t).machine()
	want := doctor.Machine{
		Kernel: "6.1.0-40-cloud-amd64", Release: "6.1.158", CPUs: 4, Azure: true, VMBus: "5.3", Build: "10.0.20348.1129-1-0", Forward: true,
		SNMP: map[string]uint64{"IpReasmReqds": 30, "IpReasmFails": 4, "IpFragCreates": 5, "Ip6ReasmFails": 7},
		UIO:  true, UIODevices: []string{uioGUID},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	// Of a machine that tells nothing nothing is known.
	nothing := collector{root: t.TempDir()}
	if got, want := nothing.machine(), (doctor.Machine{CPUs: runtime.NumCPU(), SNMP: map[string]uint64{}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestDevice(t *testing.T) {
	c := azure(t)
	i := doctor.Interface{Name: "eth0"}
	c.device(3, &i) // that of another namespace
	if i.Device != "" {
		t.Errorf("the device of another interface: %+v", i)
	}
	c.device(2, &i)
	c.logged(&i)
	if want := (doctor.Interface{Name: "eth0", Device: nicGUID, Places: []doctor.Place{{Relid: 21, CPU: 1}, {Relid: 30, CPU: 5}}, Monitor: "4", Switches: 2, Refused: 1}); !reflect.DeepEqual(i, want) {
		t.Errorf("got %+v\nwant %+v", i, want)
	}
}

func TestMainline(t *testing.T) {
	for _, c := range []struct{ release, version, signature, want string }{
		{"6.1.0-56-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-10-01)", "", "6.1.192"},
		{"5.15.0-91-generic", "#101-Ubuntu SMP", "Ubuntu 5.15.0-91.101-generic 5.15.131", "5.15.131"},
		{"6.18.44-azl", "#1 SMP", "", "6.18.44"},
		{"5.14.0-427.el9.x86_64", "#1 SMP", "", "5.14.0"},
		{"next", "", "", ""},
	} {
		if got := mainline(c.release, c.version, c.signature); got != c.want {
			t.Errorf("%s: %q, want %q", c.release, got, c.want)
		}
	}
}

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-63": 64, "0-3,6,8-9": 7, "": runtime.NumCPU(), "3-1": runtime.NumCPU(), "x": runtime.NumCPU()} {
		if got := countCPUs(list); got != want {
			t.Errorf("%q: %d, want %d", list, got, want)
		}
	}
}
