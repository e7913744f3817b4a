package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/nic"
)

// The guests of the soak, by the names of their ports; a guest's number is its
// place here. Between the first ones the line is always good: nothing may be
// changed, doubled or overtaken there. The lines of the rough ones are disturbed.
var names = []string{"clean1", "clean2", "clean3", "rough1", "rough2", "rough3"}

const firstRough = 3

// vps is the number of virtual processors of each guest, and so its channels at
// most.
const vps = 4

// The MTU of the guests, at first and at most.
const (
	defaultMTU = 1500
	maxMTU     = 9000
)

const (
	senders = 2 // goroutines of a station that send
	flows   = 4 // of each
)

// step bounds how long each thing may take that is asked of a station.
const step = 30 * time.Second

// Counts are what a station has seen in this life of it.
type Counts struct {
	Sent, Received uint64
	Counted        uint64 // received, of those that are counted
	Damaged        uint64 // not as they were sent
	Late           uint64 // overtaken or doubled
	Old            uint64 // of an earlier life of their sender
	Faults         []string
}

// add adds the numbers of another life.
func (c *Counts) add(d Counts) {
	c.Sent += d.Sent
	c.Received += d.Received
	c.Damaged += d.Damaged
	c.Late += d.Late
	c.Old += d.Old
}

// maxFaults is how many faults are told; more of them tell no more.
const maxFaults = 5

// A station is one life of a guest with traffic.
type station struct {
	number int
	g      *guest.Guest
	cut    func() // takes the host away without a word; nil if that can't be done
	life   uint64

	stop    context.CancelFunc
	sending sync.WaitGroup
	quiet   atomic.Bool
	sent    atomic.Uint64

	mu    sync.Mutex
	count Counts
	heard [16]sender // by number of the sender
	buf   []byte
}

// A sender is what was heard of another station.
type sender struct {
	life uint64
	next [2][senders * flows]uint64 // the number after the largest so far, by mark and flow
	seen [2][senders * flows]uint64 // which of the 64 before it have come
}

// join makes a station of a guest, which start starts.
func join(ctx context.Context, number int, seed uint64, start func(guest.Config) (*guest.Guest, error)) (*station, error) {
	r := rand.New(rand.NewPCG(seed, uint64(number)))
	g, err := start(guest.Config{Name: names[number], VPs: vps, Queues: 1 + r.IntN(vps)})
	if err != nil {
		return nil, fmt.Errorf("%s joins: %w", names[number], err)
	}
	s := &station{number: number, g: g, life: uint64(time.Now().UnixNano()), buf: make([]byte, nic.MaxFrame)}
	if err := g.NIC.Up(ctx, s); err != nil {
		return nil, errors.Join(fmt.Errorf("%s joins: %w", names[number], err), g.Close(ctx))
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	for i := range senders {
		seed := r.Uint64()
		s.sending.Go(func() { s.send(ctx, i, rand.New(rand.NewPCG(seed, 0))) })
	}
	return s, nil
}

// send sends bursts of frames of all sizes to all others until ctx ends.
func (s *station) send(ctx context.Context, queue int, r *rand.Rand) {
	const most = 32
	var seq [flows]uint64
	buf := make([]byte, most*(maxMTU+nic.HeaderLen))
	list := make([]nic.Frame, 0, most)
	for ctx.Err() == nil {
		list = list[:0]
		size := min(s.g.NIC.MTU(), maxMTU) + nic.HeaderLen
		for i := range 1 + r.IntN(most) {
			if s.quiet.Load() {
				break
			}
			flow := r.IntN(flows)
			b := buf[i*size:][:minFrame+r.IntN(size-minFrame+1)]
			s.label(b, markTraffic, s.other(r), queue*flows+flow, seq[flow])
			seq[flow]++
			list = append(list, nic.Frame{Head: b})
		}
		s.sendAll(ctx, queue, list)
		pause(ctx, time.Duration(r.IntN(4000))*time.Microsecond)
	}
}

// other chooses another station.
func (s *station) other(r *rand.Rand) int {
	return (s.number + 1 + r.IntN(len(names)-1)) % len(names)
}

func (s *station) label(b []byte, mark uint32, to, flow int, seq uint64) {
	l := label{mark: mark, sender: uint16(s.number), flow: uint16(flow), life: s.life, seq: seq}
	l.write(b, host.PortMAC(names[to]), s.g.NIC.MAC(), uint16(to))
}

// sendAll sends frames, in time with the host.
func (s *station) sendAll(ctx context.Context, queue int, list []nic.Frame) {
	for len(list) > 0 && ctx.Err() == nil {
		n := s.g.NIC.Send(queue, list)
		s.sent.Add(uint64(n))
		if list = list[n:]; n == 0 {
			pause(ctx, time.Millisecond)
		}
	}
}

// WriteFrames checks what has arrived.
func (s *station) WriteFrames(frames []nic.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range frames {
		b := s.buf[:frames[i].Len()]
		frames[i].CopyTo(b)
		s.check(b)
	}
}

// check checks one frame.
func (s *station) check(b []byte) {
	c := &s.count
	c.Received++
	// The addresses are never disturbed, so they say whose line it came by.
	from := slices.IndexFunc(names, func(n string) bool { return len(b) >= 12 && host.PortMAC(n) == nic.MAC(b[6:12]) })
	clean := from >= 0 && from < firstRough && s.number < firstRough
	fault := func(format string, a ...any) {
		if (from < 0 || clean) && len(c.Faults) < maxFaults {
			c.Faults = append(c.Faults, fmt.Sprintf("%s got a frame of %d bytes: ", names[s.number], len(b))+fmt.Sprintf(format, a...))
		}
	}
	if from < 0 || nic.MAC(b[:6]) != host.PortMAC(names[s.number]) {
		fault("addresses % x", b[:min(len(b), 12)])
		return
	}
	l, err := read(b)
	if err != nil || int(l.sender) != from || int(l.flow) >= senders*flows {
		c.Damaged++
		fault("from %s: %v", names[from], err)
		return
	}
	h := &s.heard[from]
	switch {
	case l.life < h.life:
		c.Old++
		return
	case l.life > h.life:
		*h = sender{life: l.life}
	}
	if order := h.order(l); order != nil {
		c.Late++
		fault("from %s: number %d of flow %d %v", names[from], l.seq, l.flow, order)
		if order == errTwice {
			return
		}
	}
	if l.mark == markCounted {
		c.Counted++
	}
}

// What order says of a frame that is not the next one.
var (
	errTwice = errors.New("came twice")
	errLate  = errors.New("was overtaken")
)

// order tells whether a frame comes in order, whatever becomes of the channels, and
// for the first time, as far as the last 64 of a flow can tell.
func (h *sender) order(l label) error {
	next, seen := &h.next[l.mark-markTraffic][l.flow], &h.seen[l.mark-markTraffic][l.flow]
	if l.seq >= *next {
		*seen = *seen<<min(l.seq-*next+1, 64) | 1 // bit 0 is the newest
		*next = l.seq + 1
		return nil
	}
	back := *next - 1 - l.seq
	if back >= 64 {
		return errLate
	}
	if *seen>>back&1 != 0 {
		return errTwice
	}
	*seen |= 1 << back
	return errLate
}

// Counts returns what the station has seen.
func (s *station) counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.count
	c.Sent = s.sent.Load()
	c.Faults = slices.Clone(c.Faults)
	return c
}

