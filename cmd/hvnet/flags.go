package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	linkiface "hvnet/link/iface"
	"hvnet/link/netstack"
	"hvnet/link/xdp"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// hostFlags say what a host is.
type hostFlags struct {
	Profile       string   `default:"${profile}" help:"The host release to be: ${profiles}."`
	Gateway       []string `default:"198.18.0.1/24,fdc6:1200::1/64" help:"Addresses of the gateway, one of each family at most, with their prefix length; none for a switch without a gateway."`
	DNS           []string `name:"dns" placeholder:"ADDR[:PORT]" help:"Name servers that the gateway asks; default: the machine's."`
	AllowSpoofing bool     `help:"Let guests change their MAC address and send from any, as MAC address spoofing does on Hyper-V."`
	Uplink        []string `sep:"none" placeholder:"tap:IF|nic:IF[,io=xdp]" help:"Connect the switch to a kernel interface: tap:IF is made, for this machine to take part; nic:IF is there, such as a network card or a veth, and leads to its network, by packet sockets or, with io=xdp, by AF_XDP. It takes root. May be given several times."`
	SRIOV         bool     `name:"sriov" help:"Let guests have virtual functions beside their NICs, as SR-IOV of a Hyper-V switch does: 'hvnet host ctl PATH vf add PORT' adds one."`
	Monitor       bool     `help:"Have guests signal by monitor page, which the host then looks at all the time."`
}

// A hostPlan is what hostFlags ask for, checked before anything is made.
type hostPlan struct {
	profile    profile.Profile
	gateway    netstack.GatewayConfig
	hasGateway bool
	uplinks    []uplink // kernel interfaces to connect
}

// plan checks the flags.
func (f *hostFlags) plan(log *slog.Logger) (p hostPlan, err error) {
	if p.profile, err = f.profile(); err != nil {
		return p, err
	}
	if p.gateway, p.hasGateway, err = f.gateway(log); err != nil {
		return p, err
	}
	p.uplinks, err = f.uplinks()
	return p, err
}

// ports returns the names of the ports that are no guests'.
func (p *hostPlan) ports() (names []string) {
	if p.hasGateway {
		names = append(names, "gateway")
	}
	for _, u := range p.uplinks {
		names = append(names, u.name)
	}
	return names
}

// connect gives a host its gateway and its uplinks.
func (p *hostPlan) connect(ctx context.Context, h *host.Host) error {
	if p.hasGateway {
		if err := h.AddGateway(p.gateway); err != nil {
			return err
		}
	}
	for _, u := range p.uplinks {
		if err := u.connect(ctx, h); err != nil {
			return fmt.Errorf("--uplink %s: %w", u.given, err)
		}
	}
	return nil
}

// profile returns the host release.
func (f *hostFlags) profile() (profile.Profile, error) {
	p, err := profile.Lookup(f.Profile)
	if err != nil {
		return p, usagef("--profile: %w", err)
	}
	return p, nil
}

// gateway returns the gateway's configuration, ok false if there is to be none.
func (f *hostFlags) gateway(log *slog.Logger) (cfg netstack.GatewayConfig, ok bool, err error) {
	if len(f.Gateway) == 1 && f.Gateway[0] == "none" {
		return cfg, false, nil
	}
	cfg = netstack.GatewayConfig{MAC: gatewayMAC, NAT: true, Log: log}
	for _, s := range f.DNS {
		server, err := netip.ParseAddrPort(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				return cfg, false, usagef("--dns %s: want an address such as 192.0.2.53, or with a port, 192.0.2.53:53", s)
			}
			server = netip.AddrPortFrom(addr, 53)
		}
		cfg.Upstream = append(cfg.Upstream, server.String())
	}
	for _, s := range f.Gateway {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return cfg, false, usagef("--gateway %s: want an address with its prefix length, such as 198.18.0.1/24, or none", s)
		case cfg.IPv4.IsValid() && p.Addr().Is4(), cfg.IPv6.IsValid() && p.Addr().Is6():
			return cfg, false, usagef("--gateway %s: want one address of each family", s)
		case p.Addr().Is4():
			cfg.IPv4 = p
		default:
			cfg.IPv6 = p
		}
	}
	return cfg, true, nil
}

// gatewayMAC is the gateway's station address, in Hyper-V's range.
var gatewayMAC = nic.MAC{0x00, 0x15, 0x5d, 0x00, 0x00, 0x01}

