// Package host is a whole emulated Hyper-V network host: a virtual switch, a
// synthetic NIC on it for each guest that attaches, a gateway, and uplinks.
//
// It joins the packages that each do one part (vmbus/host, netvsp, vswitch,
// link/netstack, hv/attach) and adds only what none of them knows: which guest has
// which port.
package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hvnet/conform"
	"hvnet/hv"
	"hvnet/link/netstack"
	"hvnet/link/pcap"
	"hvnet/netvsp"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vmbus"
	vmbushost "hvnet/vmbus/host"
	"hvnet/vswitch"
)

// ErrPortInUse is returned for a guest whose port name is that of another guest, or
// of something else on the switch.
var ErrPortInUse = errors.New("the port is in use")

// ErrClosing is returned for a guest that comes while the host closes.
var ErrClosing = errors.New("the host is closing")

// A Config says what the host is.
type Config struct {
	// Profile is the host release to be; the zero value is the default one.
	Profile profile.Profile
	// Monitor has guests signal by monitor page, see [vmbushost.Config].
	Monitor bool
	// AllowSpoofing lets guests change their address and send from any, as MAC
	// address spoofing of a Hyper-V port does. Such a port learns who is behind
	// it, and gets frames for unknown stations too.
	AllowSpoofing bool
	// SRIOV lets ports have virtual functions, see [Host.AddVF].
	SRIOV bool
	// MapEntries bounds what all guests that attach may take of the process's memory
	// map together; see [hv.NewQuota].
	MapEntries int
	// Watch, if not nil, is called for each guest that attaches, with the name of its
	// port, and says where the text of what the two say goes, see [conform.Watch].
	Watch func(port string) conform.Config
	// VLANs are those of ports for which something else is said than what is usual: guests and
	// gateway have frames without tag, uplinks all. They go by name of the port.
	VLANs map[string]vswitch.VLAN
	// Log takes what happens to guests; nil discards it.
	Log *slog.Logger
}

// A Host is a running host. Its methods may be called from any goroutine.
type Host struct {
	cfg Config
	sw  *vswitch.Switch
	bad badLines
	see views

	vlans vlans

	quota *hv.Quota // of the guests that attach

	mu       sync.Mutex
	ports    map[string]*port // of the guests that are attached, by name
	links    map[string]portLink
	nics     map[string]uplinkNIC // that are uplinks, by name
	closers  []func()
	closed   bool
	sessions sync.WaitGroup
}

// port is the place of one attached guest.
type port struct {
	name    string
	mac     nic.MAC
	dev     *netvsp.Device
	guest   hv.Guest
	bus     *vmbushost.Server
	offered *vmbushost.Offered // nil while the NIC is taken away
	leaving bool               // it is being taken away
	watch   *conform.Watch     // nil if nobody watches
	vf      place              // of a virtual function
}

// New returns a host with an empty switch.
func New(cfg Config) *Host {
	if cfg.Profile.Name == "" {
		cfg.Profile, _ = profile.Lookup(profile.Default)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{cfg: cfg, sw: vswitch.New(vswitch.Config{}), quota: hv.NewQuota(cfg.MapEntries), ports: map[string]*port{}, links: map[string]portLink{}, nics: map[string]uplinkNIC{}}
	h.vlans.rules = map[string]vswitch.VLAN{}
	maps.Copy(h.vlans.rules, cfg.VLANs)
	return h
}

// Profile returns the release that the host is.
func (h *Host) Profile() profile.Profile { return h.cfg.Profile }

// Switch returns the host's switch, to connect more to.
func (h *Host) Switch() *vswitch.Switch { return h.sw }

// AddGateway connects a gateway to the switch. It is closed with the host.
func (h *Host) AddGateway(cfg netstack.GatewayConfig) error {
	g, err := netstack.NewGateway(cfg)
	if err != nil {
		return err
	}
	p, err := h.connect("gateway", "", g, vswitch.PortOptions{MAC: cfg.MAC})
	if err != nil {
		g.Close()
		return err
	}
	g.Start(p)
	h.OnClose(func() {
		g.Close() // it says goodbye to its flows
		p.Close()
	})
	return nil
}

// OnClose has f called when the host closes, after all guests have left; at once if
// it is closing already.
func (h *Host) OnClose(f func()) {
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.closers = append(h.closers, f)
	}
	h.mu.Unlock()
	if closed {
		f()
	}
}

