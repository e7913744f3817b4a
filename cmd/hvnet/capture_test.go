package main

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hvnet/internal/lab"
	"hvnet/internal/need"
)

// datagram sends one datagram between two namespaces.
func datagram(from, to *lab.Netns, addr string) error {
	var c net.PacketConn
	if err := within(to, func() (err error) {
		c, err = net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	if err := within(from, func() error {
		out, err := net.Dial("udp", c.LocalAddr().String())
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = out.Write(make([]byte, 1000))
		return err
	}); err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(lab.Patience))
	_, _, err := c.ReadFrom(make([]byte, 2000))
	return err
}

// TestCaptureByTshark captures real traffic at both halves of NICs and has Wireshark's
// own reader judge: no packet is malformed, each has its direction, and all kinds are
// there, as long as they were.
func TestCaptureByTshark(t *testing.T) {
	needPair(t)
	tshark := need.Tool(t, "tshark")
	p := lab.NewPairOn(t, "hvnet", []string{"--gateway", "198.18.2.254/24"})
	six := "fd00:5d:2::2"
	for i, ns := range p.NS {
		lab.Run(t, "ip", "-n", ns.Name, "addr", "add", fmt.Sprintf("fd00:5d:2::%d/64", i+1), "dev", "eth0", "nodad")
	}
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	guest := p.Start(t, "capture of eth0", p.NS[0].In("hvnet", "capture", "-i", "eth0", "-w", file("eth0"))...)
	far := p.Start(t, "capture of guest1", "hvnet", "host", "ctl", p.Socket, "capture", "guest1", "-w", file("guest1"))
	late := p.Start(t, "capture of late", "hvnet", "host", "ctl", p.Socket, "capture", "late", "--protocol", "--snaplen", "300", "-w", file("late"))
	lab.Await(t, guest, "^capturing on eth0$")
	lab.Await(t, far, "^capturing on port guest1$")
	lab.Await(t, late, "^no port late yet: waiting for it$")
	lab.Await(t, late, "^capturing on port late$")

	third := p.Start(t, "third", p.NS[1].In("hvnet", "up", p.Socket, "--name", "late", "--iface", "eth1", "--addr", "dhcp")...)
	lab.Await(t, third, "^eth1 up")
	lab.Run(t, "ip", "-n", p.NS[1].Name, "link", "del", "eth1") // it shares eth0's subnet
	const size = 256 << 10                                      // all of it has room in the memory of a capture
	for _, to := range []string{p.Addr[1], six} {
		if err := transfer(p.NS[0], p.NS[1], to, size); err != nil {
			t.Fatal(err)
		}
		if err := transfer(p.NS[1], p.NS[0], strings.TrimSuffix(to, "2")+"1", size); err != nil {
			t.Fatal(err)
		}
		if err := datagram(p.NS[0], p.NS[1], to); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*lab.Process{guest, far, late} {
		c.Signal(syscall.SIGINT)
		if status, err := c.End(t.Context()); status != 0 || err != nil {
			t.Fatalf("status %d, %v: %v", status, err, c.Said())
		}
		_, said := c.Output()
		n := regexp.MustCompile(`(?m)^(\d+) packets captured, (\d+) dropped$`).FindSubmatch(said)
		if n == nil {
			t.Fatalf("it says: %s", said)
		}
		name := map[*lab.Process]string{guest: "eth0", far: "guest1", late: "late"}[c]
		want := map[string]bool{"frame": true} // whether there are such packets
		for _, filter := range []string{"_ws.malformed", "_ws.unreassembled", "!frame.packet_flags_direction", `!(frame.comment contains "path synthetic")`} {
			want[filter] = false
		}
		there := []string{
			"arp", "icmpv6", "tcp && ip", "tcp && ipv6", "udp && ip && udp.length == 1008", "udp && ipv6 && udp.length == 1008",
			`tcp && ip && frame.len > 5000 && frame.comment contains "to be cut into TCP segments of 1448 bytes"`,
			`tcp && ipv6 && frame.len > 5000 && frame.comment contains "to be cut into TCP segments of 1428 bytes"`,
			"frame.packet_flags_direction == 1 && tcp.len > 0", "frame.packet_flags_direction == 2 && tcp.len > 0 && frame.interface_queue >= 0",
			"dhcp && frame.packet_flags_direction == 1",
		}
		if c == late {
			// Frames are cut short here, and what guest and host say has no path.
			want = map[string]bool{"frame": true, "_ws.malformed && frame.interface_id == 1": false}
			there = []string{
				`frame.interface_name == "late messages" && frame.packet_flags_direction == 2 && frame.comment contains "INITIATE_CONTACT version 5.3" && data.data[0] == 0e`,
				`frame.packet_flags_direction == 1 && frame.comment contains "SEND_RECEIVE_BUFFER_COMPLETE status success"`,
				`frame.packet_flags_direction == 2 && frame.comment contains "RNDIS SET request"`,
				"frame.packet_flags_direction == 2 && udp.dstport == 67 && frame.len == 342 && frame.cap_len == 300",
			}
		}
		for _, filter := range there {
			want[filter] = true
		}
		for filter, got := range countBy(t, tshark, file(name), slices.Collect(maps.Keys(want))) {
			if (got > 0) != want[filter] {
				t.Errorf("%s: %d packets with %s", name, got, filter)
			}
			if filter == "frame" && fmt.Sprint(got) != string(n[1]) {
				t.Errorf("%s: %d packets in the file, but: %s", name, got, said)
			}
		}
	}
	third.Signal(syscall.SIGTERM)
	p.Stop(t)
}

// countBy counts the packets of a file that each of some filters of tshark lets through.
// What is wrong with the file is fatal.
func countBy(t *testing.T, tshark, file string, filters []string) map[string]int {
	t.Helper()
	out := lab.Run(t, tshark, "-n", "-q", "-r", file, "-z", "io,stat,0,"+strings.Join(filters, ","))
	// The only line with numbers has frames and bytes for each of them.
	row := regexp.MustCompile(`(?m)^\|[^|]+<>[^|]+\|((?: *\d+ \|)+)$`).FindSubmatch(out)
	if row == nil {
		t.Fatalf("tshark: %s", out)
	}
	cells := regexp.MustCompile(`\d+`).FindAllString(string(row[1]), -1)
	if len(cells) != 2*len(filters) {
		t.Fatalf("tshark: %d columns for %d filters: %s", len(cells), len(filters), out)
	}
	got := map[string]int{}
	for i, f := range filters {
		got[f], _ = strconv.Atoi(cells[2*i])
	}
	return got
}
