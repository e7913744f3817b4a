package netvsc

import (
	"hvnet/counter"
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/rndis"
)

// addresses is the length of what is in front of a tag.
const addresses = 12

// newInfo begins the per-packet information of a frame, of which head is a private copy of the
// first bytes: a tag in it is told to the host, and leaves the bytes when the RNDIS header is
// written (see message). It returns false for a frame that ends in its tag.
func newInfo(in *rndis.Info, head []byte) bool {
	in.Has = 0
	tci, tagged, damaged := offload.Tag(head)
	if tagged {
		in.Has, in.VLAN = rndis.HasVLAN, tci
	}
	return !damaged
}

// tell is newInfo for a frame that is to be sent, which counts one that is damaged.
func (t *sender) tell(head []byte) bool {
	if !newInfo(&t.info, head) {
		t.s.n.count.Add(counter.VLANError, 1)
		return false
	}
	return true
}

// tagBytes is by how much a frame is shorter on its way to the host.
func tagBytes(in *rndis.Info) int {
	if in.Has&rndis.HasVLAN != 0 {
		return nic.TagLen
	}
	return 0
}

// putHeader writes the RNDIS header for a frame of n bytes at mem[headroom:], and takes its tag
// out by moving the addresses over it. Nothing of mem decides anything.
func putHeader(mem []byte, n int, in *rndis.Info) {
	m := tagBytes(in)
	if m > 0 {
		copy(mem[headroom+m:][:addresses], mem[headroom:])
	}
	rndis.PutPacketAt(mem, headroom+m, n-m, in)
}

// putTag puts a tag that the host has told back in front of the type of a frame whose first bytes
// are at head[tagSize:].
func putTag(head []byte, tci uint16) {
	copy(head, head[tagSize:][:addresses])
	offload.PutTag(head[addresses:], tci)
}
