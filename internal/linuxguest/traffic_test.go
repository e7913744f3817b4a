package linuxguest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hvnet/internal/lab"
	"hvnet/internal/linuxguest"
	"hvnet/internal/need"
)

// Stock Linux, a guest of ours and the gateway on one switch: everybody reaches
// everybody, and TCP between the two guests is whole at full speed: checksums are right
// at both ends.
func TestTraffic(t *testing.T) {
	need.Root(t)
	for _, tool := range []string{"ip", "ping", "iperf3", "tcpdump"} {
		need.Tool(t, tool)
	}
	// A host that does not coalesce: joined frames have no checksum of their own.
	b := newLifeboat(t, linuxguest.Machine{Kernel: "6.1"}, "--profile", "ws2016")
	b.Run(t, "ip link set eth0 up && ip addr replace 198.18.0.9/24 dev eth0")
	ns, err := lab.NewNetns()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	ours, err := lab.Spawn("up", b.dir, append(os.Environ(), "HVNET_RUNTIME_DIR="+b.dir),
		ns.In(b.hvnet, "up", filepath.Join(b.dir, "s"), "--name", "ours", "--addr", "198.18.0.20/24"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ours.Kill)
	lab.Await(t, ours, "^eth0 up")

	b.Run(t, "ping -q -c 3 -i 0.2 -w 20 198.18.0.1 && ping -q -c 3 -i 0.2 -w 20 198.18.0.20")
	for _, to := range []string{"198.18.0.9", "198.18.0.1"} {
		lab.Run(t, ns.In("ping", "-q", "-c", "3", "-i", "0.2", "-w", "20", to)...)
	}

	// Nor may GRO join any.
	b.Run(t, "ethtool -K eth0 gro off")
	off := append([]string{"env", "HVNET_RUNTIME_DIR=" + b.dir}, b.hvnet, "ethtool", "-K", "eth0", "gro", "off")
	lab.Run(t, ns.In(off...)...)
	b.Run(t, "echo root:x:0:0::/:/bin/sh >/etc/passwd; iperf3 -s -D && sleep 1")
	for _, direction := range []string{"", "-R"} {
		watch, err := lab.Spawn("tcpdump", b.dir, nil, ns.In("tcpdump", "-l", "-nvvi", "eth0", "-Q", "in", "-c", "500", "tcp"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(watch.Kill)
		lab.Await(t, watch, "listening on")
		b.Run(t, "(tcpdump -Z root -l -nvvi eth0 -Q in -c 500 tcp >/tmp/dump 2>&1) & true")
		// No more under way than the ring of the slower guest holds: what is lost there
		// is TCP's way to find out.
		client, err := lab.Spawn("iperf3", b.dir, nil, ns.In(strings.Fields("iperf3 -c 198.18.0.9 -C cubic -f m -w 200K -t "+fmt.Sprint(seconds())+" "+direction)...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Kill)
		if err := client.AwaitFor(t.Context(), seconds()+30, "iperf Done"); err != nil {
			t.Fatal(err)
		}
		out, _ := client.Output()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "receiver") {
				t.Logf("%s: %s", direction, line)
			}
		}
		lab.Await(t, watch, "packets captured|500 packets")
		here, _ := watch.Output()
		there := b.Run(t, "lgv_wait 20 '! pidof tcpdump'; grep -c cksum /tmp/dump; grep -c incorrect /tmp/dump; true")
		if n := strings.Count(string(here), "cksum"); n == 0 || strings.Contains(string(here), "incorrect") || there != "500\n0" {
			t.Errorf("checksums: %d captured here; there, with those that are wrong, %q:\n%.2000s", n, there, here)
		}
	}
	ports := string(lab.Run(t, b.hvnet, "host", "ctl", filepath.Join(b.dir, "s"), "ports"))
	t.Logf("\n%s", ports)
	dropped := strings.Index(ports, "DROPPED")
	for line := range strings.Lines(ports) {
		if name := strings.Fields(line)[0]; (name == "linux" || name == "ours") && strings.TrimSpace(line[dropped:]) != "0" {
			t.Errorf("frames were lost: %s", line)
		}
	}
	b.Stop(t)
}

// seconds returns for how long each direction of a stream is measured.
func seconds() int {
	if os.Getenv("HVNET_LONG") == "1" {
		return 30
	}
	return 10
}
