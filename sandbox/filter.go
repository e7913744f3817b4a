package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A command whose SIOCETHTOOL is served is started in two steps. The program starts
// itself once more under this name, with the path of the command as its first argument
// and then the command's own, and a socket as its descriptor 3. That process puts the
// filter on itself, sends the descriptor on which filtered calls are told through the
// socket, and becomes the command.
const filterName = "hvnet-filter"

// becomeFiltered is the second step. It returns only if it fails.
func becomeFiltered() error {
	runtime.LockOSThread() // the filter is this thread's, and exec makes it the command's
	if len(os.Args) < 3 {
		return errors.New("no command")
	}
	tell := os.NewFile(helperFD, "filter")
	listener, err := installFilter()
	switch {
	case err == nil:
		err = sendDescriptor(tell, listener)
		unix.Close(listener)
	case errors.Is(err, unix.EBUSY):
		err = sendText(tell, "") // somebody above us serves already, and there can be but one
	default:
		err = sendText(tell, err.Error()) // the command runs without
	}
	tell.Close()
	if err != nil {
		return err
	}
	env := os.Environ()
	return fmt.Errorf("start %s: %w", os.Args[1], syscall.Exec(os.Args[1], os.Args[2:], env))
}

func sendDescriptor(to *os.File, fd int) error {
	return unix.Sendmsg(int(to.Fd()), []byte{0}, unix.UnixRights(fd), nil, 0)
}

func sendText(to *os.File, text string) error {
	return unix.Sendmsg(int(to.Fd()), append([]byte{1}, text...), nil, nil, 0)
}

// receiveListener returns the descriptor that becomeFiltered sent: nil if there is no
// service, with the reason, or without one if others serve already.
func receiveListener(c *conn) (*os.File, error) {
	buf, oob := make([]byte, 1024), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		return nil, nil // the command could not be started, which is told elsewhere
	}
	files, err := parseRights(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if buf[0] != 0 || len(files) != 1 {
		closeFiles(files)
		if text := strings.TrimSpace(string(buf[1:n])); text != "" {
			return nil, errors.New(text)
		}
		return nil, nil
	}
	// A file is one that can be waited for if it does not block when it is made.
	defer files[0].Close()
	fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

// The constants of seccomp that x/sys does not have. 5.19 and later kernels know
// waitKillable: a call that is being answered is not interrupted by signals, which would
// have it made, and answered, again.
const (
	newListener   = 1 << 3
	waitKillable  = 1 << 5
	retAllow      = 0x7fff0000
	retUserNotify = 0x7fc00000
)

// installFilter puts the filter on this thread and returns the descriptor on which
// filtered calls are told.
func installFilter() (int, error) {
	if auditArch == 0 {
		return -1, errors.New("no filter of system calls for " + runtime.GOARCH)
	}
	prog := filterProgram()
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	install := func(flags uintptr) (int, error) {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
		runtime.KeepAlive(prog)
		if errno != 0 {
			return -1, errno
		}
		return int(fd), nil
	}
	fd, err := install(newListener | waitKillable)
	if err == unix.EINVAL {
		fd, err = install(newListener)
	}
	if err == unix.EACCES { // without CAP_SYS_ADMIN the price is that setuid programs gain nothing
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("give up new privileges: %w", err)
		}
		if fd, err = install(newListener | waitKillable); err == unix.EINVAL {
			fd, err = install(newListener)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("filter system calls: %w", err)
	}
	return fd, nil
}

// siocEthtool is the ioctl of all of ethtool.
const siocEthtool = 0x8946

// Offsets in struct seccomp_data: the number of the call, the architecture, and the low
// half of an argument on a little-endian machine.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// filterProgram returns the filter: ioctl(…, SIOCETHTOOL, …) and socket(AF_NETLINK, …,
// NETLINK_GENERIC) are told to the supervisor, all else goes on at once. Calls of another
// architecture, such as those of 32-bit programs, are left alone.
func filterProgram() []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	return []unix.SockFilter{
		load(dataArch),
		equal(auditArch, 0, 9), // else allow
		load(dataNumber),
		equal(unix.SYS_IOCTL, 0, 2),
		load(dataArgs + 8*1),
		equal(siocEthtool, 6, 5),
		equal(unix.SYS_SOCKET, 0, 4),
		load(dataArgs + 8*0),
		equal(unix.AF_NETLINK, 0, 2),
		load(dataArgs + 8*2),
		equal(unix.NETLINK_GENERIC, 1, 0),
		ret(retAllow),
		ret(retUserNotify),
	}
}
