package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"hvnet/host"
	"hvnet/hv/attach"
)

// A member is a guest of the soak through all its lives.
type member struct {
	number int
	kind   string
	enter  func(context.Context, *world, int, uint64) (peer, error)
	peer   peer // nil while it is away
}

func (m *member) name() string { return names[m.number] }

// A world is a host and its guests. It has one user.
type world struct {
	rand *rand.Rand
	path string
	log  func(format string, a ...any)

	host     *host.Host
	hostLog  *slog.Logger
	listener *attach.Listener
	stop     context.CancelFunc
	accepted chan error

	members []*member
	past    Counts         // of lives that are over
	done    map[string]int // events, by name
}

// newWorld starts a host in a directory and lets all guests join.
func newWorld(ctx context.Context, dir string, seed uint64, log func(string, ...any), hostLog *slog.Logger) (w *world, err error) {
	w = &world{rand: rand.New(rand.NewPCG(seed, 0)), path: filepath.Join(dir, "s"),
		log: log, hostLog: hostLog, accepted: make(chan error, 1), done: map[string]int{}}
	if _, err := w.startHost(ctx); err != nil {
		return nil, err
	}
	kinds := []struct {
		kind  string
		enter func(context.Context, *world, int, uint64) (peer, error)
	}{{"pipe", joinPipe}, {"attached", joinAttached}, {"process", joinProcess}}
	for i := range names {
		k := kinds[i%len(kinds)]
		m := &member{number: i, kind: k.kind, enter: k.enter}
		w.members = append(w.members, m)
		if err := w.join(ctx, m); err != nil {
			return nil, errors.Join(err, w.close(ctx))
		}
	}
	return w, nil
}

// startHost starts a host, and says of what kind it is.
func (w *world) startHost(ctx context.Context) (what string, err error) {
	cfg := host.Config{Log: w.hostLog, Monitor: w.rand.IntN(2) == 0}
	w.host = host.New(cfg)
	if w.listener, err = w.host.Listen(w.path, attach.ListenConfig{}); err != nil {
		return "", err
	}
	accepting, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	go func() { w.accepted <- w.host.Accept(accepting, w.listener) }()
	if cfg.Monitor {
		what = "with monitor pages"
	}
	return what, nil
}

// endHost ends the host in order.
func (w *world) endHost(ctx context.Context) error {
	w.stop()
	return errors.Join(<-w.accepted, w.listener.Close(), w.host.Close(ctx))
}

// join lets a member join. Its last life may not be over at the host yet.
func (w *world) join(ctx context.Context, m *member) (err error) {
	ctx, cancel := context.WithTimeout(ctx, step)
	defer cancel()
	for w.hasPort(m) {
		if ctx.Err() != nil {
			return fmt.Errorf("%s joins: the host has not let go of its last life", m.name())
		}
		pause(ctx, time.Millisecond)
	}
	m.peer, err = m.enter(ctx, w, m.number, w.rand.Uint64())
	if err != nil {
		m.peer = nil
	}
	return err
}

// hasPort reports whether the host has a guest at the member's port.
func (w *world) hasPort(m *member) bool {
	return w.host.Admit(host.PortConfig{Name: m.name()}) != nil
}

// ask has a member do something.
func (w *world) ask(ctx context.Context, m *member, c command) error {
	counts, err := m.peer.do(ctx, c)
	for _, f := range counts.Faults {
		err = errors.Join(err, errors.New(f))
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", m.name(), c.Do, err)
	}
	return nil
}

// leave ends a life of a member, in the way of its own command.
func (w *world) leave(ctx context.Context, m *member, how string) error {
	// What a process that is killed has seen is asked before.
	err := w.ask(ctx, m, command{Do: "count"})
	counts, gone := m.peer.do(ctx, command{Do: how})
	m.peer = nil
	w.past.add(counts)
	if gone != nil {
		err = errors.Join(err, fmt.Errorf("%s, %s: %w", m.name(), how, gone))
	}
	return err
}

