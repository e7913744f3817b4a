package offload

import "testing"

func TestFragment(t *testing.T) {
	v4, v6 := packetOf(0), packetOf(5)
	with := func(p packet, change func(*packet)) []byte { change(&p); return p.frame() }
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"whole", v4.frame(), false},
		{"not to be fragmented", with(v4, func(p *packet) { p.fragment = 0x4000 }), false},
		{"the first", with(v4, func(p *packet) { p.fragment = 0x2000 }), true},
		{"a middle one", with(v4, func(p *packet) { p.fragment = 0x2010 }), true},
		{"the last", with(v4, func(p *packet) { p.fragment = 1 }), true},
		{"tagged", with(v4, func(p *packet) { p.fragment, p.vlan = 1, true }), true},
		{"tagged and whole", with(v4, func(p *packet) { p.vlan = true }), false},
		{"IPv6", v6.frame(), false},
		{"IPv6 with a fragment header", with(v6, func(p *packet) { p.proto = 44 }), true},
		{"ARP", func() []byte { b := with(v4, func(p *packet) { p.fragment = 1 }); b[13] = 6; return b }(), false},
		{"IPv4 cut off", with(v4, func(p *packet) { p.fragment = 1 })[:33], false},
		{"IPv6 cut off", with(v6, func(p *packet) { p.proto = 44 })[:53], false},
		{"tag cut off", with(v4, func(p *packet) { p.vlan = true })[:17], false},
		{"nothing", nil, false},
	} {
		if got := Fragment(c.frame); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
