package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hvnet/ethtool"
	"hvnet/internal/need"
	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/sandbox"
	"hvnet/vswitch"
)

// inside runs a program in a sandbox, and returns the lines that it writes. They end with it;
// its status has to be 0.
func inside(ctx context.Context, t *testing.T, at *sandbox.Sandbox, cmd sandbox.Command) <-chan string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	lines := make(chan string, 1<<12)
	var ended sync.WaitGroup
	ended.Go(func() {
		defer w.Close()
		if exit, err := at.Run(ctx, cmd); ctx.Err() == nil && (exit != 0 || err != nil) {
			t.Errorf("%v ended with status %d, %v", cmd.Args, exit, err)
		}
	})
	ended.Go(func() {
		defer close(lines)
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	})
	t.Cleanup(ended.Wait)
	return lines
}

// await waits for a line of a program.
func await(t *testing.T, lines <-chan string, pattern string) string {
	t.Helper()
	var all []string
	for wait := time.After(vfPatience); ; {
		select {
		case l, ok := <-lines:
			if !ok {
				t.Fatalf("no line %q in %q", pattern, all)
			}
			if all = append(all, l); regexp.MustCompile(pattern).MatchString(l) {
				return l
			}
		case <-wait:
			t.Fatalf("no line %q as yet in %q", pattern, all)
		}
	}
}

// output returns what a program writes until its end.
func output(ctx context.Context, t *testing.T, at *sandbox.Sandbox, cmd sandbox.Command) string {
	t.Helper()
	var all []string
	for l := range inside(ctx, t, at, cmd) {
		all = append(all, l)
	}
	return strings.Join(all, "\n")
}

// newVFBench returns a host, a guest with a function and a station.
func newVFBench(ctx context.Context, t *testing.T) *vfBench {
	t.Helper()
	needSandbox(t)
	b := new(vfBench)
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	if err := b.open(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVFIperf3: a stream of iperf3 each way goes through moves of every kind.
func TestVFIperf3(t *testing.T) {
	need.Tool(t, "iperf3")
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	b := newVFBench(ctx, t)
	seconds := 1
	if os.Getenv("HVNET_LONG") == "1" {
		seconds = 300
	}
	server := inside(ctx, t, b.far, sandbox.Command{Args: []string{"iperf3", "-s", "-1", "--forceflush"}})
	await(t, server, "^Server listening")
	client := inside(ctx, t, b.near, sandbox.Command{Args: []string{"iperf3", "-c", vfAddrs[1].Addr().String(), "-t", strconv.Itoa(seconds), "-b", "200M", "--bidir"}})
	moves := 0
	for ; ; moves++ {
		kind := []string{VFAnnounced, VFAnnounced, VFVanished, VFDeleted}[moves%4]
		if err := b.move(ctx, kind, moves, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if ended(client) && moves >= 4 {
			break
		}
	}
	for range server {
	}
	t.Logf("%d moves", moves)
}

// ended drops the lines that there are, and tells whether there will be no more.
func ended(lines <-chan string) bool {
	for {
		select {
		case _, ok := <-lines:
			if !ok {
				return true
			}
		default:
			return false
		}
	}
}

// An asker is a station on the switch that counts what the guest answers.
type asker struct {
	port *vswitch.Port

	mu   sync.Mutex
	arp  map[uint16]int // replies, by the last bytes of the address that asked
	echo map[uint16]int // by sequence number
	came chan struct{}  // capacity 1
}

var askerMAC = nic.MAC{0x00, 0x15, 0x5d, 0xff, 0xff, 0x02}

// WriteFrames counts.
func (a *asker) WriteFrames(frames []nic.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	be := binary.BigEndian
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		switch {
		case len(b) >= 42 && be.Uint32(b[12:]) == 0x08060001 && be.Uint16(b[20:]) == 2: // an ARP reply
			a.arp[be.Uint16(b[40:])]++
		case len(b) >= 42 && be.Uint16(b[12:]) == 0x0800 && b[23] == 1 && b[34] == 0: // an echo reply
			a.echo[be.Uint16(b[40:])]++
		}
	}
	select {
	case a.came <- struct{}{}:
	default:
	}
}

// The address that an asker has for a question.
func askerAddr(n uint16) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}) }

