package netvsc

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/offload"
	"hvnet/rndis"
)

// An rssHost is a fake host that keeps what it is told of RSS.
type rssHost struct {
	*fakeHost
	told    []rndis.RSSParameters // with table and key, also if they say to stop
	refused rndis.Status          // the next one that says how
}

func newRSSHost(entries int) *rssHost {
	h := &rssHost{fakeHost: newFakeHost()}
	h.offer(entries)
	h.onControl = func(q *fakeQueue, t rndis.MessageType, m []byte, tid uint64) bool {
		s, err := rndis.ParseSet(m)
		if err != nil || s.OID != rndis.OIDReceiveScaleParameters {
			return false
		}
		b := bytes.Clone(s.Info)
		stop := b[4]&rndis.RSSDisable != 0
		b[4] &^= rndis.RSSDisable
		p, err := rndis.ParseRSSParameters(b)
		if err != nil {
			h.wrong("%v", err)
		}
		if stop {
			p.Flags |= rndis.RSSDisable
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.told = append(h.told, p)
		if stop || h.refused == 0 {
			return false
		}
		answer := rndis.SetComplete{RequestID: s.RequestID, Status: h.refused}
		h.refused = 0
		go func() {
			q.indicate(answer.Append(nil))
			q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
		}()
		return true
	}
	return h
}

// offer has the host offer a table of as many entries, none if it has one queue.
func (h *rssHost) offer(entries int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.oid[rndis.OIDReceiveScaleCaps] = rndis.RSSCapabilities{Flags: rndis.RSSFlagsStandard, Queues: uint32(h.queues), Entries: uint16(entries)}.Append(nil)
}

// took returns what the host was told last, and forgets it: first to stop, then how.
func (h *rssHost) took(t *testing.T) nic.RSS {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.told) != 2 || h.told[0].Flags != rndis.RSSDisable || h.told[1].Flags != 0 || h.told[1].HashInfo != 0x1701 {
		t.Fatalf("the host was told %+v", h.told)
	}
	p := h.told[1]
	h.told = nil
	return nic.RSS{Table: p.Table, Key: p.Key}
}

// evenTable is that of n entries over the channels.
func evenTable(n, channels int) []uint32 {
	t := make([]uint32, n)
	for i := range t {
		t[i] = uint32(i % channels)
	}
	return t
}

func sameRSS(t *testing.T, what string, got nic.RSS, table []uint32, key []byte) {
	t.Helper()
	if !slices.Equal(got.Table, table) || !bytes.Equal(got.Key, key) {
		t.Errorf("%s: table %v, key %x\nwant %v, %x", what, got.Table, got.Key, table, key)
	}
}

// TestTableSizes: the table has the host's size, if that is one.
func TestTableSizes(t *testing.T) {
	for offered, want := range map[int]int{0: 128, 1: 1, 16: 16, 128: 128, 256: 256, 257: 128, 65535: 128} {
		h := newRSSHost(offered)
		n := open(t, h.fakeHost, Config{Queues: 4})
		sameRSS(t, "told", h.took(t), evenTable(want, 4), offload.DefaultKey[:])
		sameRSS(t, "shown", n.RSS(), evenTable(want, 4), offload.DefaultKey[:])
		table := make([]uint32, want)
		for i := range table {
			table[i] = uint32(3 - i%4)
		}
		if err := n.SetRSS(context.Background(), nic.RSSChange{Table: table}); err != nil {
			t.Errorf("%d entries: %v", want, err)
		}
		sameRSS(t, "set", h.took(t), table, offload.DefaultKey[:])
	}
}

