package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var ne = binary.NativeEndian

// setLargest limits how long the frames are that the kernel leaves to be cut, headers
// included, as `ip link set gso_max_size` does. It is called where the interface was
// made, and by a socket of its own: the answer comes at once, and to nobody else.
func setLargest(index int32, bytes int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	const (
		header, link, attribute = unix.SizeofNlMsghdr, unix.SizeofIfInfomsg, unix.SizeofRtAttr + 4
		gsoMaxSize              = 41 // IFLA_GSO_MAX_SIZE
	)
	m := make([]byte, header+link+attribute)
	ne.PutUint32(m, uint32(len(m)))
	ne.PutUint16(m[4:], unix.RTM_NEWLINK)
	ne.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	ne.PutUint32(m[header+4:], uint32(index))
	ne.PutUint16(m[header+link:], attribute)
	ne.PutUint16(m[header+link+2:], gsoMaxSize)
	ne.PutUint32(m[header+link+4:], uint32(bytes))
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return os.NewSyscallError("receive", err)
	}
	if n < header+4 || ne.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("no answer of rtnetlink")
	}
	if e := int32(ne.Uint32(answer[header:])); e != 0 {
		return fmt.Errorf("RTM_NEWLINK: %w", unix.Errno(-e))
	}
	return nil
}
