package tap

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/packets"
	"hvnet/nic"
)

// TestVnetHeader holds the header against literal bytes, of a machine with the least
// significant byte first.
func TestVnetHeader(t *testing.T) {
	if ne.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	tcp := packets.Shape{TCPOptions: 12}.Frame(nil)
	cwr := packets.Shape{V6: true, Tag: true, Flags: 0x80}.Frame(nil)
	udp := packets.Shape{UDP: true}.Frame(nil)
	for _, tt := range []struct {
		frame []byte
		o     nic.Offload
		want  string
	}{
		{tcp, nic.Offload{}, "00 00 0000 0000 0000 0000 0000"},
		{tcp, nic.Offload{Checksum: nic.ChecksumOK}, "02 00 0000 0000 0000 0000 0000"},
		{udp, nic.Offload{Checksum: nic.ChecksumPartial, Start: 34, Field: 6}, "01 00 0000 0000 2200 0600 0000"},
		{tcp, nic.Offload{Checksum: nic.ChecksumPartial, Segment: nic.SegmentTCPv4, Start: 34, Field: 16, Size: 1448}, "01 01 4200 a805 2200 1000 0000"},
		{cwr, nic.Offload{Checksum: nic.ChecksumPartial, Segment: nic.SegmentTCPv6, Start: 58, Field: 16, Size: 1440}, "01 84 4e00 a005 3a00 1000 0000"},
		{udp, nic.Offload{Checksum: nic.ChecksumPartial, Segment: nic.SegmentUDP, Start: 34, Field: 6, Size: 1000}, "01 05 2a00 e803 2200 0600 0000"},
	} {
		h := [VnetHeaderLen]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		putVnet(&h, &nic.Frame{Head: tt.frame, Offload: tt.o})
		if want := packets.Hex(tt.want); !bytes.Equal(h[:], want) {
			t.Errorf("%+v: %x, want %x", tt.o, h, want)
		}
		if got := parseVnet(&h); got != tt.o {
			t.Errorf("%x: %+v, want %+v", h, got, tt.o)
		}
	}
	h := [VnetHeaderLen]byte{1}
	putVnet(&h, &nic.Frame{Head: tcp, Offload: nic.Offload{Checksum: nic.ChecksumBad}})
	if h != [VnetHeaderLen]byte{} {
		t.Errorf("a wrong checksum: %x", h)
	}
}

// vnetSocket returns a packet socket whose frames have a virtio-net header too.
func vnetSocket(t *testing.T) int {
	fd := packetSocket(t, up(t, "eth0"))
	const packetVnetHeader = 15 // PACKET_VNET_HDR
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, packetVnetHeader, 1); err != nil {
		t.Fatal(err)
	}
	return fd
}

// of binds the socket to the type of a frame, in the byte order of the wire.
func of(t *testing.T, fd int, f *nic.Frame) {
	t.Helper()
	proto := ne.Uint16(f.Head[12:])
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link(t, "eth0").Attrs().Index}); err != nil {
		t.Fatal(err)
	}
}

// offered returns a frame that is to be cut, and one with a partial checksum.
func offered() []nic.Frame {
	list := []nic.Frame{
		packets.Partial(packets.Shape{TCPOptions: 12, Flags: 0x08}.Frame(packets.Random(30000)), nic.SegmentTCPv4, 1448),
		packets.Partial(packets.Shape{V6: true}.Frame(packets.Random(3000)), nic.SegmentTCPv6, 1440),
		packets.Partial(packets.Shape{UDP: true}.Frame(packets.Random(700)), nic.SegmentNone, 0),
	}
	for i := range list {
		copy(list[i].Head, macA[:])
		copy(list[i].Head[6:], macB[:])
	}
	return list
}