// A PortConfig is what a guest may ask of its port.
type PortConfig struct {
	Name string  // its identity; empty: the first free of guest1, guest2, …
	MAC  nic.MAC // zero: one that belongs to the name
}

// Serve gives a guest its NIC and drives its bus until the guest is gone, and
// returns why. It closes the guest.
func (h *Host) Serve(g hv.Guest, want PortConfig) error {
	defer g.Close()
	p, srv, err := h.attach(g, want)
	if err != nil {
		return fmt.Errorf("attach guest: %w", err)
	}
	h.cfg.Log.Info("guest attached", "port", p.name, "mac", p.mac, "vps", g.VPs())
	err = srv.Serve()
	h.mu.Lock()
	delete(h.ports, p.name)
	h.mu.Unlock()
	if e := p.vf.gone(); e != nil {
		err = errors.Join(err, e)
	}
	h.sessions.Done()
	h.cfg.Log.Info("guest gone", "port", p.name, "reason", err)
	return err
}

// attach makes the bus of a guest and the device on it, at the port that it asks for.
func (h *Host) attach(g hv.Guest, want PortConfig) (*port, *vmbushost.Server, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	want, err := h.claim(want)
	if err != nil {
		return nil, nil, err
	}
	p := &port{name: want.Name, mac: want.MAC, guest: g}
	device := netvsp.Config{
		Name: p.name, MAC: p.mac, Profile: h.cfg.Profile, AllowSpoofing: h.cfg.AllowSpoofing, SRIOV: h.cfg.SRIOV, Log: h.cfg.Log,
		Fault: func(error) { g.Close() },
	}
	bus := vmbushost.Config{Versions: h.cfg.Profile.VMBus, Monitor: h.cfg.Monitor, Log: h.cfg.Log}
	served := g
	if cfg, ok := h.watched(p.name); ok {
		p.watch = conform.New(g, cfg)
		served = p.watch.Guest()
		device.Broken, bus.Broken = p.watch.Broken, p.watch.Broken
	}
	p.dev = netvsp.New(device,
		func(sink nic.Sink) (netvsp.Port, error) {
			opt := vswitch.PortOptions{MAC: p.mac}
			if h.cfg.AllowSpoofing {
				opt.MAC = nic.MAC{}
			}
			return h.see.connect(p.name, pcap.Synthetic, sink, func(sink nic.Sink) (netvsp.Port, error) {
				return h.bad.connect(p.name, pcap.Synthetic, sink, func(sink nic.Sink) (netvsp.Port, error) {
					sp, err := h.plug(p.name, sink, opt)
					if err == nil {
						p.vf.plugged(sp)
					}
					return sp, err
				})
			})
		})
	p.vf.dev = p.dev
	h.links[p.name].apply(p.dev)
	srv := vmbushost.New(served, bus)
	p.bus = srv
	if err := p.offer(); err != nil {
		return nil, nil, err
	}
	h.ports[p.name] = p
	h.sessions.Add(1)
	return p, srv, nil
}

// claim completes what a guest asks for, or says why it can't have it. The caller
// holds the lock.
func (h *Host) claim(want PortConfig) (PortConfig, error) {
	if h.closed {
		return want, ErrClosing
	}
	used := map[string]nic.MAC{}
	for _, p := range h.sw.Ports() {
		used[p.Name] = p.MAC
	}
	for _, p := range h.ports { // they are on the switch later
		used[p.name] = p.mac
	}
	for i := 1; want.Name == ""; i++ {
		name := fmt.Sprintf("guest%d", i)
		if _, ok := used[name]; !ok {
			want.Name = name
		}
	}
	if _, ok := used[want.Name]; ok {
		return want, fmt.Errorf("port %s: %w", want.Name, ErrPortInUse)
	}
	if want.MAC.IsZero() {
		want.MAC = PortMAC(want.Name)
	}
	for other, mac := range used {
		if mac == want.MAC {
			return want, fmt.Errorf("port %s: MAC address %v belongs to port %s", want.Name, mac, other)
		}
	}
	return want, nil
}

// Admit tells whether a guest would get the port it asks for, without taking it.
func (h *Host) Admit(want PortConfig) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.claim(want)
	return err
}

