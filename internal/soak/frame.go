package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"hvnet/nic"
)

// A frame of the soak is a UDP packet whose payload says who sent it and how many
// the sender has sent before on the flow, and a sum over all behind the Ethernet
// header, filling included.
const (
	headerLen = nic.HeaderLen + 20 + 8 // Ethernet, IPv4, UDP
	sumAt     = headerLen
	markAt    = sumAt + 4
	senderAt  = markAt + 4
	flowAt    = senderAt + 2
	lifeAt    = flowAt + 2
	seqAt     = lifeAt + 8
	minFrame  = seqAt + 8
)

// The marks of frames: those of the random traffic, and those that are counted.
const (
	markTraffic = 0x68766e31
	markCounted = 0x68766e32
)

// A label is what a frame says of itself.
type label struct {
	mark         uint32
	sender, flow uint16
	life         uint64 // which life of the sender; later ones are larger
	seq          uint64
}

// filling is what payloads are cut from.
var filling = func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 1<<17)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}()

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the sum of a frame's bytes without the sum itself.
func sum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[nic.HeaderLen:sumAt], castagnoli), castagnoli, b[markAt:])
}

// write makes a frame in b, all of it.
func (l label) write(b []byte, dst, src nic.MAC, to uint16) {
	copy(b, dst[:])
	copy(b[6:], src[:])
	copy(b[12:], []byte{0x08, 0x00, 0x45, 0})
	binary.BigEndian.PutUint16(b[16:], uint16(len(b)-nic.HeaderLen))
	copy(b[18:], []byte{0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, byte(l.sender >> 8), byte(l.sender), 10, 0, byte(to >> 8), byte(to)})
	binary.BigEndian.PutUint16(b[34:], 1024+l.flow)
	binary.BigEndian.PutUint16(b[36:], 9)
	binary.BigEndian.PutUint16(b[38:], uint16(len(b)-nic.HeaderLen-20))
	binary.BigEndian.PutUint16(b[40:], 0)
	le := binary.LittleEndian
	le.PutUint32(b[markAt:], l.mark)
	le.PutUint16(b[senderAt:], l.sender)
	le.PutUint16(b[flowAt:], l.flow)
	le.PutUint64(b[lifeAt:], l.life)
	le.PutUint64(b[seqAt:], l.seq)
	copy(b[minFrame:], filling[l.seq*61%(1<<16):])
	le.PutUint32(b[sumAt:], sum(b))
}

// read returns the label of a frame, and an error if the frame is not as it was
// sent.
func read(b []byte) (l label, err error) {
	if len(b) < minFrame {
		return l, fmt.Errorf("%d bytes, want at least %d", len(b), minFrame)
	}
	le := binary.LittleEndian
	if got, want := sum(b), le.Uint32(b[sumAt:]); got != want {
		return l, fmt.Errorf("%d bytes: the sum is %08x, want %08x", len(b), got, want)
	}
	l = label{mark: le.Uint32(b[markAt:]), sender: le.Uint16(b[senderAt:]), flow: le.Uint16(b[flowAt:]),
		life: le.Uint64(b[lifeAt:]), seq: le.Uint64(b[seqAt:])}
	if l.mark != markTraffic && l.mark != markCounted {
		return l, fmt.Errorf("mark %08x", l.mark)
	}
	return l, nil
}