// happen lets one event happen.
func (w *world) happen(ctx context.Context) error {
	var can []event
	m := w.members[w.rand.IntN(len(w.members))]
	for _, e := range events {
		if e.can(m) {
			can = append(can, slices.Repeat([]event{e}, e.weight)...)
		}
	}
	e := can[w.rand.IntN(len(can))]
	start := time.Now()
	what, err := e.do(w, ctx, m)
	w.done[e.name]++
	w.log("%s: %s %s (%v)", m.name(), e.name, what, time.Since(start).Round(time.Microsecond))
	if err != nil {
		return fmt.Errorf("%s %s: %w", e.name, what, err)
	}
	return nil
}

// counts sums up what all lives have seen.
func (w *world) counts(ctx context.Context) (sum Counts, err error) {
	sum = w.past
	for _, m := range w.members {
		c, e := m.peer.do(ctx, command{Do: "count"})
		sum.add(c)
		for _, f := range c.Faults {
			e = errors.Join(e, errors.New(f))
		}
		err = errors.Join(err, e)
	}
	return sum, err
}

// usedByStations measures the processes of guests, all together.
func (w *world) usedByStations() (sum usage, err error) {
	for _, m := range w.members {
		if p, ok := m.peer.(*process); ok {
			u, err := usedBy(strconv.Itoa(p.cmd.Process.Pid))
			if err != nil {
				return sum, err
			}
			sum.add(u)
		}
	}
	return sum, nil
}

// counted is how many frames each guest sends to each other at the end.
const counted = 500

// settle ends the traffic and draws up the accounts: with good lines again, all of
// a number of frames arrive, and the guests have given every section back.
func (w *world) settle(ctx context.Context) error {
	for _, m := range w.members {
		if m.number >= firstRough {
			w.host.Impair(m.name(), host.Impairment{})
			if _, err := w.leaveAndReturn(ctx, m); err != nil {
				return err
			}
		}
		for _, c := range []command{{"mtu", defaultMTU}, {Do: "quiet"}, {Do: "await the link"}} {
			if err := w.ask(ctx, m, c); err != nil {
				return err
			}
		}
	}
	before := w.wrongs()
	for _, m := range w.members {
		if err := w.ask(ctx, m, command{"counted", counted}); err != nil {
			return err
		}
	}
	want := uint64(counted * (len(names) - 1))
	ctx, cancel := context.WithTimeout(ctx, step)
	defer cancel()
	for _, m := range w.members {
		for {
			c, err := m.peer.do(ctx, command{Do: "count"})
			if err != nil || len(c.Faults) > 0 {
				return errors.Join(err, fmt.Errorf("%s: %q", m.name(), c.Faults))
			}
			if c.Counted == want {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %d of %d counted frames have arrived", m.name(), c.Counted, want)
			}
			pause(ctx, 10*time.Millisecond)
		}
	}
	for name, n := range w.wrongs() {
		if n != before[name] {
			return fmt.Errorf("%s broke %d rules, or as many of its sends were refused", name, n-before[name])
		}
	}
	for {
		held := w.held()
		if held == nil {
			break
		}
		if ctx.Err() != nil {
			return held
		}
		pause(ctx, 10*time.Millisecond)
	}
	for _, m := range w.members {
		if err := w.ask(ctx, m, command{Do: "account"}); err != nil {
			return err
		}
	}
	return nil
}

// wrongs returns how often each guest has broken a rule or was refused a send, as
// its host sees it. What is under way when a guest or its NIC goes may count too.
func (w *world) wrongs() map[string]uint64 {
	n := map[string]uint64{}
	for _, p := range w.host.Ports() {
		if p.Guest != nil {
			n[p.Switch.Name] = p.Guest.Faults + p.Guest.Failures
		}
	}
	return n
}

// held says which receive sections are not where they belong, nil if all are.
func (w *world) held() error {
	for _, p := range w.host.Ports() {
		if p.Guest == nil {
			continue
		}
		if err := p.Guest.Receive.AtRest(); err != nil {
			return fmt.Errorf("%s: %w", p.Switch.Name, err)
		}
	}
	return nil
}

// close ends everything.
func (w *world) close(ctx context.Context) error {
	var errs []error
	for _, m := range w.members {
		if m.peer != nil {
			errs = append(errs, w.leave(ctx, m, "leave"))
		}
	}
	return errors.Join(append(errs, w.endHost(ctx))...)
}
