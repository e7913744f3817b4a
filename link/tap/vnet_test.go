package tap

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/packets"
	"hvnet/link/vnet"
	"hvnet/nic"
)

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
	proto := binary.NativeEndian.Uint16(f.Head[12:])
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

// TestSetLargest: the limit follows what is set.
func TestSetLargest(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", Offloads: Offloads, Largest: 20000})
	fd := vnetSocket(t)
	f := offered()[0] // of 30000 bytes
	var h vnet.Header
	h.Set(&f)
	of(t, fd, &f)
	first, rest := make([]byte, 500), make([]byte, nic.MaxFrame)
	for _, step := range []struct{ largest, want int }{{0, 1}, {20000, 21}, {40000, 1}} {
		if err := tap.SetLargest(step.largest); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, append(h[:10:10], packets.Bytes(&f)...)); err != nil {
			t.Fatal(err)
		}
		got := 0
		for ; ; got++ {
			if _, _, err := tap.Queue(0).ReadFrame(first, rest); err != nil {
				break
			}
		}
		if got != step.want {
			t.Errorf("with a limit of %d: %d frames, want %d", step.largest, got, step.want)
		}
	}
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
				var h vnet.Header
				h.Set(&f)
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
		var h vnet.Header
		copy(h[:10], got)
		o := h.Offload()
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
