package netvsc

import (
	"context"
	"fmt"
	"math"

	"hvnet/nic"
)

// LinkSettings returns speed and duplex as the host says, or as [NIC.SetLinkSettings] has
// set them, and whether frames can go.
func (n *NIC) LinkSettings() nic.LinkSettings {
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	s := nic.LinkSettings{Mbps: n.link.state.Mbps, Duplex: n.link.duplex, Detected: n.outlet.Load() != nil && n.link.state.Up}
	switch {
	case n.link.pretended:
		s.Mbps = n.link.mbps
	case s.Mbps == 0:
		s.Mbps = nic.SpeedUnknown
	}
	return s
}

// SetLinkSettings changes the speed, in Mbit/s, and the duplex that are shown, and nothing
// else: as with hv_netvsc the host hears nothing of it. The speed lasts until the host says
// one. It is refused with nic.ErrInvalid for what can be neither, as Linux has it.
func (n *NIC) SetLinkSettings(ctx context.Context, mbps uint32, d nic.Duplex) error {
	if mbps > math.MaxInt32 && mbps != nic.SpeedUnknown {
		return fmt.Errorf("netvsc: set speed %d Mbit/s: %w", mbps, nic.ErrInvalid)
	}
	if d > nic.DuplexFull && d != nic.DuplexUnknown {
		return fmt.Errorf("netvsc: set duplex %d: %w", d, nic.ErrInvalid)
	}
	release, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	n.link.pretended, n.link.mbps, n.link.duplex = true, mbps, d
	return nil
}

// defaultMessages are the kinds of messages that hv_netvsc logs at first (NETIF_MSG_…).
const defaultMessages = 0xf7

// MessageLevel returns the kinds of messages that are logged, as the bits that Linux has
// for them. They are kept for whoever sets them; the log itself has levels of its own.
func (n *NIC) MessageLevel() uint32 { return n.messages.Load() }

// SetMessageLevel changes what MessageLevel returns.
func (n *NIC) SetMessageLevel(_ context.Context, bits uint32) error {
	n.messages.Store(bits)
	return nil
}

// PermanentMAC returns the address that the host has given.
func (n *NIC) PermanentMAC() nic.MAC { return n.session.Load().mac }

// Registers returns the host's table for sending, zeros if it has sent none.
func (n *NIC) Registers() (r nic.Registers) {
	if t := n.session.Load().table.Load(); t != nil {
		r = *t
	}
	return r
}
