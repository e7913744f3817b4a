package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/internal/lab"
	"hvnet/internal/need"
	"hvnet/internal/packets"
)

// experiments is an EtherType for local use (IEEE 802), which no kernel sends by itself.
const experiments = "88b5"

// packetSocket returns a packet socket on eth0 of a namespace that tells of the tags which the
// kernel takes out of frames. Its file has deadlines.
func packetSocket(t *testing.T, ns *lab.Netns) *os.File {
	t.Helper()
	var f *os.File
	err := within(ns, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "packet socket")
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: eth0.Index}))
	})
	if f != nil {
		t.Cleanup(func() { f.Close() })
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// tagged puts a tag that the kernel tells of back into a frame.
func tagged(b, oob []byte) ([]byte, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		// struct tpacket_auxdata: status, two lengths, two offsets, control information, type
		if m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 || binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tag := binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(m.Data[18:]))
		tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(m.Data[16:]))
		return append(append(b[:12:12], tag...), b[12:]...), nil
	}
	return b, nil
}

// next returns the next frame that comes with a text in it.
func next(f *os.File, text []byte) (frame []byte, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	f.SetReadDeadline(time.Now().Add(lab.Patience))
	b, oob := make([]byte, 4096), make([]byte, 256)
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, o, _, _, err := unix.Recvmsg(int(fd), b, oob, 0)
			switch {
			case err == unix.EAGAIN:
				return false
			case err == unix.EINTR:
			case err != nil:
				failed = err
				return true
			case bytes.Contains(b[:n], text):
				frame, failed = tagged(b[:n], oob[:o])
				return true
			}
		}
	})
	return frame, errors.Join(err, failed)
}

// TestVLAN sends frames with and without tags from the kernel of one guest to that of another,
// by ports of all kinds. What does not come is followed by a frame that does.
func TestVLAN(t *testing.T) {
	need.Root(t)
	need.Tool(t, "ip")
	p := lab.NewPair(t, "hvnet", "--vcpus", "4")
	from, to := packetSocket(t, p.NS[0]), packetSocket(t, p.NS[1])
	mac := strings.TrimSpace(string(p.Run(t, p.NS[0].In("cat", "/sys/class/net/eth0/address")...)))
	addresses := "ffffffffffff " + strings.ReplaceAll(mac, ":", "")
	number := 0
	for _, c := range []struct{ from, to, sent, got string }{
		{"untagged", "untagged", "", ""},
		{"untagged", "untagged", "8100 a000", ""},
		{"untagged", "untagged", "8100 000a", "none"},
		{"untagged", "trunk=all", "", ""},
		{"untagged", "access=10", "", "none"},
		{"access=10", "access=10", "", ""},
		{"access=10", "access=10", "8100 000a", "none"},
		{"access=10", "trunk=10", "", "8100 000a"},
		{"access=10", "trunk=10", "8100 f000", "8100 f00a"}, // priority 7, drop eligible
		{"access=10", "trunk=10,native=10", "", ""},
		{"access=10", "trunk=11-20", "", "none"},
		{"trunk=10", "access=10", "8100 b00a", ""},
		{"trunk=10", "access=10", "", "none"},
		{"trunk=10,native=10", "access=10", "", ""},
		{"trunk=10,native=5", "access=10", "8100 000a", ""},
		{"trunk=10,20", "trunk=20-30", "8100 b014", "8100 b014"},
		{"trunk=10,20", "trunk=20-30", "8100 000a", "none"},
		{"trunk=all", "trunk=all", "8100 0ffe", "8100 0ffe"},
		{"trunk=all", "trunk=all", "8100 0001 8100 0002", "8100 0001 8100 0002"},
		{"trunk=all", "access=1", "8100 0001 8100 b002", "8100 b002"},
		{"trunk=all", "trunk=all", "88a8 0001 8100 0002", "88a8 0001 8100 0002"},
	} {
		what := fmt.Sprintf("%q of %s to %s", c.sent, c.from, c.to)
		for i, v := range []string{c.from, c.to} {
			p.Run(t, "hvnet", "host", "ctl", p.Socket, "vlan", fmt.Sprint("guest", i+1), v)
		}
		number++
		text := fmt.Sprintf("%08x", 0xc0ffee00+number)
		send := func(tag string) {
			b := append(packets.Hex(addresses+tag+experiments+text), make([]byte, 40)...)
			if _, err := unix.Write(int(from.Fd()), b); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		send(c.sent)
		want := c.got
		if want == "none" {
			for i := range 2 {
				p.Run(t, "hvnet", "host", "ctl", p.Socket, "vlan", fmt.Sprint("guest", i+1), "untagged")
			}
			send("")
			want = ""
		}
		got, err := next(to, packets.Hex(text))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if frame := packets.Hex(addresses + want + experiments + text); !bytes.HasPrefix(got, frame) {
			t.Errorf("%s: got %x, want %x", what, got, frame)
		}
	}
	// Two had tags that their port does not let in; the others did not reach who was asked.
	if ports := p.Run(t, "hvnet", "host", "ctl", p.Socket, "ports"); !regexp.MustCompile(`(?m)^guest1 .*\b2 VLAN\b`).Match(ports) {
		t.Errorf("want 2 frames dropped for their VLAN:\n%s", ports)
	}
	p.Stop(t)
}
