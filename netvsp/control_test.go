package netvsp

import (
	"errors"
	"slices"
	"testing"

	"hvnet/netvsp/profile"
	"hvnet/nvsp"
)

func newControl(t *testing.T, name string) *control {
	t.Helper()
	p, err := profile.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return &control{profile: p, vps: 8}
}

// ready brings a control to where both buffers are there.
func ready(t *testing.T, v nvsp.Version) *control {
	t.Helper()
	c := newControl(t, "ws2022")
	say(t, c, nvsp.Init{Min: v, Max: v})
	if v >= nvsp.V2 {
		say(t, c, nvsp.NDISConfig{MTU: 1514})
	}
	say(t, c, v.NDIS())
	say(t, c, nvsp.SendReceiveBuffer{GPADL: 1, ID: nvsp.ReceiveBufferID})
	if n, _, e := c.receiveMapped(1<<20, nil); n == 0 || e.fault != nil {
		t.Fatalf("receive buffer: %v", e.fault)
	}
	say(t, c, nvsp.SendSendBuffer{GPADL: 2})
	if n, _, e := c.sendMapped(1<<20, nil); n == 0 || e.fault != nil {
		t.Fatalf("send buffer: %v", e.fault)
	}
	return c
}

type message interface{ Append([]byte) []byte }

// say hands over a message that must be in order.
func say(t *testing.T, c *control, m message) effect {
	t.Helper()
	e := c.handle(m.Append(nil))
	if e.fault != nil {
		t.Fatalf("%T: %v", m, e.fault)
	}
	return e
}

func TestVersions(t *testing.T) {
	for _, name := range profile.Names() {
		p, _ := profile.Lookup(name)
		for _, v := range append(nvsp.Versions(), 3, 0x70000, 0) {
			c := newControl(t, name)
			e := c.handle(nvsp.Init{Min: v, Max: v}.Append(nil))
			a, err := nvsp.ParseInitComplete(e.reply)
			if err != nil {
				t.Fatal(err)
			}
			if len(e.reply) < 28 {
				t.Errorf("%s, %v: answer of %d bytes", name, v, len(e.reply))
			}
			if want := slices.Contains(p.NVSP, v); want != (a.Status == nvsp.StatusSuccess) || e.fault != nil {
				t.Errorf("%s, %v: %v, fault %v", name, v, a.Status, e.fault)
			}
			wantVersion := uint32(0xffffffff)
			if v == nvsp.V1 {
				wantVersion = 2
			}
			if a.Status == nvsp.StatusSuccess && (a.Version != wantVersion || a.MaxMDL != 34 || len(e.reply) != v.Size()) {
				t.Errorf("%s, %v: %+v in %d bytes", name, v, a, len(e.reply))
			}
		}
	}
	// A refused version leaves the next try open.
	c := newControl(t, "ws2012")
	for i, v := range []nvsp.Version{nvsp.V61, nvsp.V6, nvsp.V5, nvsp.V4} {
		a, _ := nvsp.ParseInitComplete(say(t, c, nvsp.Init{Min: v, Max: v}).reply)
		if want := map[bool]nvsp.Status{true: nvsp.StatusSuccess, false: nvsp.StatusTooNew}[i == 3]; a.Status != want {
			t.Errorf("try %v: %v, want %v", v, a.Status, want)
		}
	}
}

