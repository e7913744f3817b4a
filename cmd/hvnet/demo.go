package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hvnet/ethtool"
	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/link/netstack"
	"hvnet/nic"
)

// demoCmd is the tour.
type demoCmd struct {
	Profile   string        `default:"${profile}" help:"The host release to be: ${profiles}."`
	Time      time.Duration `default:"3s" help:"How long the TCP transfer takes."`
	InProcess bool          `help:"Use the IP stack in the process, also where kernel interfaces can be had."`
}

// The addresses of the tour: a gateway and two guests.
var (
	demoGateway = []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24"), netip.MustParsePrefix("fdc6:1200::1/64")}
	demoGuests  = [][]netip.Prefix{
		{netip.MustParsePrefix("198.18.0.11/24"), netip.MustParsePrefix("fdc6:1200::11/64")},
		{netip.MustParsePrefix("198.18.0.12/24"), netip.MustParsePrefix("fdc6:1200::12/64")},
	}
)

// demoVPs is the number of virtual processors of each guest of the tour.
const demoVPs = 4

// How long the transfer of the tour may take.
const (
	minDemoTime = 100 * time.Millisecond
	maxDemoTime = 10 * time.Minute
)

// A station is a guest of the tour together with its IP stack: the kernel's in a
// namespace, or one in this process.
type station interface {
	// Configure gives the guest its addresses.
	Configure(ctx context.Context, addrs []netip.Prefix) error
	// Ping sends count echo requests and returns the round-trip times of the
	// replies.
	Ping(ctx context.Context, to netip.Addr, count int) ([]time.Duration, error)
	// Receive accepts one TCP connection on port and returns how many bytes came.
	Receive(ctx context.Context, port uint16) (<-chan received, error)
	// Send sends to a port for a time, over several connections at once.
	Send(ctx context.Context, to netip.AddrPort, streams int, d time.Duration) error
	// Lost counts the frames that were lost between the NIC and the stack.
	Lost() []nic.Stat
	// Close takes the stack off the guest's NIC.
	Close() error
}

// received is what Receive tells at the end.
type received struct {
	bytes int64
	err   error
}

// tour is the state of one demo.
type tour struct {
	*report
	host     *host.Host
	guests   []*guest.Guest
	stations []station
	names    []string
}

// Run shows the tour.
func (c *demoCmd) Run(ctx context.Context, s streams) (err error) {
	if c.Time < minDemoTime || c.Time > maxDemoTime {
		return usagef("--time %v: want %v to %v", c.Time, minDemoTime, maxDemoTime)
	}
	flags := hostFlags{Profile: c.Profile}
	prof, err := flags.profile()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second+c.Time)
	defer cancel()
	t := &tour{report: newReport(s.out)}
	defer func() { err = errors.Join(err, t.close()) }()

	t.host = host.New(host.Config{Profile: prof, SRIOV: true})
	gw := netstack.GatewayConfig{MAC: gatewayMAC, IPv4: demoGateway[0], IPv6: demoGateway[1]}
	if err := t.host.AddGateway(gw); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "A Hyper-V network host (%s), and two guests on its switch.\n", prof.Name)
	if err := t.startGuests(ctx, c.InProcess); err != nil {
		return whyEnded(ctx, err)
	}
	for _, step := range []func(context.Context, *demoCmd) error{t.negotiated, t.ping, t.transfer, t.poster, t.function, t.drops} {
		if err := step(ctx, c); err != nil {
			return whyEnded(ctx, err)
		}
	}
	fmt.Fprintln(s.out)
	return nil
}

// whyEnded returns why the context of a step ended, if it did; what the step says
// of it is how it met the end.
func whyEnded(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil:
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("the tour takes too long: %w", err)
	}
	return context.Cause(ctx)
}

