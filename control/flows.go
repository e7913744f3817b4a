package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"hvnet/ethtool"
	"hvnet/nic"
)

// methodFlows: flowsArgs → nic.FlowReport
const methodFlows = "flows"

type flowsArgs struct {
	Mark uint32        `json:"mark"`
	Keep time.Duration `json:"keep_ns"`
}

// A FlowCounter is a device that counts flows while it is asked for them, as
// netvsc.NIC.Flows describes it. [ServeDevice] lets clients ask.
type FlowCounter interface {
	Flows(mark uint32, keep time.Duration) nic.FlowReport
}

// serveFlows adds the method of a device that is a FlowCounter.
func serveFlows(handlers map[string]Handler, d ethtool.Device) {
	v, ok := d.(FlowCounter)
	if !ok {
		return
	}
	handlers[methodFlows] = func(_ context.Context, args []byte) (any, error) {
		var a flowsArgs
		if err := json.Unmarshal(args, &a); err != nil {
			return nil, fmt.Errorf("arguments: %w: %w", ErrMalformed, err)
		}
		return v.Flows(a.Mark, a.Keep), nil
	}
}

// Flows returns how many flows each of the driver's channels has had since mark, that of the
// report before, or 0, and has it go on counting for the time that keep says. The error is
// [ErrUnknownMethod] for a driver that does not count them.
func (c *Client) Flows(ctx context.Context, mark uint32, keep time.Duration) (r nic.FlowReport, err error) {
	err = Call(ctx, c.path, methodFlows, flowsArgs{mark, keep}, &r)
	return r, err
}
