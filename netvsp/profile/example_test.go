package profile_test

import (
	"fmt"

	"hvnet/netvsp/profile"
)

// The whole table.
func Example() {
	fmt.Println("name      VMBus  NVSP  NDIS  section  receive buffer  channels")
	for _, name := range profile.Names() {
		p, err := profile.Lookup(name)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%-9s %-6v %-5v %-5v %7d  %10d MiB  %8d\n", p.Name, p.VMBus[0], p.NVSP[0], p.NDIS,
			p.ReceiveSectionSize(1514), p.MaxReceiveBuffer>>20, p.MaxChannels)
	}
	// Output:
	// name      VMBus  NVSP  NDIS  section  receive buffer  channels
	// ws2008r2  2.4    2     6.1      1728          15 MiB         1
	// ws2012    2.4    4     6.1      1728          31 MiB         1
	// ws2012r2  3.0    5     6.30     1728          31 MiB        64
	// ws2016    4.0    6     6.30     1728          31 MiB        64
	// win10     5.1    6     6.30     1728          31 MiB        64
	// ws2019    5.2    6.1   6.30     1806          31 MiB        64
	// ws2022    5.3    6.1   6.30     1806          31 MiB        64
	// azure     6.0    6.1   6.30     1806          31 MiB        64
}
