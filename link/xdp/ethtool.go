package xdp

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
)

// ethtool makes one call of SIOCETHTOOL. The command is the first word of what is
// exchanged.
func ethtool(ctl *os.File, name string, words []uint32) error {
	if len(name) >= unix.IFNAMSIZ {
		return unix.EINVAL
	}
	// struct ifreq
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(unsafe.SliceData(words))}
	copy(ifr.name[:], name)
	return rtnl.Control(ctl, func(fd int) error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); e != 0 {
			return e
		}
		return nil
	})
}

// channels returns how many queues an interface has to receive and to send: one, if its
// driver says nothing.
func channels(ctl *os.File, name string) (rx, tx int, err error) {
	// struct ethtool_channels: command; maxima and counts of rx, tx, other, combined
	c := [9]uint32{0: unix.ETHTOOL_GCHANNELS}
	err = ethtool(ctl, name, c[:])
	if errors.Is(err, unix.EOPNOTSUPP) {
		return 1, 1, nil
	}
	return max(1, int(c[5]+c[8])), max(1, int(c[6]+c[8])), err
}