// startGuests attaches the guests and gives each an IP stack.
func (t *tour) startGuests(ctx context.Context, inProcess bool) error {
	for i := range demoGuests {
		name := fmt.Sprintf("guest%d", i+1)
		part, far, err := hv.Pipe(demoVPs)
		if err != nil {
			return err
		}
		go t.host.Serve(far, host.PortConfig{Name: name})
		g, err := guest.Start(ctx, part, guest.Config{Name: name, VPs: demoVPs, VF: !inProcess})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		t.guests = append(t.guests, g)
		t.names = append(t.names, name)
	}
	make := newProcessStation
	if !inProcess {
		make = newKernelStation
	}
	for i := 0; i < len(t.guests); i++ {
		st, err := make(ctx, t.guests[i])
		switch {
		case err == nil:
			t.stations = append(t.stations, st)
		case i == 0 && !inProcess && ctx.Err() == nil:
			fmt.Fprintf(t.w, "No kernel interfaces here, so each guest has its IP stack in this process\n(%v).\n", err)
			inProcess, make, i = true, newProcessStation, -1
		default:
			return err
		}
	}
	if !inProcess {
		fmt.Fprintln(t.w, "Each guest has eth0 in a network namespace of its own.")
	}
	// Only now, with all listening, do the stacks say hello to each other.
	for i, addrs := range demoGuests {
		if err := t.stations[i].Configure(ctx, addrs); err != nil {
			return err
		}
	}
	return nil
}

// negotiated shows what the drivers and the host agreed on.
func (t *tour) negotiated(context.Context, *demoCmd) error {
	t.heading("What was negotiated", "Each driver asked the host for its newest versions, buffers and channels.")
	t.row("", t.names...)
	rows := []struct {
		label string
		of    func(*guest.Guest) string
	}{
		{"MAC address", func(g *guest.Guest) string { return g.NIC.MAC().String() }},
		{"VMBus", func(g *guest.Guest) string { return g.NIC.Info().VMBus }},
		{"NVSP", func(g *guest.Guest) string { return g.NIC.Info().NVSP }},
		{"NDIS", func(g *guest.Guest) string { return g.NIC.Info().NDIS }},
		{"channels", func(g *guest.Guest) string {
			c := g.NIC.Channels()
			return fmt.Sprintf("%d of %d", c.Combined, c.Max)
		}},
		{"receive sections", func(g *guest.Guest) string {
			i := g.NIC.Info()
			return fmt.Sprintf("%d × %d bytes", i.RxSections, i.RxSize)
		}},
		{"send sections", func(g *guest.Guest) string {
			i := g.NIC.Info()
			return fmt.Sprintf("%d × %d bytes", i.TxSections, i.TxSize)
		}},
		{"link", func(g *guest.Guest) string { return fmt.Sprintf("%d Mbit/s", g.NIC.Link().Mbps) }},
	}
	for _, r := range rows {
		cells := make([]string, len(t.guests))
		for i, g := range t.guests {
			cells[i] = r.of(g)
		}
		t.row(r.label, cells...)
	}
	return nil
}

// ping shows that both protocols reach the gateway and the other guest.
func (t *tour) ping(ctx context.Context, _ *demoCmd) error {
	t.heading("Ping", "Frames pass driver, rings and switch both ways, with IPv4 and with IPv6.")
	targets := []struct {
		name string
		addr netip.Addr
	}{
		{"gateway", demoGateway[0].Addr()}, {"gateway", demoGateway[1].Addr()},
		{"guest2", demoGuests[1][0].Addr()}, {"guest2", demoGuests[1][1].Addr()},
	}
	const count = 3
	for _, to := range targets {
		rtts, err := t.stations[0].Ping(ctx, to.addr, count)
		if err != nil {
			return fmt.Errorf("ping %s: %w", to.addr, err)
		}
		if len(rtts) < count {
			return fmt.Errorf("ping %s: %d of %d requests were not answered", to.addr, count-len(rtts), count)
		}
		t.row("guest1 → "+to.name, to.addr.String(),
			fmt.Sprintf("%d of %d back, best %v", len(rtts), count, slices.Min(rtts).Round(time.Microsecond)))
	}
	return nil
}

// demoStreams is how many TCP connections the transfer uses, so that there are
// flows to spread.
const demoStreams = 8

