package host

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"hvnet/link/impair"
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
	for _, word := range strings.Split(rules, ",") {
		dir, ok := strings.CutPrefix(word, "dir=")
		switch {
		case !ok:
			line = append(line, word)
		case dir == "to-guest":
			im.FromGuest = false
		case dir == "from-guest":
			im.ToGuest = false
		case dir != "both":
			return "", im, fmt.Errorf("%s: want to-guest, from-guest or both", word)
		}
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
	rest  Impairment            // of the ports without rules
	lines map[string]*badLine   // of those, the ones that are connected
}

// Impair disturbs the line of a guest's port from the next time on that a guest
// connects to it. The zero Impairment ends that.
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
	wire     *offload.Sink // in front of from: lines are bad to what is on a wire
	closed   func()
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

// connect connects a guest to its port by a line that is disturbed as the port's
// Impairment has it; by a plain one if there is none.
func (b *badLines) connect(port string, guest nic.Sink, plain func(nic.Sink) (netvsp.Port, error)) (netvsp.Port, error) {
	b.mu.Lock()
	im, ok := b.rules[port]
	if !ok {
		im = b.rest
	}
	b.mu.Unlock()
	if !im.ToGuest && !im.FromGuest {
		return plain(guest)
	}
	l := &badLine{}
	if im.ToGuest {
		l.to = impair.New(im.Line, guest)
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
		if b.lines[port] == l {
			delete(b.lines, port)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines == nil {
		b.lines = map[string]*badLine{}
	}
	b.lines[port] = l
	return l, nil
}

// A LineInfo tells what was done to the frames of one direction.
type LineInfo struct {
	Direction string // "to guest", "from guest"
	impair.Info
}

// info tells about both directions of a port's line, nothing of a good one.
func (b *badLines) info(port string) (list []LineInfo) {
	b.mu.Lock()
	l := b.lines[port]
	b.mu.Unlock()
	if l == nil {
		return nil
	}
	if l.from != nil {
		list = append(list, LineInfo{"from guest", l.from.Info()})
	}
	if l.to != nil {
		list = append(list, LineInfo{"to guest", l.to.Info()})
	}
	return list
}