// TestSetRSS goes through what a user can do.
func TestSetRSS(t *testing.T) {
	h := newRSSHost(16)
	n := open(t, h.fakeHost, Config{Queues: 4})
	h.took(t)
	ctx := context.Background()
	key := bytes.Repeat([]byte{7}, 40)
	table := slices.Repeat([]uint32{3}, 16)
	def := offload.DefaultKey[:]
	for _, step := range []struct {
		what   string
		change nic.RSSChange
		table  []uint32
		key    []byte
	}{
		{"table", nic.RSSChange{Table: table}, table, def},
		{"key", nic.RSSChange{Key: key}, table, key},
		{"default", nic.RSSChange{Default: true}, evenTable(16, 4), key},
		{"both", nic.RSSChange{Table: evenTable(16, 2), Key: def}, evenTable(16, 2), def},
	} {
		if err := n.SetRSS(ctx, step.change); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		sameRSS(t, step.what+" told", h.took(t), step.table, step.key)
		sameRSS(t, step.what+" shown", n.RSS(), step.table, step.key)
	}
	shown := n.RSS()
	shown.Table[0], shown.Key[0] = 9, 9
	sameRSS(t, "what was shown is a copy", n.RSS(), evenTable(16, 2), def)

	// What is so already, or can't be, is not told.
	if err := n.SetRSS(ctx, nic.RSSChange{}); err != nil {
		t.Error(err)
	}
	if err := n.SetRSS(ctx, nic.RSSChange{Table: evenTable(16, 2)}); err != nil {
		t.Error(err)
	}
	for _, bad := range []nic.RSSChange{
		{Table: slices.Repeat([]uint32{4}, 16)}, {Table: slices.Repeat([]uint32{1 << 31}, 16)}, {Table: evenTable(15, 4)},
		{Table: []uint32{}}, {Key: key[:39]}, {Key: append(key, 1)}, {Table: evenTable(16, 4), Key: []byte{}},
	} {
		if err := n.SetRSS(ctx, bad); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	sameRSS(t, "after refusals", n.RSS(), evenTable(16, 2), def)
	if len(h.told) != 0 {
		t.Errorf("the host was told %+v", h.told)
	}

	// A host that refuses is told what was before.
	h.mu.Lock()
	h.refused = rndis.StatusInvalidData
	h.mu.Unlock()
	if err := n.SetRSS(ctx, nic.RSSChange{Table: table, Key: key}); !errors.Is(err, nic.ErrInvalid) {
		t.Errorf("refused by the host: %v", err)
	}
	h.mu.Lock()
	h.told = h.told[2:]
	h.mu.Unlock()
	sameRSS(t, "taken back", h.took(t), evenTable(16, 2), def)
	sameRSS(t, "shown then", n.RSS(), evenTable(16, 2), def)
}

// TestSingleChannel: a host that has one channel takes no table, not even a key.
func TestSingleChannel(t *testing.T) {
	for what, prepare := range map[string]func(h *rssHost){
		"NVSP 4":    func(h *rssHost) { h.versions = []nvsp.Version{nvsp.V4} },
		"one queue": func(h *rssHost) { h.queues = 1; h.offer(128) },
		"no answer": func(h *rssHost) { h.oid[rndis.OIDReceiveScaleCaps] = []byte{1} },
	} {
		h := newRSSHost(128)
		prepare(h)
		n := open(t, h.fakeHost, Config{})
		sameRSS(t, what, n.RSS(), nil, offload.DefaultKey[:])
		for _, c := range []nic.RSSChange{{Key: make([]byte, 40)}, {Table: []uint32{0}}, {Default: true}, {}} {
			if err := n.SetRSS(context.Background(), c); !errors.Is(err, nic.ErrNotSupported) {
				t.Errorf("%s: %+v: %v", what, c, err)
			}
		}
		if len(h.told) != 0 {
			t.Errorf("%s: the host was told %+v", what, h.told)
		}
	}
}

// TestRSSStays follows table and key through all that a device goes through.
func TestRSSStays(t *testing.T) {
	h := newRSSHost(128)
	n := open(t, h.fakeHost, Config{Queues: 4})
	h.took(t)
	ctx := context.Background()
	key := bytes.Repeat([]byte{7}, 40)
	channels := func(count int) {
		t.Helper()
		if err := n.SetChannels(ctx, count); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.SetRSS(ctx, nic.RSSChange{Key: key}); err != nil {
		t.Fatal(err)
	}
	h.took(t)
	channels(3)
	sameRSS(t, "the default table follows the channels", h.took(t), evenTable(128, 3), key)
	channels(1) // of which the host hears nothing; Linux forgets its key here
	sameRSS(t, "with one channel", n.RSS(), evenTable(128, 1), key)
	channels(4)
	sameRSS(t, "after one channel", h.took(t), evenTable(128, 4), key)

	table := slices.Repeat([]uint32{2, 0}, 64)
	if err := n.SetRSS(ctx, nic.RSSChange{Table: table}); err != nil {
		t.Fatal(err)
	}
	h.took(t)
	channels(8)
	sameRSS(t, "a table that was set stays", h.took(t), table, key)
	if err := n.SetMTU(ctx, 4000); err != nil {
		t.Fatal(err)
	}
	sameRSS(t, "with another MTU", h.took(t), table, key)
	if err := n.SetChannels(ctx, 2); !errors.Is(err, nic.ErrInvalid) || n.Channels().Combined != 8 {
		t.Errorf("drop channel 2, which the table has: %v, %+v", err, n.Channels())
	}
	channels(3)
	sameRSS(t, "with just enough channels", h.took(t), table, key)
	if err := n.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.SetRSS(ctx, nic.RSSChange{Default: true}); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("while suspended: %v", err)
	}
	if err := n.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	sameRSS(t, "after a suspension", h.took(t), table, key)

	// Another host, whose table has another size: what was set is of no use there,
	// and is back with one that it fits.
	h.offer(16)
	if err := errors.Join(n.Detach(ctx), n.Reattach(ctx, h)); err != nil {
		t.Fatal(err)
	}
	sameRSS(t, "with a smaller table", h.took(t), evenTable(16, 3), key)
	h.offer(128)
	if err := errors.Join(n.Detach(ctx), n.Reattach(ctx, h)); err != nil {
		t.Fatal(err)
	}
	sameRSS(t, "with the old size", h.took(t), table, key)
	h.mu.Lock()
	h.grant = 1 // and two channels
	h.mu.Unlock()
	if err := errors.Join(n.Detach(ctx), n.Reattach(ctx, h)); err != nil {
		t.Fatal(err)
	}
	sameRSS(t, "with fewer channels", h.took(t), evenTable(128, 2), key)
	if err := n.SetRSS(ctx, nic.RSSChange{Default: true}); err != nil {
		t.Fatal(err)
	}
	channels(1)
	sameRSS(t, "the default again", n.RSS(), evenTable(128, 1), key)
}

// TestRSSRefusedAtBringUp: a host that does not want to spread has a NIC all the same.
func TestRSSRefusedAtBringUp(t *testing.T) {
	h := newRSSHost(128)
	h.refused = rndis.StatusFailure
	n := open(t, h.fakeHost, Config{Queues: 4})
	if got := n.Channels().Combined; got != 4 {
		t.Errorf("%d channels", got)
	}
}
