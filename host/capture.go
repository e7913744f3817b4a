package host

import (
	"sync"

	"hvnet/conform"
	"hvnet/link/pcap"
	"hvnet/netvsp"
	"hvnet/nic"
	"hvnet/vswitch"
)

// views are where the frames of a host's ports can be captured. The zero value has none.
type views struct {
	mu   sync.Mutex
	list map[string]*view // by name of the port
}

// A view is that of one port, for as long as somebody captures there or something is
// connected.
type view struct {
	frames pcap.Point
	users  int
	want   int // of them, those who want to have messages too
}

// use returns the view of a port, until leave is called.
func (v *views) use(port string) *view {
	v.mu.Lock()
	defer v.mu.Unlock()
	one := v.list[port]
	if one == nil {
		if v.list == nil {
			v.list = map[string]*view{}
		}
		one = &view{}
		v.list[port] = one
	}
	one.users++
	return one
}

// leave is called once for each use.
func (v *views) leave(port string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if one := v.list[port]; one.users > 1 {
		one.users--
	} else {
		delete(v.list, port)
	}
}

// Capture begins a capture of the frames at a port, as what is behind the port sends and
// gets them: a bad line is beyond. There need not be such a port now: it may come, go, and
// come back. done has to be called when the capture is over.
func (h *Host) Capture(port string, cfg pcap.Config) (c *pcap.Capture, done func(), err error) {
	v := h.see.use(port)
	if c, err = v.frames.Capture(cfg); err != nil {
		h.see.leave(port)
		return nil, nil, err
	}
	want := 0
	if cfg.Messages {
		want = 1
	}
	h.see.wants(v, want)
	return c, func() {
		h.see.wants(v, -want)
		h.see.leave(port)
	}, nil
}

// wants adds n to those who want to have messages.
func (v *views) wants(one *view, n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	one.want += n
}

// watched returns how a guest that attaches to a port is to be watched: for who wants to
// watch all guests, and for captures.
func (h *Host) watched(port string) (cfg conform.Config, ok bool) {
	h.see.mu.Lock()
	one := h.see.list[port]
	ok = one != nil && one.want > 0
	h.see.mu.Unlock()
	if h.cfg.Watch != nil {
		cfg, ok = h.cfg.Watch(port), true
	}
	said := cfg.Said
	cfg.Said = func(s conform.Said) {
		h.see.said(port, s)
		if said != nil {
			said(s)
		}
	}
	return cfg, ok
}

// said has a message captured at a port.
func (v *views) said(port string, s conform.Said) {
	v.mu.Lock()
	one := v.list[port]
	v.mu.Unlock()
	if one == nil {
		return
	}
	m := pcap.Message{Direction: pcap.Inbound, Protocol: s.Protocol, Text: s.Text, Bytes: s.Bytes}
	if s.From == conform.Guest {
		m.Direction = pcap.Outbound
	}
	one.frames.Message(m)
}

// connect connects a sink to the switch, in view.
func (h *Host) connect(name, path string, out nic.Sink, opt vswitch.PortOptions) (netvsp.Port, error) {
	return h.see.connect(name, path, out, func(out nic.Sink) (netvsp.Port, error) { return h.plug(name, out, opt) })
}

// connect connects what is behind a port by plain, in view.
func (v *views) connect(port, path string, out nic.Sink, plain func(nic.Sink) (netvsp.Port, error)) (netvsp.Port, error) {
	one := v.use(port)
	in := pcap.Place{Direction: pcap.Inbound, Path: path}
	p, err := plain(one.frames.Sink(out, in))
	if err != nil {
		v.leave(port)
		return nil, err
	}
	sent := pcap.Place{Direction: pcap.Outbound, Path: path}
	if path == pcap.Synthetic {
		sent.Queue = pcap.Channel
	}
	return &seen{Sink: one.frames.Sink(p, sent), port: p, leave: sync.OnceFunc(func() { v.leave(port) })}, nil
}

// seen is a port in view.
type seen struct {
	nic.Sink
	port  netvsp.Port
	leave func()
}

// Close takes the port off the switch.
func (s *seen) Close() {
	s.port.Close()
	s.leave()
}