// TestKernelLeavesWork has the kernel send frames that leave something to be done. A
// TAP that takes that gets them as they are, another one what they become.
func TestKernelLeavesWork(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want []int // how many frames each becomes
	}{
		{"all", Config{Offloads: Offloads}, []int{1, 1, 1}},
		{"not so long", Config{Offloads: Offloads, Largest: 20000}, []int{21, 1, 1}},
		{"nothing", Config{}, []int{21, 3, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			enter(t)
			tt.cfg.Name = "eth0"
			tap := open(t, tt.cfg)
			fd := vnetSocket(t)
			q := tap.Queue(0)
			first, rest := make([]byte, 500), make([]byte, nic.MaxFrame)
			for i, f := range offered() {
				var h [VnetHeaderLen]byte
				putVnet(&h, &f)
				of(t, fd, &f)
				b := packets.Bytes(&f)
				if _, err := unix.Write(fd, append(h[:10:10], b...)); err != nil {
					t.Fatal(err)
				}
				total := 0
				for range tt.want[i] {
					n, o, err := q.ReadFrame(first, rest)
					if err != nil {
						t.Fatalf("frame %d: %v", i, err)
					}
					total += n
					got := append(bytes.Clone(first[:min(n, len(first))]), rest[:max(0, n-len(first))]...)
					if tt.cfg.Offloads != 0 && tt.want[i] == 1 {
						if o != f.Offload || !bytes.Equal(got, b) {
							t.Errorf("frame %d: %d bytes, %+v; want %d, %+v", i, n, o, len(b), f.Offload)
						}
					} else if tt.cfg.Offloads == 0 {
						want := bytes.Clone(got)
						if packets.Correct(want); o != (nic.Offload{}) || !bytes.Equal(got, want) {
							t.Errorf("frame %d: %+v, checksum wrong: %v", i, o, !bytes.Equal(got, want))
						}
					}
				}
				if _, _, err := q.ReadFrame(first, rest); err != nic.ErrNoFrame {
					t.Errorf("frame %d: something is left: %v", i, err)
				}
				if total < len(b) {
					t.Errorf("frame %d: got %d bytes of %d", i, total, len(b))
				}
			}
		})
	}
}

// TestKernelTakesWork writes frames that leave something to be done: the kernel
// shows them with that.
func TestKernelTakesWork(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0"})
	fd := vnetSocket(t)
	list := offered()
	if tap.Takes()&nic.TakesUDP != 0 {
		f := packets.Partial(packets.Shape{UDP: true, V6: true}.Frame(packets.Random(5000)), nic.SegmentUDP, 1400)
		copy(f.Head, macA[:])
		list = append(list, f)
	}
	for i, f := range list {
		of(t, fd, &f)
		want := packets.Bytes(&f)
		tap.WriteFrames([]nic.Frame{f})
		got := make([]byte, 70000)
		n, err := unix.Read(fd, got)
		if err != nil {
			t.Fatal(err)
		}
		var h [VnetHeaderLen]byte
		copy(h[:10], got)
		o := parseVnet(&h)
		if o != f.Offload || !bytes.Equal(got[10:n], want) {
			t.Errorf("frame %d: %d bytes, %+v; want %d, %+v", i, n-10, o, len(want), f.Offload)
		}
	}
	for _, s := range tap.Stats() {
		if s.Value != 0 {
			t.Errorf("%s %d", s.Name, s.Value)
		}
	}
}

// TestDatagrams writes datagrams as one frame: a program gets each one by itself.
func TestDatagrams(t *testing.T) {
	enter(t)
	mac := nic.MAC{0x00, 0x15, 0x5d, 0, 0, 2} // of the test packets' receiver, as the rest
	tap := open(t, Config{Name: "eth0", MAC: mac})
	if tap.Takes()&nic.TakesUDP == 0 {
		t.Skip("this kernel does not take them")
	}
	l := up(t, "eth0")
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 168, 0, 2), Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 0x2000})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	payload := packets.Random(3500)
	tap.WriteFrames([]nic.Frame{packets.Partial(packets.Shape{UDP: true}.Frame(payload), nic.SegmentUDP, 1000)})
	b := make([]byte, 4000)
	for i := range 4 {
		n, _, err := c.ReadFrom(b)
		if want := payload[i*1000 : min(i*1000+1000, 3500)]; err != nil || !bytes.Equal(b[:n], want) {
			t.Fatalf("datagram %d: %d bytes, want %d: %v", i, n, len(want), err)
		}
	}
}

func TestTakesUDP(t *testing.T) {
	for release, want := range map[string]bool{
		"6.2.0": true, "6.18.44-fc-v669": true, "7.0": true, "10.1-rc1": true,
		"6.1.192-amd64": false, "5.15.0": false, "4.19": false, "": false, "six": false,
	} {
		if got := takesUDP(release); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}
