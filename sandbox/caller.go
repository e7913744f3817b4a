package sandbox

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (c *call) read(addr uint64, b []byte) error {
	n, err := unix.ProcessVMReadv(int(c.pid), iovec(b), []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	return whole(n, len(b), err)
}

func (c *call) write(addr uint64, b []byte) error {
	if !c.waits() {
		return unix.ESRCH
	}
	n, err := unix.ProcessVMWritev(int(c.pid), iovec(b), []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	return whole(n, len(b), err)
}

func iovec(b []byte) []unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return []unix.Iovec{v}
}

func whole(n, want int, err error) error {
	if err == nil && n != want {
		err = unix.EFAULT
	}
	return err
}

// memory is the caller's, from an address on.
type memory struct {
	call *call
	base uint64
}

func (m memory) Read(offset uint64, b []byte) error {
	err := m.call.read(m.base+offset, b)
	if err == nil && !m.call.waits() {
		err = unix.ESRCH
	}
	return err
}

func (m memory) Write(offset uint64, b []byte) error { return m.call.write(m.base+offset, b) }

func (c *call) proc(file string) string { return "/proc/" + strconv.Itoa(int(c.pid)) + "/" + file }

// program returns the name of the calling program.
func (c *call) program() string {
	b, _ := os.ReadFile(c.proc("comm"))
	return strings.TrimSuffix(string(b), "\n")
}

// inode returns the number of one of the caller's namespaces.
func (c *call) inode(kind string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(c.proc("ns/"+kind), &st)
	return st.Ino, err
}

// capNetAdmin is the bit of CAP_NET_ADMIN in a set of capabilities.
const capNetAdmin = 12

// admin reports whether the caller has CAP_NET_ADMIN over its network namespace, by the
// kernel's rule: it has the capability in the user namespace to which that belongs, or in
// one above it; or it has made one of those, and lives in the one above.
func (c *call) admin() bool {
	own, err := c.inode("user")
	if err != nil {
		return false
	}
	user, caps, err := c.credentials()
	if err != nil {
		return false
	}
	at, err := userNamespaceOf(c.proc("ns/net"))
	for err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(at, &st); err == nil && st.Ino == own {
			unix.Close(at)
			return caps>>capNetAdmin&1 != 0 && c.waits()
		}
		maker, _ := unix.IoctlGetUint32(at, unix.NS_GET_OWNER_UID)
		parent, e := unix.IoctlRetInt(at, unix.NS_GET_PARENT)
		unix.Close(at)
		if err = e; err == nil {
			if err = unix.Fstat(parent, &st); err == nil && st.Ino == own && maker == user {
				unix.Close(parent)
				return c.waits()
			}
			at = parent
		}
	}
	return false
}

// userNamespaceOf returns a descriptor of the user namespace to which a namespace belongs.
func userNamespaceOf(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	return unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
}

// credentials returns the caller's effective user and its effective capabilities.
func (c *call) credentials() (user uint32, caps uint64, err error) {
	b, err := os.ReadFile(c.proc("status"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 2 && f[0] == "Uid:":
			n, e := strconv.ParseUint(f[2], 10, 32)
			user, err = uint32(n), errors.Join(err, e)
		case len(f) > 1 && f[0] == "CapEff:":
			n, e := strconv.ParseUint(f[1], 16, 64)
			caps, err = n, errors.Join(err, e)
		}
	}
	return user, caps, err
}
