package control

import (
	"context"

	"hvnet/ethtool"
	"hvnet/nic"
)

// methodDetails → nic.Details
const methodDetails = "details"

// A Detailer is a device that tells more than ethtool shows. [ServeDevice] lets clients
// ask.
type Detailer interface{ Details() nic.Details }

// serveDetails adds the method of a device that is a Detailer.
func serveDetails(handlers map[string]Handler, d ethtool.Device) {
	if v, ok := d.(Detailer); ok {
		handlers[methodDetails] = func(context.Context, []byte) (any, error) { return v.Details(), nil }
	}
}

// Details returns what the driver tells beyond what ethtool shows. The
// error is [ErrUnknownMethod] for a driver that does not tell.
func (c *Client) Details(ctx context.Context) (v nic.Details, err error) {
	err = Call(ctx, c.path, methodDetails, nil, &v)
	return v, err
}
