package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hvnet/control"
	"hvnet/host"
	"hvnet/vswitch"
)

// vlanFlags say which VLANs ports of a host are in.
type vlanFlags struct {
	VLAN []string `name:"vlan" sep:"none" placeholder:"PORT:VLAN" help:"VLANs of a port: access=10, trunk=10,20-30,native=1, trunk=all or untagged, which is what guests have otherwise."`
}

// vlans checks the flags.
func (f *vlanFlags) vlans() (map[string]vswitch.VLAN, error) {
	vlans := map[string]vswitch.VLAN{}
	for _, text := range f.VLAN {
		port, rule, ok := strings.Cut(text, ":")
		if !ok || port == "" {
			return nil, usagef("--vlan %s: want PORT:VLAN, such as guest1:access=10", text)
		}
		if _, ok := vlans[port]; ok {
			return nil, usagef("--vlan %s: the port %s has VLANs already", text, port)
		}
		v, err := vswitch.ParseVLAN(rule)
		if err != nil {
			return nil, usagef("--vlan %s: %w", text, err)
		}
		vlans[port] = v
	}
	return vlans, nil
}

// known returns an error if a flag says something of a port that there will not be.
func known[V any](flag string, of map[string]V, ports ...string) error {
	for _, port := range slices.Sorted(maps.Keys(of)) {
		if !slices.Contains(ports, port) {
			return usagef("--%s %s: there is no such port here, but %s", flag, port, strings.Join(ports, ", "))
		}
	}
	return nil
}

// hostVLANCmd changes the VLANs of a port.
type hostVLANCmd struct {
	portArgs
	VLAN string `arg:"" help:"access=10, trunk=10,20-30,native=1, trunk=all or untagged."`
}

// vlanArgs are the arguments of the method vlan.
type vlanArgs struct {
	Port string `json:"port"`
	VLAN string `json:"vlan"`
}

// Run asks the host for the change.
func (v *hostVLANCmd) Run(ctx context.Context, c *commands) error {
	if _, err := vswitch.ParseVLAN(v.VLAN); err != nil {
		return usagef("vlan %s: %w", v.VLAN, err)
	}
	return c.Host.Ctl.Path.ask(ctx, "vlan", vlanArgs{v.Port, v.VLAN}, nil)
}

// vlanHandler does for a host what hostVLANCmd asks for.
func vlanHandler(h *host.Host) control.Handler {
	return func(_ context.Context, b []byte) (any, error) {
		var a vlanArgs
		if err := json.Unmarshal(b, &a); err != nil {
			return nil, fmt.Errorf("arguments: %w: %w", control.ErrMalformed, err)
		}
		v, err := vswitch.ParseVLAN(a.VLAN)
		if err != nil {
			return nil, err
		}
		return nil, h.SetVLAN(a.Port, v)
	}
}
