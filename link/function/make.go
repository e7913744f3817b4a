package function

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"hvnet/link/packet"
	"hvnet/link/rtnl"
)

// hostName is the name of the host's end and hostIndex its number, which is that of no
// guest's end: of a pair whose two ends have the same one, in two namespaces, the kernel tells
// that it has carrier up to a second late.
const (
	hostName  = "hvnet-host"
	hostIndex = 65535
)

// Make makes a function for the guest in a network namespace, given by an open file such as
// /proc/PID/ns/net, in whose user namespace the caller needs CAP_NET_ADMIN, and CAP_SYS_ADMIN
// in its own. The host's end is in a new namespace, which has no other name than the files
// that are returned. The guest's interface is down, as a new device is.
//
// It fails with an error that is ErrPermission or ErrExists where that is the reason.
func Make(guest *os.File, cfg Config) (files HostFiles, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread ends with this function: nobody else is to get it.
		runtime.LockOSThread()
		files, err = makePair(guest, cfg)
	}()
	<-done
	if err != nil {
		files.Close()
		return HostFiles{}, fmt.Errorf("make virtual function %s: %w", cfg.name(), err)
	}
	return files, nil
}

// makePair makes both ends in a new namespace, which the thread enters, and moves one.
func makePair(guest *os.File, cfg Config) (files HostFiles, err error) {
	err = unix.Unshare(unix.CLONE_NEWNET)
	if err != nil {
		return files, fmt.Errorf("make a network namespace: %w", reason(err))
	}
	if files.Settings, err = rtnl.Open(); err != nil {
		return files, err
	}
	c := rtnl.NewClient(files.Settings)
	if _, err := c.Do(pair(cfg)); err != nil {
		return files, fmt.Errorf("make a veth pair: %w", err)
	}
	theirs, err := rtnl.Index(files.Settings, cfg.name())
	if err != nil {
		return files, err
	}
	if _, err := c.Do(rtnl.Link(unix.RTM_SETLINK, theirs, 0, 0).Put(unix.IFLA_IFALIAS, []byte(Alias(cfg.Serial, cfg.Wire)))); err != nil {
		return files, fmt.Errorf("mark it with its serial number: %w", err)
	}
	// All that ever comes is counted at the sockets too: they are there first.
	if files.Files, err = packet.OpenFiles(hostName); err != nil {
		return files, err
	}
	// The kernel puts a queueing discipline to work a moment after the guest has set its end
	// up, and drops what comes before.
	err = rtnl.Control(files.Send, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	})
	if err != nil {
		return files, fmt.Errorf("PACKET_QDISC_BYPASS: %w", err)
	}
	if err := silence(c, hostIndex); err != nil {
		return files, err
	}
	if _, err := c.Do(rtnl.Link(unix.RTM_SETLINK, hostIndex, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return files, fmt.Errorf("set the host's end up: %w", err)
	}
	// It has its name before: else the guest sees it by another one for a moment, and keeps it
	// by that one if there is an interface of the name.
	err = rtnl.Control(guest, func(fd int) error {
		_, err := c.Do(rtnl.Link(unix.RTM_SETLINK, theirs, 0, 0).PutUint32(unix.IFLA_NET_NS_FD, uint32(fd)))
		return err
	})
	if err != nil {
		return files, fmt.Errorf("move it to the guest: %w", reason(err))
	}
	return files, nil
}

// pair returns the request for both ends. The host's takes frames of any length.
func pair(cfg Config) *rtnl.Request {
	r := rtnl.Link(unix.RTM_NEWLINK, hostIndex, 0, 0).Flags(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	r.PutString(unix.IFLA_IFNAME, hostName).PutUint32(unix.IFLA_MTU, math.MaxUint16)
	queues := func() {
		if cfg.Wire { // by AF_XDP each queue is received by itself, and frames of several overtake one another
			r.PutUint32(unix.IFLA_NUM_TX_QUEUES, 1).PutUint32(unix.IFLA_NUM_RX_QUEUES, 1)
		}
	}
	queues()
	return r.Nest(unix.IFLA_LINKINFO, func() {
		r.Put(unix.IFLA_INFO_KIND, []byte("veth"))
		r.Nest(unix.IFLA_INFO_DATA, func() {
			r.Nest(vethPeer, func() {
				r.Head(make([]byte, unix.SizeofIfInfomsg))
				r.PutString(unix.IFLA_IFNAME, cfg.name()).Put(unix.IFLA_ADDRESS, cfg.MAC[:])
				r.PutUint32(unix.IFLA_MTU, uint32(cmp.Or(cfg.MTU, 1500)))
				queues()
			})
		})
	})
}

// vethPeer is VETH_INFO_PEER: struct ifinfomsg and attributes of the other end.
const vethPeer = 1

// reason returns the error to test for, where there is one.
func reason(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return ErrPermission
	case errors.Is(err, unix.EEXIST):
		return ErrExists
	}
	return err
}
