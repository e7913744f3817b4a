package guest_test

import (
	"context"
	"fmt"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
	"hvnet/vmbus/guest"
	"hvnet/vmbus/host"
)

// greeter is the smallest device: it prints the first packet of each channel.
type greeter struct{ greeted chan struct{} }

func (g greeter) Open(c *channel.Channel) error {
	go func() {
		defer close(g.greeted)
		<-c.Event()
		for {
			b, err := c.In.Next(make([]byte, 4096))
			if err == nil {
				p, _ := vmbus.ParsePacket(b)
				fmt.Printf("the host got %q\n", p.Payload)
				c.Release()
				return
			}
			<-c.Event()
		}
	}()
	return nil
}

func (g greeter) Close(*channel.Channel) { <-g.greeted }
func (greeter) Revoke(uint32)            {}
func (greeter) Removed()                 {}

// A host offers a device, a guest in the same process finds it and opens it.
func Example() {
	p, g, err := hv.Pipe(2)
	if err != nil {
		fmt.Println(err)
		return
	}
	server := host.New(g, host.Config{})
	device := greeter{make(chan struct{})}
	server.Offer(vmbus.Offer{Class: vmbus.ClassNIC}, func(channel.Bus) channel.Backend { return device })
	served := make(chan struct{})
	go func() {
		server.Serve()
		close(served)
	}()

	ctx := context.Background()
	bus, err := guest.Connect(ctx, p, guest.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("version", bus.Version())
	dev, err := bus.Device(ctx, vmbus.ClassNIC)
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := dev.Open(ctx, 0, 64<<10)
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Lock()
	c.Out.Put(vmbus.AppendInBand(nil, 0, 1), []byte("good day"))
	c.Flush()
	c.Unlock()
	<-device.greeted
	fmt.Println("close:", dev.Close(ctx, c))
	fmt.Println("unload:", bus.Unload(ctx))
	bus.Close()
	server.Close()
	<-served
	// Output:
	// version 5.3
	// the host got "good day"
	// close: <nil>
	// unload: <nil>
}
