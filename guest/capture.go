package guest

import (
	"hvnet/link/pcap"
	"hvnet/netvsc/vf"
	"hvnet/nic"
)

// Capture begins a capture of the frames between the NIC and what it is joined to: an
// interface ([Guest.Join]), and whoever uses a [Sender]. It goes on when settings change
// and when the NIC is lost and back.
func (g *Guest) Capture(cfg pcap.Config) (*pcap.Capture, error) { return g.frames.Capture(cfg) }

// inbound is what is known of received frames.
var inbound = pcap.Place{Direction: pcap.Inbound, Queue: pcap.Channel, Path: pcap.Synthetic, VF: pcap.OverVF}

// outbound is what is known of sent ones: the driver chooses the channel by flow.
func (g *Guest) outbound() pcap.Place {
	return pcap.Place{
		Direction: pcap.Outbound, Path: pcap.Synthetic,
		VF: func(*nic.Frame) bool { return g.NIC.Path() == vf.VF },
		Queue: func(f *nic.Frame) int {
			if g.NIC.Path() == vf.VF {
				return -1 // the VF's to say
			}
			return g.NIC.ChannelOf(f.Head)
		},
	}
}
