package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"hvnet/link/impair"
	"hvnet/link/pcap"
	"hvnet/netvsp"
	"hvnet/nic"
	"hvnet/offload"
)

// An Impairment says how the line between a guest's port and the switch is
// disturbed.
type Impairment struct {
	ToGuest, FromGuest bool // the directions; frames of the other one pass as they are
	Line               impair.Config
}

// ParseImpairment reads text such as "guest1:loss=1%,delay=5ms,dir=to-guest": the
// name of a port, what impair.Parse reads, and dir=to-guest, from-guest or both,
// which is what it means without.
func ParseImpairment(text string) (port string, im Impairment, err error) {
	port, rules, ok := strings.Cut(text, ":")
	if !ok || port == "" {
		return "", im, errors.New("want PORT:RULES, such as guest1:loss=1%,delay=5ms")
	}
	var line []string
	im.ToGuest, im.FromGuest = true, true
	directed := false
	for _, word := range strings.Split(rules, ",") {
		dir, ok := strings.CutPrefix(word, "dir=")
		switch {
		case !ok:
			line = append(line, word)
			continue
		case directed:
			return "", im, errors.New("dir is there twice")
		case dir == "to-guest":
			im.FromGuest = false
		case dir == "from-guest":
			im.ToGuest = false
		case dir != "both":
			return "", im, fmt.Errorf("%s: want to-guest, from-guest or both", word)
		}
		directed = true
	}
	if im.Line, err = impair.Parse(strings.Join(line, ",")); err != nil {
		return "", im, err
	}
	return port, im, nil
}

// badLines are the lines of a host that are disturbed. The zero value has none.
type badLines struct {
	mu    sync.Mutex
	rules map[string]Impairment // by name of the port
	rest  Impairment            // of the ports without rules, but for their functions
	lines map[lineAt]*badLine   // of those, the ones that are connected
}

// A lineAt says which line: a port has one for each path.
type lineAt struct{ port, path string }

// Impair disturbs the line of a guest's port from the next time on that a guest
// connects to it. The zero Impairment ends that. The port's virtual function has a line of
// its own, which is disturbed in the same way, with chances of its own.
func (h *Host) Impair(port string, im Impairment) {
	b := &h.bad
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rules == nil {
		b.rules = map[string]Impairment{}
	}
	b.rules[port] = im
}

// ErrNoFault is returned for a fault that a host release does not have.
var ErrNoFault = errors.New("this host release has no such fault")

// FragmentFault has the lines of all guests that connect from now on, but for those with
// an Impairment of their own, lose fragments as the host release is known to do:
// what a guest sends is delayed by a time that each channel has of its own, and of what
// then comes out of order fragments are lost. It returns what that is, or ErrNoFault if
// the release does not do so; see [profile.Profile].
func (h *Host) FragmentFault(seed uint64) (Impairment, error) {
	skew := h.cfg.Profile.FragmentSkew
	if skew == 0 {
		return Impairment{}, fmt.Errorf("lose fragments as %s: %w", h.cfg.Profile.Name, ErrNoFault)
	}
	im := Impairment{FromGuest: true, Line: impair.Config{Unordered: 1, Skew: skew, Seed: seed}}
	h.bad.mu.Lock()
	defer h.bad.mu.Unlock()
	h.bad.rest = im
	return im, nil
}

// String returns the rules as ParseImpairment reads them, without the port.
func (im Impairment) String() string {
	switch {
	case !im.ToGuest:
		return im.Line.String() + ",dir=from-guest"
	case !im.FromGuest:
		return im.Line.String() + ",dir=to-guest"
	}
	return im.Line.String()
}

// badLine is a guest's port of the switch with what disturbs its line: sinks in
// front of the port and of the guest. Either may be nil.
type badLine struct {
	netvsp.Port
	to, from *impair.Sink
	gate     gate          // behind to
	wire     *offload.Sink // in front of from: lines are bad to what is on a wire
	closed   func()
}

// A gate is a sink that lets nothing pass once it is shut.
type gate struct {
	out  nic.Sink
	mu   sync.RWMutex // held, shared, while frames pass
	shut bool
}

func (g *gate) WriteFrames(frames []nic.Frame) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if !g.shut {
		g.out.WriteFrames(frames)
	}
}

// spare has nothing more go to the guest: when it returns, nothing is on its way.
func (l *badLine) spare() {
	if l == nil || l.to == nil {
		return
	}
	l.to.Close()
	l.gate.mu.Lock()
	l.gate.shut = true
	l.gate.mu.Unlock()
}

// drain waits until what was delayed has passed; between is what is behind the line at the
// guest's end, which is drained in its turn.
func (l *badLine) drain(ctx context.Context, between func(context.Context) error) error {
	var errs []error
	if l != nil && l.to != nil {
		errs = append(errs, l.to.Drain(ctx))
	}
	errs = append(errs, between(ctx))
	if l != nil && l.from != nil {
		errs = append(errs, l.from.Drain(ctx))
	}
	return errors.Join(errs...)
}

// WriteFrames takes frames from the guest.
func (l *badLine) WriteFrames(frames []nic.Frame) {
	if l.from != nil {
		l.wire.WriteFrames(frames)
		return
	}
	l.Port.WriteFrames(frames)
}

// Close ends both directions and takes the port off the switch.
func (l *badLine) Close() {
	for _, s := range []*impair.Sink{l.to, l.from} {
		if s != nil {
			s.Close()
		}
	}
	l.Port.Close()
	l.closed()
}

// connect connects a guest to its port, on one of its paths, by a line that is disturbed as
// the port's Impairment has it; by a plain one if there is none.
func (b *badLines) connect(port, path string, guest nic.Sink, plain func(nic.Sink) (netvsp.Port, error)) (netvsp.Port, error) {
	b.mu.Lock()
	im, ok := b.rules[port]
	if !ok && path == pcap.Synthetic {
		im = b.rest
	}
	b.mu.Unlock()
	if !im.ToGuest && !im.FromGuest {
		return plain(guest)
	}
	if path == pcap.VF {
		im.Line.Seed += 2
	}
	at := lineAt{port, path}
	l := &badLine{gate: gate{out: guest}}
	if im.ToGuest {
		l.to = impair.New(im.Line, &l.gate)
		guest = l.to
	}
	var err error
	if l.Port, err = plain(guest); err != nil {
		return nil, err
	}
	if im.FromGuest {
		im.Line.Seed++ // the two directions have chances of their own
		l.from = impair.New(im.Line, l.Port)
		l.wire = offload.NewSink(l.from)
	}
	l.closed = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.lines[at] == l {
			delete(b.lines, at)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines == nil {
		b.lines = map[lineAt]*badLine{}
	}
	b.lines[at] = l
	return l, nil
}

// line returns the line of a port's path, nil if it is a good one.
func (b *badLines) line(port, path string) *badLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[lineAt{port, path}]
}

// A LineInfo tells what was done to the frames of one direction.
type LineInfo struct {
	Direction string // "to guest", "from guest"; with " by VF" if that is their path
	impair.Info
}

// info tells about both directions of a port's lines, nothing of good ones.
func (b *badLines) info(port string) (list []LineInfo) {
	for _, path := range []string{pcap.Synthetic, pcap.VF} {
		l := b.line(port, path)
		if l == nil {
			continue
		}
		by := ""
		if path == pcap.VF {
			by = " by VF"
		}
		if l.from != nil {
			list = append(list, LineInfo{"from guest" + by, l.from.Info()})
		}
		if l.to != nil {
			list = append(list, LineInfo{"to guest" + by, l.to.Info()})
		}
	}
	return list
}
