package netvsc

import (
	"testing"

	"hvnet/nic"
	"hvnet/rndis"
)

// TestReceivedHash: the sink gets the host's hash of a frame, and over what it is as far
// as the host says that. Without a word it is over ports, as to hv_netvsc.
func TestReceivedHash(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	r := up(t, n)
	for i, c := range []struct {
		info *rndis.Info
		hash uint32
		kind nic.HashKind
	}{
		{nil, 0, nic.HashNone},
		{&rndis.Info{Has: rndis.HasHash, Hash: 7}, 7, nic.HashL4},
		{&rndis.Info{Has: rndis.HasHash | rndis.HasHashInfo, Hash: 8, HashInfo: rndis.HashToeplitz | rndis.HashTCPv6}, 8, nic.HashL4},
		{&rndis.Info{Has: rndis.HasHash | rndis.HasHashInfo, Hash: 9, HashInfo: rndis.HashToeplitz | rndis.HashIPv4}, 9, nic.HashL3},
		{&rndis.Info{Has: rndis.HasHashInfo, HashInfo: rndis.HashToeplitz | rndis.HashIPv4}, 0, nic.HashNone},
	} {
		if err := h.queue(0).indicate(packetMessage(frame(i, 60), c.info)); err != nil {
			t.Fatal(err)
		}
		r.wait(t, i+1)
		if f := r.meta[i]; f.Hash != c.hash || f.HashKind != c.kind {
			t.Errorf("%+v: hash %d of kind %d, want %d of %d", c.info, f.Hash, f.HashKind, c.hash, c.kind)
		}
	}
}