// guestFlags say what a guest is.
type guestFlags struct {
	MAC    string   `name:"mac" placeholder:"MAC" help:"The NIC's address; default: one that belongs to the port's name."`
	VCPUs  *int     `name:"vcpus" placeholder:"N" help:"Virtual processors, 1 to 64; default: the machine's, but at least 4."`
	NUMA   *int     `name:"numa" placeholder:"N" help:"NUMA nodes that the virtual processors are divided over, 1 by default: channels take turns on them."`
	Pin    bool     `help:"Keep what is received on a channel on the processor of the machine that stands for the channel's virtual one."`
	Queues *int     `placeholder:"N" help:"Channels at first; default: 8, but at most one for each virtual processor. 'hvnet ethtool -L' changes them."`
	Iface  string   `default:"eth0" help:"Name of the kernel interface."`
	Addr   []string `placeholder:"dhcp|CIDR" help:"Addresses of the interface, such as 198.18.0.2/24, or dhcp."`

	VFRest       time.Duration `name:"vf-rest" placeholder:"TIME" help:"Leave a virtual function that was lost alone for so long, so that one which comes and goes does not take the traffic with it each time. Default: not at all."`
	VFIO         linkiface.Way `name:"vf-io" default:"auto" enum:"auto,packet,xdp" placeholder:"auto|packet|xdp" help:"How virtual functions are joined: by packet sockets, or by AF_XDP, which takes root and, apart from 'run', a host with --vf-io xdp. Default: auto, which is packet."`
	FragmentCure string        `default:"on" enum:"on,off" placeholder:"on|off" help:"Whether the fragments of UDP datagrams are kept on one channel; 'off' spreads frames by the ports that each shows. Default: on."`
}

// maxPort is the longest name of a switch port, in bytes.
const maxPort = 64

// permitted checks that this process may do what the flags ask for.
func (f *guestFlags) permitted() error {
	if f.VFIO != linkiface.XDP {
		return nil
	}
	if err := xdp.Permitted(); err != nil {
		return fmt.Errorf("--vf-io xdp: %w; --vf-io packet joins virtual functions by those", err)
	}
	return nil
}

// config checks the flags and returns the guest's configuration.
func (f *guestFlags) config(name string, log *slog.Logger) (guest.Config, error) {
	if f.VFRest < 0 {
		return guest.Config{}, usagef("--vf-rest %v: want some time, such as 30s, or 0", f.VFRest)
	}
	cfg := guest.Config{Name: name, VPs: guest.DefaultVPs(), VFRest: f.VFRest, NoFragmentCure: f.FragmentCure == "off", Log: log}
	if len(name) > maxPort || !utf8.ValidString(name) {
		return cfg, usagef("--name %q: want UTF-8 of at most %d bytes", name, maxPort)
	}
	if f.VCPUs != nil {
		if cfg.VPs = *f.VCPUs; cfg.VPs < 1 || cfg.VPs > hv.MaxVPs {
			return cfg, usagef("--vcpus %d: want 1 to %d", cfg.VPs, hv.MaxVPs)
		}
	}
	cfg.Pin = f.Pin
	if f.NUMA != nil {
		if cfg.Nodes = *f.NUMA; cfg.Nodes < 1 || cfg.Nodes > cfg.VPs {
			return cfg, usagef("--numa %d: want 1 to %d, the number of virtual processors", cfg.Nodes, cfg.VPs)
		}
	}
	if f.Queues != nil {
		cfg.Queues = *f.Queues
		switch {
		case cfg.Queues < 1 || cfg.Queues > hv.MaxVPs:
			return cfg, usagef("--queues %d: want 1 to %d", cfg.Queues, hv.MaxVPs)
		case cfg.Queues > cfg.VPs:
			return cfg, usagef("--queues %d: more than the %d virtual processors; raise --vcpus or ask for fewer", cfg.Queues, cfg.VPs)
		}
	}
	if f.MAC != "" {
		mac, err := nic.ParseMAC(f.MAC)
		if err != nil {
			return cfg, usagef("--mac: %w", err)
		}
		cfg.MAC = mac
	}
	if !validIface(f.Iface) {
		return cfg, usagef("--iface %q: %s", f.Iface, wantIface)
	}
	return cfg, nil
}

// wantIface says what validIface accepts.
const wantIface = "want the name of an interface: 1 to 15 characters without space, '/', ':' and '%'"

// validIface reports whether the kernel would take a name for an interface's.
func validIface(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return strings.ContainsRune("/:%", r) || unicode.IsSpace(r) || r == 0 })
}

// addresses returns the static addresses, and whether DHCP is to give one.
func (f *guestFlags) addresses() (static []netip.Prefix, dhcp bool, err error) {
	for _, s := range f.Addr {
		if s == "dhcp" {
			dhcp = true
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, false, usagef("--addr %s: want dhcp, or an address with its prefix length such as 198.18.0.2/24", s)
		}
		static = append(static, p)
	}
	return static, dhcp, nil
}

// logFlags say how much is logged.
type logFlags struct {
	Verbose bool `short:"v" help:"Log what happens to standard error."`
}

// logger returns where libraries log to, nil for nowhere.
func (f *logFlags) logger() *slog.Logger {
	if !f.Verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
