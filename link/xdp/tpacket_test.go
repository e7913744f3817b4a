package xdp

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
	"hvnet/link/vnet"
	"hvnet/nic"
)

// A tpacket receives by a ring of blocks that the kernel fills (TPACKET_V3), a virtio-net
// header in front of each frame. It is what the benchmarks measure packet.Link against, and
// leaves out what those don't need: tags, and frames that are too long.
type tpacket struct {
	file   *os.File
	rc     syscall.RawConn
	ring   []byte
	next   int // block
	frames [batch]nic.Frame
}

const (
	blockSize = 128 << 10
	blocks    = 64
	blockTime = 1 // ms after which a block is passed on that is not full: the shortest there is
)

func openTPacket(t testing.TB, name string) *tpacket {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	check(t, err)
	p := &tpacket{file: os.NewFile(uintptr(fd), "tpacket")}
	t.Cleanup(func() { p.Close() })
	check(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3))
	check(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	check(t, unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{
		Block_size: blockSize, Block_nr: blocks, Frame_size: 2048, Frame_nr: blocks * blockSize / 2048, Retire_blk_tov: blockTime,
	}))
	p.ring, err = unix.Mmap(fd, 0, blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	check(t, err)
	t.Cleanup(func() { unix.Munmap(p.ring) })
	ctl, err := rtnl.Open()
	check(t, err)
	defer ctl.Close()
	index, err := rtnl.Index(ctl, name)
	check(t, err)
	all := uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8)
	check(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(index)}))
	p.rc, err = p.file.SyscallConn()
	check(t, err)
	return p
}

func (p *tpacket) Close() error { return p.file.Close() }

// Receive is like that of a link. Offsets are those of struct tpacket_block_desc, and of
// struct tpacket3_hdr.
func (p *tpacket) Receive(to nic.Sink) error {
	var block []byte
	var status *atomic.Uint32
	ready := func(uintptr) bool { return status.Load()&unix.TP_STATUS_USER != 0 }
	for {
		block = p.ring[p.next*blockSize:][:blockSize]
		status = (*atomic.Uint32)(unsafe.Pointer(&block[8]))
		if err := p.rc.Read(ready); err != nil {
			return err
		}
		at, n := binary.NativeEndian.Uint32(block[16:]), 0
		for range binary.NativeEndian.Uint32(block[12:]) {
			h := block[at:]
			mac, length := int(binary.NativeEndian.Uint16(h[24:])), int(binary.NativeEndian.Uint32(h[12:]))
			var v vnet.Header
			copy(v[:], h[mac-vnet.ShortLen:mac])
			p.frames[n] = nic.Frame{Head: h[mac : mac+length : mac+length], Offload: v.Offload()}
			if n++; n == batch {
				to.WriteFrames(p.frames[:n])
				n = 0
			}
			at += binary.NativeEndian.Uint32(h)
		}
		if n > 0 {
			to.WriteFrames(p.frames[:n])
		}
		status.Store(unix.TP_STATUS_KERNEL)
		p.next = (p.next + 1) % blocks
	}
}
