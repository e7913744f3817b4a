package linuxguest_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hvnet/host"
	"hvnet/internal/linuxguest"
	"hvnet/internal/packets"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vswitch"
)

// toeplitz is the hash by its definition, bit by bit: for each bit of the input that is
// set, the 32 bits of the key that begin there.
func toeplitz(key, input []byte) (h uint32) {
	for i := range 8 * len(input) {
		if input[i/8]&(0x80>>(i%8)) == 0 {
			continue
		}
		for j := range 32 {
			h ^= uint32(key[(i+j)/8]>>(7-(i+j)%8)&1) << (31 - j)
		}
	}
	return h
}

// A randomFlow is a frame of a flow with random addresses and ports, and what is hashed of
// it where Linux asks for the hashes that it does: of UDP the addresses alone.
func randomFlow(r *rand.Rand, v6, udp bool, from, to nic.MAC) (frame, hashed []byte) {
	b := packets.Shape{V6: v6, UDP: udp}.Frame(packets.Random(20))
	copy(b, to[:])
	copy(b[6:], from[:])
	addrs, ports := b[14+12:14+20], b[14+20:14+24]
	if v6 {
		addrs, ports = b[14+8:14+40], b[14+40:14+44]
	}
	for _, part := range [][]byte{addrs, ports} {
		for i := range part {
			part[i] = byte(r.Uint32())
		}
	}
	if v6 {
		addrs[0], addrs[16] = 0x20, 0x20
	} else {
		addrs[0], addrs[4] = 10, 10
	}
	packets.Correct(b)
	hashed = slices.Clone(addrs)
	if !udp {
		hashed = append(hashed, ports...)
	}
	return b, hashed
}

// rssOf reads what ethtool -x prints.
func rssOf(t *testing.T, text string) (table []int, key []byte) {
	t.Helper()
	for line := range strings.Lines(text) {
		if label, entries, ok := strings.Cut(line, ":"); ok && regexp.MustCompile(`^ +\d+$`).MatchString(label) {
			for _, e := range strings.Fields(entries) {
				n, err := strconv.Atoi(e)
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				table = append(table, n)
			}
		}
		if b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(line), ":", "")); err == nil && len(b) == 40 {
			key = b
		}
	}
	if len(table) == 0 || key == nil {
		t.Fatalf("no table and key in:\n%s", text)
	}
	return table, key
}

var received = regexp.MustCompile(`rx_queue_(\d+)_packets: (\d+)`)

// queues returns how many frames Linux has had on each queue.
func (r *rig) queues(t *testing.T) (counts []int) {
	t.Helper()
	for _, m := range received.FindAllStringSubmatch(r.Run(t, "ethtool -S eth0"), -1) {
		n, _ := strconv.Atoi(m[2])
		counts = append(counts, n)
	}
	return counts
}

func sum(counts []int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// TestSpread has 500 random flows come to Linux, by the tables and keys that it has set,
// and compares its own count for each queue with what the hash says.
func TestSpread(t *testing.T) {
	r := newRig(t, linuxguest.Machine{CPUs: 4}, host.Config{Profile: lookup(t, profile.Default)})
	from := nic.MAC{2, 0, 0, 0, 0, 9}
	port, err := r.host.Switch().Connect("test", nowhere{}, vswitch.PortOptions{MAC: from})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	// Nothing but what is sent here.
	r.Run(t, "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done; ip link set eth0 up")
	random := rand.New(rand.NewPCG(500, 4))
	var key strings.Builder
	for range 40 {
		fmt.Fprintf(&key, ":%02x", random.Uint32()&0xff)
	}
	kinds := []struct{ v6, udp bool }{{false, false}, {false, true}, {true, false}, {true, true}}
	for i, set := range []string{
		"true", // as the driver begins
		"ethtool -X eth0 weight 1 2 3 10 hkey " + key.String()[1:],
		"ethtool -X eth0 default && ethtool -L eth0 combined 3 && ethtool -X eth0 equal 2 start 1",
	} {
		r.Run(t, set)
		to := r.port(t).Guest.MAC
		table, key := rssOf(t, r.Run(t, "ethtool -x eth0"))
		before := r.queues(t)
		want := slices.Clone(before)
		const flows = 500
		for sent := 0; sent < flows; sent += 50 { // few enough for the guest to take at once
			var batch []nic.Frame
			for j := range 50 {
				kind := kinds[(sent+j)%len(kinds)]
				b, hashed := randomFlow(random, kind.v6, kind.udp, from, to)
				batch = append(batch, nic.Frame{Head: b[:min(len(b), nic.HeadLen)], Body: rest(b)})
				want[table[toeplitz(key, hashed)%uint32(len(table))]]++
			}
			port.WriteFrames(batch)
			for end := time.Now().Add(linuxguest.Patience); sum(r.queues(t)) < sum(want); {
				if time.Now().After(end) {
					t.Fatalf("%s: %v have come, want %v", set, r.queues(t), want)
				}
			}
		}
		if got := r.queues(t); !slices.Equal(got, want) {
			t.Errorf("%s: Linux has had %v on its queues, want %v; before, %v", set, got, want, before)
		}
		t.Logf("%d: %v", i, want)
	}
	r.content(t)
	r.Stop(t)
}

// rest returns what follows the head of a frame.
func rest(b []byte) [][]byte {
	if len(b) <= nic.HeadLen {
		return nil
	}
	return [][]byte{b[nic.HeadLen:]}
}

// nowhere is a sink.
type nowhere struct{}

func (nowhere) WriteFrames([]nic.Frame) {}
