package packet

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
)

// What a socket holds at most, in bytes as the kernel counts them: frames that were not
// received yet, and frames that the interface has yet to send.
const (
	receiveBuffer = 8 << 20
	sendBuffer    = 4 << 20
)

// allProtocols is ETH_P_ALL in the byte order of the network.
const allProtocols = uint16(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8)

// newSocket opens a packet socket with a virtio-net header in front of each frame. It
// belongs to no interface and receives nothing yet.
func newSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("open a packet socket: %w", ErrPermission)
	case err != nil:
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("PACKET_VNET_HDR: %w", err)
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// An option is one of a socket.
type option struct {
	name                 string
	level, option, value int
}

func set(file *os.File, options ...option) error {
	return rtnl.Control(file, func(fd int) error {
		for _, o := range options {
			if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
				return fmt.Errorf("%s: %w", o.name, err)
			}
		}
		return nil
	})
}

// buffer sets how much a socket holds; what exceeds the machine's limit takes
// CAP_NET_ADMIN.
func buffer(file *os.File, forced, plain, bytes int) error {
	if set(file, option{"", unix.SOL_SOCKET, forced, bytes}) == nil {
		return nil
	}
	return set(file, option{"buffer of a packet socket", unix.SOL_SOCKET, plain, bytes})
}

// receiveSocket opens the socket to receive by: not what this machine sends, tags apart
// (the kernel takes them out of all frames anyway).
func receiveSocket() (*os.File, error) {
	f, err := newSocket()
	if err != nil {
		return nil, err
	}
	err = set(f, option{"PACKET_IGNORE_OUTGOING", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		option{"PACKET_AUXDATA", unix.SOL_PACKET, unix.PACKET_AUXDATA, 1})
	if err == nil {
		err = buffer(f, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sendSocket opens the socket to send by, which never receives.
func sendSocket() (*os.File, error) {
	f, err := newSocket()
	if err != nil {
		return nil, err
	}
	if err := buffer(f, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// membership is what a socket makes of the interface that it is joined to.
func membership(promisc bool) uint16 {
	if promisc {
		return unix.PACKET_MR_PROMISC
	}
	return unix.PACKET_MR_ALLMULTI
}

// join binds both sockets to an interface, which gets a membership for as long as it
// exists and the socket is open.
func join(f *Files, index int32, membership uint16) error {
	bind := func(file *os.File, protocol uint16) error {
		return rtnl.Control(file, func(fd int) error {
			if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: int(index)}); err != nil {
				return fmt.Errorf("bind a packet socket: %w", err)
			}
			return nil
		})
	}
	if err := bind(f.Send, 0); err != nil {
		return err
	}
	if err := bind(f.Receive, allProtocols); err != nil {
		return err
	}
	return member(f, unix.PACKET_ADD_MEMBERSHIP, index, membership)
}

// member adds a membership to the interface, or drops it.
func member(f *Files, option int, index int32, membership uint16) error {
	return rtnl.Control(f.Receive, func(fd int) error {
		m := unix.PacketMreq{Ifindex: index, Type: membership}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, option, &m); err != nil {
			return fmt.Errorf("have it receive frames for others or for groups: %w", err)
		}
		return nil
	})
}

// joined returns the index of the interface that a socket is bound to.
func joined(file *os.File) (index int32, err error) {
	err = rtnl.Control(file, func(fd int) error {
		a, err := unix.Getsockname(fd)
		if err != nil {
			return os.NewSyscallError("getsockname", err)
		}
		ll, ok := a.(*unix.SockaddrLinklayer)
		if !ok {
			return errors.New("not a packet socket")
		}
		index = int32(ll.Ifindex)
		return nil
	})
	return index, err
}

// hardwareType returns what an interface is, ARPHRD_ETHER for instance.
func hardwareType(ctl *os.File, name string) (uint16, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = rtnl.Control(ctl, func(fd int) error { return unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, ifr) })
	return ifr.Uint16(), err
}

// mtu returns the longest packet that an interface sends.
func mtu(ctl *os.File, name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = rtnl.Control(ctl, func(fd int) error { return unix.IoctlIfreq(fd, unix.SIOCGIFMTU, ifr) })
	return int(ifr.Uint32()), err
}