// transfer sends TCP from guest to guest and shows the rate and the queues.
func (t *tour) transfer(ctx context.Context, c *demoCmd) error {
	t.heading(fmt.Sprintf("TCP from guest1 to guest2, %d connections", demoStreams),
		"Load works, and each connection keeps to one channel, so that they share it.")
	const port = 5201
	got, err := t.stations[1].Receive(ctx, port)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	start := time.Now()
	to := netip.AddrPortFrom(demoGuests[1][0].Addr(), port)
	go func() { sent <- t.stations[0].Send(ctx, to, demoStreams, c.Time) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	t.progress("sending", 0, c.Time)
	for running := true; running; {
		select {
		case <-tick.C:
			t.progress("sending", time.Since(start), c.Time)
		case err := <-sent:
			if err != nil {
				return fmt.Errorf("send TCP: %w", err)
			}
			running = false
		case <-ctx.Done():
			return fmt.Errorf("send TCP: %w", ctx.Err())
		}
	}
	r := <-got
	elapsed := time.Since(start)
	if r.err != nil {
		return fmt.Errorf("receive TCP: %w", r.err)
	}
	t.row("rate", fmt.Sprintf("%.2f Gbit/s", float64(r.bytes)*8/elapsed.Seconds()/1e9),
		fmt.Sprintf("%d MB in %.1f s", r.bytes>>20, elapsed.Seconds()))
	t.row("sent by guest1's channels", spread(t.guests[0].NIC.Stats(), "tx")...)
	t.row("received by guest2's", spread(t.guests[1].NIC.Stats(), "rx")...)
	return nil
}

// spread returns each channel's share of the packets.
func spread(stats []nic.Stat, dir string) []string {
	var counts []uint64
	var sum uint64
	for _, s := range stats {
		if strings.HasPrefix(s.Name, dir+"_queue_") && strings.HasSuffix(s.Name, "_packets") {
			counts = append(counts, s.Value)
			sum += s.Value
		}
	}
	shares := make([]string, len(counts))
	for i, n := range counts {
		shares[i] = fmt.Sprintf("%.0f %%", 100*float64(n)/float64(max(sum, 1)))
	}
	return []string{strings.Join(shares, "  ")}
}

// poster sets channels: fewer, as many as there are, and none.
func (t *tour) poster(ctx context.Context, _ *demoCmd) error {
	t.heading("ethtool sets the channels of guest1", "Their number changes on a running NIC; what is not possible is refused.")
	for _, args := range [][]string{
		{"--show-channels", "eth0"},
		{"--set-channels", "eth0", "combined", "1"},
		{"--set-channels", "eth0", "combined", "1"},
		{"--set-channels", "eth0", "combined", "0"},
		{"--show-channels", "eth0"},
	} {
		t.text("$ ethtool " + strings.Join(args, " ") + "\n")
		var out strings.Builder
		ethtool.Run(ctx, args, func(string) (ethtool.Device, error) { return t.guests[0].NIC, nil }, &out, &out)
		t.text(strings.TrimRight(out.String(), "\n"))
	}
	return nil
}

// lostInDriver are the driver's counters of frames that did not arrive.
var lostInDriver = []string{
	"tx_no_memory", "tx_no_space", "tx_too_big", "tx_malformed", "tx_lost", "vf_tx_dropped", "vlan_error", "rx_no_memory", "host_bad_packet",
}

// drops lists everything that was lost anywhere.
func (t *tour) drops(context.Context, *demoCmd) error {
	t.heading("Drops", "Everything that was lost anywhere, counted: driver, host, switch, IP stack.")
	none := true
	lost := func(where, why string, n uint64) {
		if n > 0 {
			t.row(where, fmt.Sprintf("%d %s", n, why))
			none = false
		}
	}
	for _, p := range t.host.Ports() {
		for reason, n := range p.Drops() {
			if strings.HasSuffix(reason, ": filter") {
				reason += " (its NIC was not up just then)"
			}
			lost("port of "+p.Switch.Name, reason, n)
		}
	}
	for i, g := range t.guests {
		for _, s := range g.NIC.Stats() {
			if slices.Contains(lostInDriver, s.Name) {
				lost(t.names[i], s.Name, s.Value)
			}
		}
		for _, s := range t.stations[i].Lost() {
			lost(t.names[i], s.Name, s.Value)
		}
	}
	if none {
		t.row("none")
	}
	return nil
}

// close takes everything down again.
func (t *tour) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, st := range t.stations {
		errs = append(errs, st.Close())
	}
	for _, g := range t.guests {
		errs = append(errs, g.Close(ctx))
	}
	if t.host != nil {
		errs = append(errs, t.host.Close(ctx))
	}
	return errors.Join(errs...)
}
