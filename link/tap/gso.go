package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
	"hvnet/nic"
)

var ne = binary.NativeEndian

// gsoLimit is the message of rtnetlink that limits how long the frames are that the kernel
// leaves to be cut, headers included, as `ip link set gso_max_size` does.
func gsoLimit(index int32, bytes int, flags uint16) []byte {
	const (
		header, link, attribute = unix.SizeofNlMsghdr, unix.SizeofIfInfomsg, unix.SizeofRtAttr + 4
		gsoMaxSize              = 41 // IFLA_GSO_MAX_SIZE
	)
	m := make([]byte, header+link+attribute)
	ne.PutUint32(m, uint32(len(m)))
	ne.PutUint16(m[4:], unix.RTM_NEWLINK)
	ne.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	ne.PutUint32(m[header+4:], uint32(index))
	ne.PutUint16(m[header+link:], attribute)
	ne.PutUint16(m[header+link+2:], gsoMaxSize)
	ne.PutUint32(m[header+link+4:], uint32(bytes))
	return m
}

// setLargest sets the limit. It is called where the interface was made, and by a socket of
// its own: the answer comes at once, and to nobody else.
func setLargest(index int32, bytes int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, gsoLimit(index, bytes, unix.NLM_F_ACK), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return os.NewSyscallError("receive", err)
	}
	if n < unix.SizeofNlMsghdr+4 || ne.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("no answer of rtnetlink")
	}
	if e := int32(ne.Uint32(answer[unix.SizeofNlMsghdr:])); e != 0 {
		return fmt.Errorf("RTM_NEWLINK: %w", unix.Errno(-e))
	}
	return nil
}

// kernelLargest is the kernel's own limit (GSO_LEGACY_MAX_SIZE).
const kernelLargest = 65536

// SetLargest sets how long in bytes the frames may be that the kernel leaves to be cut; 0
// is the kernel's own limit. A kernel that refuses does so unheard: longer frames are
// no harm, but work.
func (t *TAP) SetLargest(bytes int) error {
	if bytes == 0 {
		bytes = kernelLargest
	}
	err := nic.ErrNotSupported
	if t.ctl != nil {
		var index int32
		if index, err = t.index(); err == nil {
			err = rtnl.Control(t.ctl, func(fd int) error {
				return unix.Sendto(fd, gsoLimit(index, bytes, 0), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			})
		}
	}
	if err != nil {
		return fmt.Errorf("set longest frame %d of %s: %w", bytes, t.name, err)
	}
	return nil
}
