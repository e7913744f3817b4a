package conform

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"hvnet/hv"
	"hvnet/rule"
	"hvnet/vmbus/channel"
)

// A Watch stands between a host and one guest, and writes a [Transcript] of what they
// say. What it hears it writes down before it passes it on, so that the text has each
// question before its answer.
//
// Packets take a detour: a pair of rings in ordinary memory lies between the guest's
// channel and the device, and a goroutine carries packets from one to the other. They
// arrive as they were sent and in their order, but later.
type Watch struct {
	*Transcript
	guest hv.Guest

	mu     sync.Mutex
	relays map[*relay]bool // that run
}

// New returns a watch of a guest.
func New(g hv.Guest, cfg Config) *Watch {
	return &Watch{Transcript: NewTranscript(cfg), guest: g, relays: map[*relay]bool{}}
}

// Broken writes down a rule that the guest has broken, but for what a host finds in the
// remains of a guest that is gone: memory that is not there.
func (w *Watch) Broken(err error) {
	select {
	case <-w.guest.Done():
	default:
		w.Transcript.Broken(err)
	}
}

// catchUp waits until the packets that are on the rings now are written down and on
// their way: whoever sent them before a message is to be read so.
func (w *Watch) catchUp() {
	w.mu.Lock()
	relays := slices.Collect(maps.Keys(w.relays))
	w.mu.Unlock()
	for _, r := range relays {
		r.catchUp()
	}
}

// Guest returns the guest for the host's bus to serve.
func (w *Watch) Guest() hv.Guest { return &guest{w.guest, w} }

// guest is the boundary with someone who listens to its messages.
type guest struct {
	hv.Guest
	w *Watch
}

func (g *guest) PostMessage(vp int, payload []byte) error {
	g.w.catchUp()
	g.w.Message(Host, payload)
	return g.Guest.PostMessage(vp, payload)
}

func (g *guest) Serve(h hv.Handler) error { return g.Guest.Serve(handler{h, g.w}) }

// handler is the host's end of the hypercalls.
type handler struct {
	hv.Handler
	w *Watch
}

func (h handler) Messages(conn uint32, m []hv.Message) hv.Status {
	h.w.catchUp()
	for i := range m {
		h.w.Message(Guest, m[i].Payload())
	}
	status := h.Handler.Messages(conn, m)
	if status != hv.StatusSuccess {
		h.w.refused(conn, status)
	}
	return status
}

// refused writes down a message that the host did not take.
func (t *Transcript) refused(conn uint32, status hv.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line("%-6s (connection %d: %v)", Host, conn, status)
}

// Backend returns open, which makes the backend of a device, so that the device's
// packets are watched.
func (w *Watch) Backend(open func(channel.Bus) channel.Backend) func(channel.Bus) channel.Backend {
	return func(b channel.Bus) channel.Backend {
		d := &device{Bus: b, w: w, relays: map[*channel.Channel]*relay{}}
		d.buffers.views = map[uint32]*hv.Mapping{}
		d.backend = open(d)
		return d
	}
}

// A device is the backend for the bus, and the bus for the backend.
type device struct {
	channel.Bus
	backend channel.Backend
	w       *Watch
	relays  map[*channel.Channel]*relay // by the guest's channel; the bus's calls come one at a time

	mu      sync.Mutex
	buffers buffers // with views of our own of the GPADLs that the backend has mapped
	primary *relay
}

// Open hands the backend the far end of a relay.
func (d *device) Open(c *channel.Channel) error {
	r, err := newRelay(d, c)
	if err != nil {
		return err
	}
	if err := d.backend.Open(r.far); err != nil {
		return err
	}
	d.relays[c] = r
	if c.Index == 0 {
		d.mu.Lock()
		d.primary = r
		d.mu.Unlock()
	}
	r.start()
	d.w.mu.Lock()
	d.w.relays[r] = true
	d.w.mu.Unlock()
	return nil
}

// Close takes a channel away from both.
func (d *device) Close(c *channel.Channel) {
	r := d.relays[c]
	delete(d.relays, c)
	d.w.mu.Lock()
	delete(d.w.relays, r)
	d.w.mu.Unlock()
	r.far.Close()
	d.backend.Close(r.far)
	r.stop()
	if c.Index == 0 {
		d.mu.Lock()
		d.primary = nil
		d.mu.Unlock()
	}
}

// Map is the bus's, and keeps a view for the text. The GPADL can't go before both are
// there: Revoke waits.
func (d *device) Map(gpadl uint32) (*hv.Mapping, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.Bus.Map(gpadl)
	if err != nil {
		return nil, err
	}
	if view, err := d.Bus.Map(gpadl); err == nil {
		d.buffers.drop(gpadl)
		d.buffers.views[gpadl] = view
	}
	return m, nil
}

// Revoke takes a GPADL away from both.
func (d *device) Revoke(gpadl uint32) {
	d.mu.Lock()
	d.buffers.drop(gpadl)
	d.mu.Unlock()
	d.backend.Revoke(gpadl)
}

// Removed ends both.
func (d *device) Removed() {
	d.backend.Removed()
	d.mu.Lock()
	defer d.mu.Unlock()
	for gpadl := range d.buffers.views {
		d.buffers.drop(gpadl)
	}
}

// OfferSubChannels waits until the guest has the answer to its request for them: a
// guest may take no notice of a sub-channel that comes before.
func (d *device) OfferSubChannels(n int) error {
	d.mu.Lock()
	r := d.primary
	d.mu.Unlock()
	if r == nil {
		return nil // the guest has just closed the device
	}
	r.offer.Store(int32(n))
	r.near.Wake()
	return nil
}

// fault ends the guest whose memory is gone.
func (d *device) fault(err error) {
	if errors.Is(err, hv.ErrFault) {
		go d.w.guest.Close()
	}
}

// corrupt writes down that the guest's ring can't be believed any more.
func (d *device) corrupt(err error) { d.w.Broken(rule.Ring.Err(err)) }