// A command is what is asked of a station.
type command struct {
	Do string
	N  int
}

// do does what a command asks.
func (s *station) do(ctx context.Context, c command) error {
	ctx, cancel := context.WithTimeout(ctx, step)
	defer cancel()
	switch c.Do {
	case "count":
		return nil
	case "channels":
		return s.g.NIC.SetChannels(ctx, c.N)
	case "move":
		return s.g.NIC.Move(ctx, c.N/vps%s.g.NIC.Channels().Combined, c.N%vps)
	case "mtu":
		return s.g.NIC.SetMTU(ctx, c.N)
	case "rings":
		return s.g.NIC.SetRings(ctx, c.N, min(c.N, 1000))
	case "down and up":
		return errors.Join(s.g.NIC.Down(ctx), s.g.NIC.Up(ctx, s))
	case "suspend":
		if err := s.g.NIC.Suspend(ctx); err != nil {
			return err
		}
		pause(ctx, time.Duration(c.N)*time.Millisecond)
		return s.g.NIC.Resume(ctx)
	case "await the link": // changes of it take effect every two seconds
		for !s.g.NIC.Link().Up {
			if ctx.Err() != nil {
				return errors.New("the link stays down")
			}
			pause(ctx, 10*time.Millisecond)
		}
		return nil
	case "quiet":
		s.quiet.Store(true)
		return nil
	case "counted":
		return s.sendCounted(ctx, c.N)
	case "leave":
		s.stop()
		s.sending.Wait()
		return errors.Join(s.g.Close(ctx), s.account(ctx))
	case "account":
		return s.account(ctx)
	case "die": // host and guest lose each other without a word
		s.cut()
		s.stop()
		s.sending.Wait()
		s.g.Close(ctx) // for what is left here; the host is no longer there to ask
		return s.account(ctx)
	}
	return fmt.Errorf("command %q: unknown", c.Do)
}

// account waits until all the memory that the station sends from is free.
func (s *station) account(ctx context.Context) error {
	for {
		var err error
		for _, a := range s.g.NIC.Accounts() {
			err = errors.Join(err, a.AtRest())
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// sendCounted sends n frames to each other station, slowly enough for all to
// arrive.
func (s *station) sendCounted(ctx context.Context, n int) error {
	b := make([]byte, s.g.NIC.MTU()+nic.HeaderLen)
	for i := range n {
		for to := range names {
			if to == s.number {
				continue
			}
			frame := b[:minFrame+(i*37+to*11)%(len(b)-minFrame)]
			s.label(frame, markCounted, to, i%flows, uint64(i))
			s.sendAll(ctx, 0, []nic.Frame{{Head: frame}})
		}
		if i%16 == 15 {
			pause(ctx, time.Millisecond)
		}
	}
	return ctx.Err()
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