// ask sends an ARP request to all, and an echo request to the guest, with a number, and waits
// for an answer to each.
func (a *asker) ask(t *testing.T, guest nic.MAC, n uint16) {
	t.Helper()
	from, to := askerAddr(n).As4(), vfAddrs[0].Addr().As4()
	arp := slices.Concat(nic.Broadcast[:], askerMAC[:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, askerMAC[:], from[:], make([]byte, 6), to[:], make([]byte, 18))
	echo := slices.Concat(guest[:], askerMAC[:], []byte{8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0}, from[:], to[:],
		[]byte{8, 0, 0, 0, 0, 7}, binary.BigEndian.AppendUint16(nil, n), make([]byte, 18))
	binary.BigEndian.PutUint16(echo[24:], ^offload.Sum(echo[14:34], 0))
	binary.BigEndian.PutUint16(echo[36:], ^offload.Sum(echo[34:42], 0))
	a.port.WriteFrames([]nic.Frame{{Head: arp}, {Head: echo}})
	wait := time.After(vfPatience)
	for {
		a.mu.Lock()
		done := a.arp[n] > 0 && a.echo[n] > 0
		a.mu.Unlock()
		if done {
			return
		}
		select {
		case <-a.came:
		case <-wait:
			t.Fatalf("question %d is not answered", n)
		}
	}
}

// TestVFOneInterface: a guest with a function looks from outside like one interface, and from
// inside its traffic is all on eth0: only that has addresses, each ARP request and each
// datagram is answered once, tcpdump sees both paths there, and ethtool -S tells them apart.
func TestVFOneInterface(t *testing.T) {
	for _, tool := range []string{"ip", "tcpdump", "ethtool"} {
		need.Tool(t, tool)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b := newVFBench(ctx, t)
	const each = 8
	a := &asker{arp: map[uint16]int{}, echo: map[uint16]int{}, came: make(chan struct{}, 1)}
	var err error
	if a.port, err = b.h.Switch().Connect("asker", a, vswitch.PortOptions{MAC: askerMAC}); err != nil {
		t.Fatal(err)
	}
	defer a.port.Close()
	mac := b.g.NIC.MAC()
	guest := sandbox.Interface{Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(vfAddrs[0].Addr(), 15)}}
	if err := b.near.Configure(ctx, guest); err != nil { // so that the askers are neighbours
		t.Fatal(err)
	}
	counts := func() map[string]int {
		t.Helper()
		text := output(ctx, t, b.near, sandbox.Command{Args: []string{"ethtool", "-S", "eth0"},
			Devices: func(context.Context, uint64, string) (ethtool.Device, error) { return b.g.NIC, nil }})
		c := map[string]int{}
		for _, m := range regexp.MustCompile(`(?m)^ +([a-z0-9_]+): (\d+)$`).FindAllStringSubmatch(text, -1) {
			c[m[1]], _ = strconv.Atoi(m[2])
		}
		return c
	}
	dump := inside(ctx, t, b.near, sandbox.Command{Args: []string{"tcpdump", "-i", "eth0", "-nlc", strconv.Itoa(3 * 4 * each),
		"icmp or (arp[6:2] = 1 and arp[24:4] = 0xc6120002) or (arp[6:2] = 2 and arp[14:4] = 0xc6120002)"}})
	await(t, dump, "^listening on eth0")
	number := uint16(0x0100)
	phase := func(path string) {
		t.Helper()
		before := counts()
		for range each {
			number++
			a.ask(t, mac, number)
		}
		after := counts()
		for _, way := range []string{"rx", "tx"} {
			grown := map[string]int{} // by path
			for name, n := range after {
				switch {
				case name == "vf_"+way+"_packets":
					grown["vf"] = n - before[name]
				case strings.HasPrefix(name, way+"_queue_") && strings.HasSuffix(name, "_vf_packets"):
					grown["vf, by queue"] += n - before[name]
				case strings.HasPrefix(name, way+"_queue_") && strings.HasSuffix(name, "_packets"):
					grown["synthetic"] += n - before[name]
				}
			}
			if grown["vf, by queue"] != grown["vf"] {
				t.Errorf("%s on the path %s: counted are %v", way, path, grown)
			}
			for _, p := range []string{"vf", "synthetic"} {
				if p == path && grown[p] < 2*each || p != path && grown[p] != 0 {
					t.Errorf("%s on the path %s: counted are %v", way, path, grown)
				}
			}
		}
		if path == "vf" {
			addresses := output(ctx, t, b.near, sandbox.Command{Args: []string{"ip", "-br", "addr"}})
			for _, l := range strings.Split(addresses, "\n") {
				f := strings.Fields(l)
				name, _, _ := strings.Cut(f[0], "@")
				if name != "lo" && (name == "eth0") != (len(f) > 2) {
					t.Errorf("addresses:\n%s", addresses)
				}
			}
		}
	}
	phase("vf")
	if err := b.take(ctx, VFAnnounced); err != nil {
		t.Fatal(err)
	}
	phase("synthetic")
	if err := b.add(ctx); err != nil {
		t.Fatal(err)
	}
	if b.g.NIC.Path() != vf.VF {
		t.Error("it is not in use again")
	}
	phase("vf")
	seen := map[string]int{}
	for l := range dump {
		for kind, pattern := range map[string]string{"request": "Request who-has 198.18.0.2", "reply": "Reply 198.18.0.2", "echo request": "ICMP echo request", "echo reply": "ICMP echo reply"} {
			if strings.Contains(l, pattern) {
				seen[kind]++
			}
		}
	}
	for _, kind := range []string{"request", "reply", "echo request", "echo reply"} {
		if seen[kind] != 3*each {
			t.Errorf("tcpdump has seen %v, want %d of each", seen, 3*each)
			break
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := uint16(0x0101); n <= number; n++ {
		if a.arp[n] != 1 || a.echo[n] != 1 {
			t.Errorf("question %d has %d and %d answers, want one each", n, a.arp[n], a.echo[n])
		}
	}
}
