package control

import (
	"context"

	"hvnet/ethtool"
	"hvnet/nic"
)

// methodHostVersions → nic.HostVersions
const methodHostVersions = "host-versions"

// A Versioner is a device that tells which versions it has agreed upon with its host.
// [ServeDevice] lets clients ask.
type Versioner interface{ HostVersions() nic.HostVersions }

// serveHostVersions adds the method of a device that is a Versioner.
func serveHostVersions(handlers map[string]Handler, d ethtool.Device) {
	if v, ok := d.(Versioner); ok {
		handlers[methodHostVersions] = func(context.Context, []byte) (any, error) { return v.HostVersions(), nil }
	}
}

// HostVersions returns the versions that the driver has agreed upon with its host. The
// error is [ErrUnknownMethod] for a driver that does not tell.
func (c *Client) HostVersions(ctx context.Context) (v nic.HostVersions, err error) {
	err = Call(ctx, c.path, methodHostVersions, nil, &v)
	return v, err
}
