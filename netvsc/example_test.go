package netvsc_test

import (
	"context"
	"fmt"
	"time"

	"hvnet/netvsc"
	"hvnet/nic"
	"hvnet/vmbus"
	"hvnet/vmbus/guest"
)

// printer is a sink: it gets what the NIC receives.
type printer struct{}

func (printer) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		fmt.Println(frames[i].Src(), "sends", frames[i].Len(), "bytes")
	}
}

// A guest opens the NIC that its bus offers, sends a frame, and uses two channels
// from then on.
func Example() {
	var bus *guest.Bus // from guest.Connect

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dev, err := bus.Device(ctx, vmbus.ClassNIC)
	if err != nil {
		return
	}
	n, err := netvsc.Open(ctx, dev, netvsc.Config{})
	if err != nil {
		return
	}
	defer n.Close(context.Background())
	if err := n.Up(ctx, printer{}); err != nil {
		return
	}
	frame := make([]byte, 60)
	copy(frame, nic.Broadcast[:])
	if n.Send(0, []nic.Frame{{Head: frame}}) == 0 {
		fmt.Println("the host is behind; try again later")
	}
	if err := n.SetChannels(ctx, 2); err != nil {
		fmt.Println(err) // the NIC goes on as it was
	}
}
