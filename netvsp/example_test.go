package netvsp_test

import (
	"fmt"
	"log"

	"hvnet/hv"
	"hvnet/netvsp"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vmbus"
	"hvnet/vmbus/host"
	"hvnet/vswitch"
)

// A NIC at a switch, offered to a guest in the same process.
func Example() {
	sw := vswitch.New(vswitch.Config{})
	prof, err := profile.Lookup("ws2019")
	if err != nil {
		log.Fatal(err)
	}
	cfg := netvsp.Config{Name: "guest1", MAC: nic.MAC{0x00, 0x15, 0x5d, 0, 0, 1}, Profile: prof}
	dev := netvsp.New(cfg, func(sink nic.Sink) (netvsp.Port, error) {
		return sw.Connect(cfg.Name, sink, vswitch.PortOptions{MAC: cfg.MAC})
	})

	partition, guest, err := hv.Pipe(2) // the guest's driver goes on with partition
	if err != nil {
		log.Fatal(err)
	}
	srv := host.New(guest, host.Config{Versions: prof.VMBus})
	if _, err := srv.Offer(vmbus.Offer{Class: vmbus.ClassNIC}, dev.Backend); err != nil {
		log.Fatal(err)
	}
	gone := make(chan error)
	go func() { gone <- srv.Serve() }()

	fmt.Println(dev.Info().Name, dev.Info().Stage)
	partition.Close()
	<-gone
	// Output: guest1 closed
}