// TestOrder says what every message out of order is answered with.
func TestOrder(t *testing.T) {
	receive := nvsp.SendReceiveBuffer{GPADL: 1, ID: nvsp.ReceiveBufferID}
	send := nvsp.SendSendBuffer{GPADL: 1}
	config := nvsp.NDISConfig{MTU: 1514}
	ndis := nvsp.NDISVersion{Major: 6, Minor: 30}
	sub := nvsp.SubChannelRequest{Op: nvsp.SubChannelAllocate, Count: 1}
	init := nvsp.Init{Min: nvsp.V61, Max: nvsp.V61}
	for _, tt := range []struct {
		what   string
		before []message
		m      message
		reply  nvsp.MessageType // 0: not answered
		field  uint32           // its status, at byte 4 but for INIT
	}{
		{"config first", nil, config, 0, 0},
		{"NDIS version first", nil, ndis, 0, 0},
		{"receive buffer first", nil, receive, 0, 0},
		{"receive buffer without config", []message{init}, receive, nvsp.TypeSendReceiveBufferComplete, 2},
		{"send buffer without config", []message{init}, send, nvsp.TypeSendSendBufferComplete, 2},
		{"config twice", []message{init, config}, config, 0, 0},
		{"NDIS version twice", []message{init, config, ndis}, ndis, 0, 0},
		{"receive buffer twice", []message{init, config, receive}, receive, nvsp.TypeSendReceiveBufferComplete, 2},
		{"send buffer twice", []message{init, config, send}, send, nvsp.TypeSendSendBufferComplete, 2},
		{"config after the receive buffer", []message{nvsp.Init{Min: nvsp.V1, Max: nvsp.V1}, receive}, config, 0, 0},
		{"receive buffer of another id", []message{init, config}, nvsp.SendReceiveBuffer{GPADL: 1, ID: 1}, nvsp.TypeSendReceiveBufferComplete, 2},
		{"sub-channels without buffer", []message{init, config}, sub, nvsp.TypeSubChannel, 2},
		{"revoke without buffer", []message{init, config}, nvsp.RevokeReceiveBuffer{ID: nvsp.ReceiveBufferID}, 0, 0},
		{"revoke send without buffer", []message{init, config}, nvsp.RevokeSendBuffer{}, 0, 0},
		{"a completion", []message{init}, nvsp.InitComplete{}, 0, 0},
		{"an RNDIS completion", []message{init}, nvsp.RNDISPacketComplete{}, 0, 0},
	} {
		c := newControl(t, "ws2022")
		for _, m := range tt.before {
			say(t, c, m)
		}
		before := *c
		e := c.handle(tt.m.Append(nil))
		if e.fault == nil {
			t.Errorf("%s: no fault", tt.what)
		}
		if e.op != opNone {
			t.Errorf("%s: does %d", tt.what, e.op)
		}
		if c.version != before.version || c.receive != before.receive || c.send != before.send || c.config != before.config || c.subChannels != before.subChannels {
			t.Errorf("%s: changed the state", tt.what)
		}
		got, _ := nvsp.PeekType(e.reply)
		if got != tt.reply {
			t.Errorf("%s: answered with %v, want %v", tt.what, got, tt.reply)
		} else if got != 0 && (uint32(e.reply[4]) != tt.field || len(e.reply) < 28) {
			t.Errorf("%s: answer %x", tt.what, e.reply)
		}
	}
	c := ready(t, nvsp.V61)
	e := c.handle(init.Append(nil))
	if a, err := nvsp.ParseInitComplete(e.reply); e.fault == nil || err != nil || a.Status != nvsp.StatusFail || c.version != nvsp.V61 {
		t.Errorf("second INIT: %+v, %v, fault %v", a, err, e.fault)
	}
}

func TestVersionGating(t *testing.T) {
	for _, tt := range []struct {
		m     message
		since nvsp.Version
	}{
		{nvsp.NDISConfig{MTU: 1514}, nvsp.V2},
		{nvsp.SwitchDataPath{}, nvsp.V4},
		{nvsp.OIDQueryEx{}, nvsp.V5},
		{nvsp.SubChannelRequest{Op: 1, Count: 1}, nvsp.V5},
	} {
		for _, v := range nvsp.Versions() {
			c := newControl(t, "ws2022")
			say(t, c, nvsp.Init{Min: v, Max: v})
			c.receive, c.hasConfig = bufferReady, false
			if _, ok := tt.m.(nvsp.NDISConfig); ok {
				c.receive = bufferNone
			}
			if e := c.handle(tt.m.Append(nil)); (e.fault == nil) != (v >= tt.since) {
				t.Errorf("%T in version %v: fault %v", tt.m, v, e.fault)
			}
		}
	}
}

func TestMTU(t *testing.T) {
	for mtu, want := range map[uint32]int{0: 1514, 1513: 1514, 1514: 1514, 9014: 9014, 9216: 9216, 9217: 1514, 0xffffffff: 1514} {
		c := newControl(t, "ws2022")
		say(t, c, nvsp.Init{Min: nvsp.V61, Max: nvsp.V61})
		say(t, c, nvsp.NDISConfig{MTU: mtu})
		if c.mtu != want {
			t.Errorf("MTU %d became %d, want %d", mtu, c.mtu, want)
		}
		say(t, c, nvsp.SendReceiveBuffer{GPADL: 1, ID: nvsp.ReceiveBufferID})
		n, size, e := c.receiveMapped(1<<20, nil)
		a, err := nvsp.ParseSendReceiveBufferComplete(e.reply)
		if err != nil {
			t.Fatal(err)
		}
		only, err := a.Only(1 << 20)
		if err != nil || size != want+292 || int(only.Size) != size || int(only.Count) != n || int(only.End) != n*size {
			t.Errorf("MTU %d: %+v, %v", mtu, a, err)
		}
	}
}

