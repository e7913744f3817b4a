package sandbox_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"hvnet/link/tap"
	"hvnet/sandbox"
)

// A program gives a command an interface that nobody else sees.
func Example() {
	sandbox.MaybeHelper() // first thing in main

	ctx := context.Background()
	box, err := sandbox.New(ctx, sandbox.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer box.Close()
	eth0, err := box.OpenTAP(ctx, tap.Config{Name: "eth0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer eth0.Close()
	err = box.Configure(ctx, sandbox.Interface{
		Name: "eth0", Up: true,
		Addrs:  []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24")},
		Routes: []sandbox.Route{sandbox.DefaultRoute(netip.MustParseAddr("198.18.0.1"))},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// What the command sends is read from eth0.Queue(0) meanwhile.
	exit, err := box.Run(ctx, sandbox.Command{Args: []string{"ip", "address"}})
	if err != nil {
		fmt.Println(err)
	}
	os.Exit(exit)
}
