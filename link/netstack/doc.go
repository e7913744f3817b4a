// Package netstack joins a queue of frames to a TCP/IP stack in user space, so
// that traffic needs no privilege and no kernel interface. Its one job is the
// edge between [nic.Frame] and gVisor's netstack; there are two ends to it:
//
// A [Gateway] is the router of a virtual switch: it answers ARP and neighbour
// discovery, leases IPv4 addresses (DHCP), advertises the IPv6 prefix, answers
// echo requests and DNS queries, serves echo, discard and character generator,
// and carries TCP and UDP on to the network of the machine by NAT.
//
// A [Host] is the stack of a guest: a program gives it the frames that its NIC
// received and gets net.Conn and net.Listener, ping and DHCP.
//
// A [LeaseClient] is the DHCPv4 client alone, over raw frames, for whoever has an
// interface elsewhere that wants an address.
package netstack