func TestBufferSizes(t *testing.T) {
	for _, tt := range []struct {
		v      nvsp.Version
		length int
		err    error
		ok     bool
	}{
		{nvsp.V61, 31 << 20, nil, true},
		{nvsp.V61, 31<<20 + 4096, nil, false},
		{nvsp.V2, 15 << 20, nil, true},
		{nvsp.V2, 15<<20 + 4096, nil, false},
		{nvsp.V61, 4096, nil, true}, // two sections
		{nvsp.V61, 3000, nil, false},
		{nvsp.V61, 0, errors.New("no such GPADL"), false},
	} {
		c := newControl(t, "ws2022")
		say(t, c, nvsp.Init{Min: tt.v, Max: tt.v})
		say(t, c, nvsp.NDISConfig{MTU: 1514})
		say(t, c, nvsp.SendReceiveBuffer{GPADL: 1, ID: nvsp.ReceiveBufferID})
		n, _, e := c.receiveMapped(tt.length, tt.err)
		a, err := nvsp.ParseSendReceiveBufferComplete(e.reply)
		if err != nil || (n > 0) != tt.ok || (a.Status == nvsp.StatusSuccess) != tt.ok || c.started() != tt.ok || len(e.reply) < 28 {
			t.Errorf("version %v, %d bytes: %d sections, %+v, %v", tt.v, tt.length, n, a, err)
		}
		if !tt.ok { // the guest may try again
			if e := say(t, c, nvsp.SendReceiveBuffer{GPADL: 2, ID: nvsp.ReceiveBufferID}); e.op != opMapReceive {
				t.Error("no second try after a refused buffer")
			}
		}
	}
}

func TestSubChannelLimits(t *testing.T) {
	for _, tt := range []struct {
		v     nvsp.Version
		vps   int
		most  int
		op    uint32
		count uint32
		want  uint32 // granted; 0: refused
	}{
		{nvsp.V61, 8, 64, 1, 3, 3},
		{nvsp.V61, 8, 64, 1, 7, 7},
		{nvsp.V61, 8, 64, 1, 63, 7}, // one channel for each processor
		{nvsp.V61, 8, 4, 1, 7, 3},   // the profile has fewer
		{nvsp.V61, 8, 64, 1, 0xffffffff, 7},
		{nvsp.V61, 8, 64, 0, 3, 0},
		{nvsp.V61, 8, 64, 2, 3, 0},
		{nvsp.V61, 8, 64, 1, 0, 0},
		{nvsp.V61, 1, 64, 1, 1, 0},
		{nvsp.V5, 8, 64, 1, 2, 2},
	} {
		c := ready(t, tt.v)
		c.vps, c.profile.MaxChannels = tt.vps, tt.most
		m := nvsp.SubChannelRequest{Op: tt.op, Count: tt.count}.Append(nil)
		e := c.handle(m)
		a, err := nvsp.ParseSubChannelComplete(e.reply)
		if err != nil || a.Count != tt.want || (a.Status == nvsp.StatusSuccess) != (tt.want > 0) || e.n != int(tt.want) {
			t.Errorf("%+v: %+v, %v", tt, a, err)
		}
		if tt.want > 0 {
			if e := c.handle(m); e.fault == nil || e.op != opNone {
				t.Errorf("%+v: granted twice", tt)
			}
		}
	}
}

// FuzzControl feeds any sequence of messages: nothing panics, and what is answered
// is well formed.
func FuzzControl(f *testing.F) {
	seq := func(list ...message) (b []byte) {
		for _, m := range list {
			p := m.Append(nil)
			b = append(append(b, byte(len(p))), p...)
		}
		return b
	}
	f.Add(seq(nvsp.Init{Min: nvsp.V61, Max: nvsp.V61}, nvsp.NDISConfig{MTU: 1514}, nvsp.SendReceiveBuffer{GPADL: 1, ID: nvsp.ReceiveBufferID},
		nvsp.SendSendBuffer{GPADL: 2}, nvsp.SubChannelRequest{Op: 1, Count: 3}, nvsp.RevokeSendBuffer{}, nvsp.RevokeReceiveBuffer{}))
	f.Add(seq(nvsp.Init{Min: nvsp.V4, Max: nvsp.V4}, nvsp.SwitchDataPath{Path: nvsp.PathVF}, nvsp.SwitchDataPath{}))
	f.Add(seq(nvsp.Init{Min: nvsp.V1, Max: nvsp.V1}, nvsp.OIDQueryEx{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, _ := profile.Lookup(profile.Default)
		c := &control{profile: p, vps: 4}
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			e := c.handle(b[1 : 1+n])
			b = b[1+n:]
			switch e.op {
			case opMapReceive:
				_, _, e = c.receiveMapped(1<<20, nil)
			case opMapSend:
				_, _, e = c.sendMapped(1<<20, nil)
			}
			if e.reply != nil && len(e.reply) < 28 {
				t.Fatalf("answer of %d bytes", len(e.reply))
			}
			if c.subChannels > 3 {
				t.Fatalf("%d sub-channels for 4 processors", c.subChannels)
			}
		}
	})
}
