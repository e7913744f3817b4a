package guest_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/link/netstack"
	"hvnet/nic"
)

// arrivals is a sink: it gets what the NIC receives, in memory that it has only for
// the time of the call.
type arrivals chan string

func (a arrivals) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		if frames[i].Dst() == guestMAC { // and not to everybody
			a <- fmt.Sprintf("%v answers with %d bytes", frames[i].Src(), frames[i].Len())
		}
	}
}

var (
	guestMAC   = nic.MAC{0x00, 0x15, 0x5d, 0x00, 0x00, 0x02}
	gatewayMAC = nic.MAC{0x00, 0x15, 0x5d, 0x00, 0x00, 0x01}
)

// A host and a guest in one process: the guest asks by ARP who has the gateway's
// address.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	h := host.New(host.Config{})
	defer h.Close(ctx)
	err := h.AddGateway(netstack.GatewayConfig{MAC: gatewayMAC, IPv4: netip.MustParsePrefix("198.18.0.1/24")})
	if err != nil {
		log.Fatal(err)
	}
	part, far, err := hv.Pipe(4) // or guest.Dial, to a host in another process
	if err != nil {
		log.Fatal(err)
	}
	go h.Serve(far, host.PortConfig{MAC: guestMAC})
	g, err := guest.Start(ctx, part, guest.Config{VPs: 4})
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close(ctx)

	got := make(arrivals, 16)
	if err := g.NIC.Up(ctx, got); err != nil {
		log.Fatal(err)
	}
	g.NIC.Send(0, []nic.Frame{{Head: whoHas(198, 18, 0, 1)}})
	select {
	case answer := <-got:
		fmt.Println(answer)
	case <-ctx.Done():
		fmt.Println("no answer")
	}
	// Output:
	// 00:15:5d:00:00:01 answers with 42 bytes
}

// whoHas returns an ARP request for an address.
func whoHas(ip ...byte) []byte {
	frame := append(nic.Broadcast[:], guestMAC[:]...)
	frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1)
	frame = append(append(frame, guestMAC[:]...), 198, 18, 0, 2)
	return append(append(frame, 0, 0, 0, 0, 0, 0), ip...)
}