// PortMAC returns the address that belongs to a port name: in the range that
// Hyper-V gives to its guests, the same each time.
func PortMAC(name string) nic.MAC {
	sum := sha256.Sum256([]byte("hvnet mac " + name))
	return nic.MAC{0x00, 0x15, 0x5d, sum[0], sum[1], sum[2]}
}

// portInstance returns the instance GUID that belongs to a port name.
func portInstance(name string) vmbus.GUID {
	sum := sha256.Sum256([]byte("hvnet instance " + name))
	return vmbus.GUID(sum[:16])
}

// A PortInfo is one port of the switch as `host ctl ports` shows it.
type PortInfo struct {
	Switch vswitch.PortInfo
	Guest  *netvsp.Info // nil for a port that is no guest's
	NIC    *NICInfo     // nil for a port that is no NIC's of the machine
	Line   []LineInfo   // what was done to its frames on purpose
	// LostVF counts frames that the guest sent by a virtual function while its NIC was not
	// connected.
	LostVF uint64
	// Watched says that what the guest and the host say is heard, and can be captured.
	Watched bool
}

// Ports returns the ports of the switch in the order of their names.
func (h *Host) Ports() []PortInfo {
	h.mu.Lock()
	guests := maps.Clone(h.ports)
	h.mu.Unlock()
	var list []PortInfo
	for _, sp := range h.sw.Ports() {
		pi := PortInfo{Switch: sp, NIC: h.nicInfo(sp.Name)}
		if p := guests[sp.Name]; p != nil {
			info := p.dev.Info()
			pi.Guest, pi.Line = &info, h.bad.info(sp.Name)
			pi.LostVF, pi.Watched = p.vf.lost.Load(), p.watch != nil
		}
		list = append(list, pi)
	}
	slices.SortFunc(list, func(a, b PortInfo) int { return strings.Compare(a.Switch.Name, b.Switch.Name) })
	return list
}

// Close takes the NICs away from all guests, waits until they have let go or ctx
// ends, and closes everything that is connected.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	var held []*port // by their guests
	for _, p := range h.ports {
		if p.offered != nil {
			held = append(held, &port{dev: p.dev, offered: p.offered, guest: p.guest})
		}
	}
	h.mu.Unlock()
	takeAway(ctx, held...)
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	for _, p := range held {
		select {
		case <-p.offered.Released():
		case <-p.guest.Done():
		case <-ctx.Done():
		}
	}
	h.mu.Lock()
	for _, p := range h.ports {
		p.guest.Close()
	}
	closers := h.closers
	h.closers = nil
	h.mu.Unlock()
	h.sessions.Wait() // closed guests end them
	for _, f := range slices.Backward(closers) {
		f()
	}
	return nil
}

// leaveTime is how long a guest gets to let go of a NIC that was taken away: a kernel in
// QEMU, under load, needs more than a second.
const leaveTime = 5 * time.Second

// Drops returns how many frames were lost at the port, by reason. A frame for a
// station on the very port that it came from is not lost.
func (p *PortInfo) Drops() map[string]uint64 {
	drops := map[string]uint64{}
	for reason, n := range p.Switch.Dropped {
		if reason != vswitch.DropLocal {
			drops[reason.String()] += n
		}
	}
	if p.Guest != nil {
		for reason, n := range p.Guest.TxDropped {
			drops["from guest: "+reason.String()] += n
		}
		for reason, n := range p.Guest.RxDropped {
			drops["for guest: "+reason.String()] += n
		}
	}
	if p.NIC != nil {
		p.NIC.drops(drops)
	}
	if p.LostVF > 0 {
		drops["from VF: not connected"] = p.LostVF
	}
	for _, l := range p.Line {
		drops[l.Direction+": on purpose"] += l.Lost + l.Overflowed + l.Discarded
	}
	return drops
}

// Address returns the address of the station behind the port: its own, as the guest
// may have set it, or the one that was learned; "-" if there is none or more than one.
func (p *PortInfo) Address() string {
	switch {
	case p.Guest != nil:
		return p.Guest.MAC.String()
	case !p.Switch.MAC.IsZero():
		return p.Switch.MAC.String()
	case len(p.Switch.Stations) == 1:
		return p.Switch.Stations[0].MAC.String()
	}
	return "-"
}
