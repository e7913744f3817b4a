package tap

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
	"hvnet/link/vnet"
	"hvnet/nic"
)

// openQueue opens one queue of the interface in the calling thread's namespace.
// The first one makes the interface and fails if there is one of the name.
func openQueue(cfg Config, first bool) (*os.File, error) {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(err)
	}
	if err := attach(fd, cfg, first); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Only now: the netpoller refuses a descriptor without interface.
	return os.NewFile(uintptr(fd), Device), nil
}

// openError gives the reason why the device file cannot be opened.
func openError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return ErrNoTun
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("open %s: %w", Device, ErrPermission)
	}
	return fmt.Errorf("open %s: %w", Device, err)
}

// attach makes fd a queue of the interface.
func attach(fd int, cfg Config, first bool) error {
	ifr, err := unix.NewIfreq(cfg.Name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	if first {
		// Without this the kernel would quietly add a queue to a
		// multi-queue TAP of the same name that belongs to somebody else.
		flags |= unix.IFF_TUN_EXCL
	}
	ifr.SetUint16(flags)
	switch err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); {
	case err == nil:
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("attach to the network namespace: %w", ErrPermission)
	case first && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EEXIST)):
		// EINVAL: the interface of the name is not a TAP.
		return fmt.Errorf("%s exists in this network namespace: %w", cfg.Name, ErrExists)
	default:
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnet.Len); err != nil {
		return fmt.Errorf("TUNSETVNETHDRSZ: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(cfg.Offloads)); err != nil {
		return fmt.Errorf("TUNSETOFFLOAD %#x: %w", cfg.Offloads, err)
	}
	return nil
}

// current returns the name that the interface has now: its users may have renamed it, and
// called another one as it was. It fails with ErrRemoved if there is none any more.
func (t *TAP) current() (string, error) {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return "", err
	}
	err = rtnl.Control(t.queues[0].file, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) })
	if errors.Is(err, unix.EBADFD) {
		err = ErrRemoved
	}
	return ifr.Name(), err
}

// byName has f do something to the interface by its name.
func (t *TAP) byName(f func(name string) error) error {
	name, err := t.current()
	if err != nil {
		return err
	}
	return f(name)
}

// ethtool makes one call of SIOCETHTOOL. command points to its structure.
func (t *TAP) ethtool(command unsafe.Pointer) error {
	return t.byName(func(name string) error { return ethtool(t.ctl, name, command) })
}

// index returns the interface's number.
func (t *TAP) index() (index int32, err error) {
	err = t.byName(func(name string) (err error) {
		index, err = rtnl.Index(t.ctl, name)
		return err
	})
	return index, err
}

func setMTU(ctl *os.File, name string, mtu int) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint32(uint32(mtu))
	return rtnl.Control(ctl, func(fd int) error { return unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr) })
}

// clearFlag clears a flag that a user has set, such as IFF_UP.
func clearFlag(ctl *os.File, name string, flag uint16) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	return rtnl.Control(ctl, func(fd int) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
			return err
		}
		ifr.SetUint16(ifr.Uint16() &^ flag)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	})
}

// ifreq is struct ifreq with the member of the union in data, which for an
// address is a struct sockaddr.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

// setMAC goes through a queue, which stands for its interface wherever that is.
func setMAC(queue *os.File, name string, mac nic.MAC) error {
	var ifr ifreq
	copy(ifr.name[:], name)
	*(*uint16)(unsafe.Pointer(&ifr.data[0])) = unix.ARPHRD_ETHER
	copy(ifr.data[2:], mac[:])
	return rtnl.Control(queue, func(fd int) error {
		return ioctlPtr(fd, unix.SIOCSIFHWADDR, unsafe.Pointer(&ifr))
	})
}

// linkSettings is struct ethtool_link_settings with room for its three bitmaps
// of at most 127 words.
type linkSettings struct {
	cmd                               uint32
	speed                             uint32
	duplex, port, phy, autoneg        uint8
	mdio, mdix, mdixCtrl              uint8
	words                             int8
	transceiver, msCfg, msState, rate uint8
	_                                 [7]uint32
	masks                             [3 * 127]uint32
}

const (
	cmdGetLinkSettings = 0x4c // ETHTOOL_GLINKSETTINGS
	cmdSetLinkSettings = 0x4d // ETHTOOL_SLINKSETTINGS
	duplexFull         = 1
)

// setSpeed sets speed and full duplex as `ethtool -s` does: the kernel first
// tells the length of its bitmaps as a negative number, then takes the settings.
func setSpeed(ctl *os.File, name string, mbps uint32) error {
	s := &linkSettings{cmd: cmdGetLinkSettings}
	call := func() error { return ethtool(ctl, name, unsafe.Pointer(s)) }
	if err := call(); err != nil {
		return err
	}
	if s.words >= 0 {
		return fmt.Errorf("ETHTOOL_GLINKSETTINGS: %d mask words: %w", s.words, nic.ErrIO)
	}
	*s = linkSettings{cmd: cmdGetLinkSettings, words: -s.words}
	if err := call(); err != nil {
		return err
	}
	s.cmd, s.speed, s.duplex = cmdSetLinkSettings, mbps, duplexFull
	return call()
}

// ethtool makes one call of SIOCETHTOOL. command points to its structure.
func ethtool(ctl *os.File, name string, command unsafe.Pointer) error {
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(ifr.name[:], name)
	ifr.data = command
	return rtnl.Control(ctl, func(fd int) error { return ioctlPtr(fd, unix.SIOCETHTOOL, unsafe.Pointer(&ifr)) })
}

func ioctlPtr(fd int, req uint, p unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(p)); e != 0 {
		return e
	}
	return nil
}
