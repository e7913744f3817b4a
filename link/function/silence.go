package function

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
)

// Numbers of <linux/ip.h> (IPV4_DEVCONF_…) and <linux/if_link.h> that x/sys has not.
const (
	confRPFilter  = 8
	confARPIgnore = 19

	inetConf         = 1 // IFLA_INET_CONF
	inet6AddrGenMode = 8 // IFLA_INET6_ADDR_GEN_MODE
	addrGenModeNone  = 1 // IN6_ADDR_GEN_MODE_NONE
)

// silence has the IP stack say nothing by an interface of its own accord: it answers no ARP
// request, takes no datagram that it would answer by another interface, and gives it no IPv6
// address. These are settings of the interface as `sysctl` shows them (rp_filter,
// arp_ignore) and `ip link` (addrgenmode).
func silence(c *rtnl.Client, index int32) error {
	r := rtnl.Link(unix.RTM_SETLINK, index, 0, 0)
	r.Nest(unix.IFLA_AF_SPEC, func() {
		r.Nest(unix.AF_INET, func() {
			r.Nest(inetConf, func() { r.PutUint32(confRPFilter, 1).PutUint32(confARPIgnore, 8) })
		})
	})
	if _, err := c.Do(r); err != nil {
		return fmt.Errorf("set rp_filter and arp_ignore: %w", err)
	}
	r = rtnl.Link(unix.RTM_SETLINK, index, 0, 0)
	r.Nest(unix.IFLA_AF_SPEC, func() {
		r.Nest(unix.AF_INET6, func() { r.Put(inet6AddrGenMode, []byte{addrGenModeNone}) })
	})
	if _, err := c.Do(r); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("set addrgenmode: %w", err)
	}
	return nil
}

// A wall is what keeps the IP stack away from an interface. Settings alone don't: IPv6 has
// no rp_filter, and a datagram from 0.0.0.0 to all passes that of IPv4. It is a chain of
// nf_tables at the interface's ingress whose policy is to drop, the last one there: packet
// sockets, XDP and tc have had the frame before, and users' own chains too. Its table is
// owned by a socket: nobody else can flush it, and it goes with the socket.
type wall struct{ c *rtnl.Client }

// Numbers of <linux/netfilter/nf_tables.h> and <linux/netfilter.h> that x/sys may not have.
const (
	tableName    = 1 // NFTA_TABLE_NAME
	tableFlags   = 2 // NFTA_TABLE_FLAGS
	tableOwner   = 2 // NFT_TABLE_F_OWNER
	chainTable   = 1 // NFTA_CHAIN_TABLE
	chainName    = 3 // NFTA_CHAIN_NAME
	chainHook    = 4 // NFTA_CHAIN_HOOK
	chainPolicy  = 5 // NFTA_CHAIN_POLICY
	chainType    = 7 // NFTA_CHAIN_TYPE
	hookNum      = 1 // NFTA_HOOK_HOOKNUM
	hookPriority = 2 // NFTA_HOOK_PRIORITY
	hookDev      = 3 // NFTA_HOOK_DEV

	familyNetdev  = 5 // NFPROTO_NETDEV
	netdevIngress = 0 // NF_NETDEV_INGRESS
	policyDrop    = 0 // NF_DROP
)

// openWall opens the socket for walls in the calling thread's namespace.
func openWall() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a socket of nf_tables: %w", err)
	}
	return os.NewFile(uintptr(fd), "netfilter"), nil
}

// build puts the wall up.
func (w wall) build(index int32, name string) error {
	table := nftables(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	table.PutString(tableName, wallName(index)).Put(tableFlags, big(tableOwner))
	chain := nftables(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	chain.PutString(chainTable, wallName(index)).PutString(chainName, "ingress")
	chain.Nest(chainHook, func() {
		chain.Put(hookNum, big(netdevIngress)).Put(hookPriority, big(math.MaxInt32)).PutString(hookDev, name)
	})
	chain.Put(chainPolicy, big(policyDrop)).PutString(chainType, "filter")
	if err := w.batch(table, chain); err != nil {
		return fmt.Errorf("drop what comes by it at nf_tables' ingress: %w", err)
	}
	return nil
}

// tear takes the wall away, also what is left of it when the interface is gone.
func (w wall) tear(index int32) error {
	err := w.batch(nftables(unix.NFT_MSG_DELTABLE, unix.NLM_F_ACK).PutString(tableName, wallName(index)))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// move puts the wall up anew at an interface that has another name: since Linux 6.16 a chain
// goes by that. One that is renamed once more, or gone, is no error.
func (w wall) move(index int32, name string) error {
	if err := w.tear(index); err != nil {
		return err
	}
	if err := w.build(index, name); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func wallName(index int32) string { return fmt.Sprintf("hvnet-vf-%d", index) }

// batch has the kernel do all or none.
func (w wall) batch(requests ...*rtnl.Request) error {
	head := func(kind uint16) *rtnl.Request {
		return rtnl.NewRequest(kind, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})
	}
	all := append([]*rtnl.Request{head(unix.NFNL_MSG_BATCH_BEGIN)}, requests...)
	_, err := w.c.Do(append(all, head(unix.NFNL_MSG_BATCH_END))...)
	return err
}

// nftables begins a message with struct nfgenmsg: u8 family, u8 version, u16 zero.
func nftables(kind, flags uint16) *rtnl.Request {
	return rtnl.NewRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, []byte{familyNetdev, unix.NFNETLINK_V0, 0, 0})
}

// big returns a number as nf_tables has them.
func big(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
