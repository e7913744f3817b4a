// Package rtnl hears from the kernel, by rtnetlink, what becomes of a network interface
// in whatever namespace, and has it do something to one: a socket stays in the namespace
// that it was made in.
package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// Open opens a socket for settings of interfaces in the calling thread's namespace, and
// for news of them.
func Open() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return os.NewFile(uintptr(fd), "netns"), nil
}

// Control calls f with the descriptor of file, which stays open meanwhile.
func Control(file *os.File, f func(fd int) error) error {
	rc, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Index returns the number that stays the interface's.
func Index(ctl *os.File, name string) (int32, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = Control(ctl, func(fd int) error { return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr) })
	return int32(ifr.Uint32()), err
}

// An Interface says which one to watch: that of an index, whatever its name becomes, until it
// is removed, or, if Index is 0, whichever has the name.
type Interface struct {
	Index int32
	Name  string
}

func (of Interface) is(s *State) bool {
	return s.Index == of.Index || of.Index == 0 && s.Name == of.Name
}

// A State is what the kernel and users have made of an interface, with `ip link` or
// otherwise.
type State struct {
	Removed     bool // there is none; all else is zero
	Index       int32
	Name        string
	Alias       string // what a user, or whoever made it, calls it besides
	Kind        string // of software: "veth", "tun", …; hardware has none
	Ethernet    bool
	Up          bool // administratively
	Carrier     bool // up, and so is its link (IFF_LOWER_UP): IFF_RUNNING may come a second later
	MTU         int
	MAC         nic.MAC
	Promiscuous bool // somebody wants all frames: the user, a bridge, a packet socket
}

// Watch calls changed with the state of an interface now and, until ctx ends, whenever
// the kernel has told of a change. Of changes in quick succession changed sees only the
// last; it may see the same state twice. Watch returns nil at the end of ctx, what
// changed returns if that is not nil, and the error of the socket, which is os.ErrClosed
// when that is closed. Between changes it costs nothing. A socket serves one watch at a
// time.
func Watch(ctx context.Context, ctl *os.File, of Interface, changed func(State) error) error {
	err := watch(ctx, ctl, of, changed)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func watch(ctx context.Context, ctl *os.File, of Interface, changed func(State) error) error {
	w := &watcher{ctl: ctl, question: request(of), mine: of.is, final: of.Index != 0}
	return w.watch(ctx, changed)
}

// watch calls changed with the last state that each burst of messages tells.
func (w *watcher) watch(ctx context.Context, changed func(State) error) error {
	ctl := w.ctl
	w.buf = make([]byte, 32<<10)
	var err error
	if w.rc, err = ctl.SyscallConn(); err != nil {
		return err
	}
	if err := w.member(unix.NETLINK_ADD_MEMBERSHIP); err != nil {
		return err
	}
	defer w.member(unix.NETLINK_DROP_MEMBERSHIP)
	if err := ctl.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { ctl.SetReadDeadline(time.Unix(1, 0)) })()
	if err := w.ask(); err != nil {
		return err
	}
	for {
		s, ok, err := w.burst()
		if err != nil {
			return err
		}
		if ok {
			if err := changed(s); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// A watcher reads rtnetlink's messages about one interface.
type watcher struct {
	ctl      *os.File
	rc       syscall.RawConn
	question []byte            // by which the kernel tells its state
	mine     func(*State) bool // which one
	first    bool              // the first that is there counts, not the last news
	final    bool              // one that was removed does not come again
	buf      []byte
}

// member has the kernel begin or stop to tell of changes.
func (w *watcher) member(option int) error {
	return Control(w.ctl, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, unix.RTNLGRP_LINK); err != nil {
			return fmt.Errorf("subscribe to changes of interfaces: %w", err)
		}
		return nil
	})
}

// ask asks the kernel for the interface's state, which comes like a change of it.
func (w *watcher) ask() error {
	return Control(w.ctl, func(fd int) error {
		err := unix.Sendto(fd, w.question, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != nil {
			return fmt.Errorf("ask for the state of the interface: %w", err)
		}
		return nil
	})
}

// burst waits for a message and reads all that have come. It returns the last state
// of the interface that they tell, ok false if none does.
func (w *watcher) burst() (last State, ok bool, err error) {
	lost := false // more came than the socket holds
	for first := true; ; first = false {
		msg, err := w.receive(first)
		switch {
		case err == unix.EAGAIN && lost:
			// Only now the kernel adds to the socket again.
			lost = false
			if err := w.ask(); err != nil {
				return last, ok, err
			}
			continue
		case err == unix.EAGAIN:
			return last, ok, nil
		case err == unix.ENOBUFS:
			lost = true
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			// The end of this watch, or late news of that of the one before.
			return last, ok, w.ctl.SetReadDeadline(time.Time{})
		case err != nil:
			return last, ok, err
		}
		s, here := parse(msg, w.mine)
		switch {
		case !here, w.first && (ok || s.Removed):
			continue
		case w.final && ok && last.Removed:
			continue // another one, which has got the number
		}
		last, ok = s, true
	}
}

// receive returns one message of the kernel, waiting for it if need be, or EAGAIN.
func (w *watcher) receive(wait bool) ([]byte, error) {
	var n int
	var from unix.Sockaddr
	var failed error
	once := func(fd uintptr) bool {
		n, from, failed = unix.Recvfrom(int(fd), w.buf, unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN
	}
	var err error
	if wait {
		err = w.rc.Read(once)
	} else {
		err = w.rc.Control(func(fd uintptr) { once(fd) })
	}
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
		return nil, nil // any process may send to the socket
	}
	return w.buf[:n], nil
}

// The layout of struct nlmsghdr with struct ifinfomsg behind it, as rtnetlink(7) has
// it: u32 length, u16 type, u16 flags, u32 sequence, u32 port; u8 family, pad, u16
// hardware type, s32 index, u32 flags, u32 change mask. Attributes follow.
const (
	linkType    = 2
	linkIndex   = 4
	linkFlags   = 8
	linkChange  = 12
	linkInfoLen = unix.SizeofIfInfomsg
)

// request returns the question for an interface.
func request(of Interface) []byte {
	head := make([]byte, linkInfoLen)
	binary.NativeEndian.PutUint32(head[linkIndex:], uint32(of.Index))
	r := NewRequest(unix.RTM_GETLINK, 0, head)
	if of.Index == 0 {
		var name [unix.IFNAMSIZ]byte
		copy(name[:unix.IFNAMSIZ-1], of.Name)
		r.Put(unix.IFLA_IFNAME, name[:])
	}
	return r.bytes(0)
}

// parse returns the last state that a datagram of rtnetlink tells of an interface that is
// mine, ok false if it tells none.
func parse(b []byte, mine func(*State) bool) (last State, ok bool) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return last, false
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Type == unix.NLMSG_ERROR {
			// The answer to a question for what is not there.
			if len(m.Data) >= 4 && int32(binary.NativeEndian.Uint32(m.Data)) == -int32(unix.ENODEV) {
				last, ok = State{Removed: true}, true
			}
			continue
		}
		link := m.Header.Type == unix.RTM_NEWLINK || m.Header.Type == unix.RTM_DELLINK
		if !link || len(m.Data) < linkInfoLen || m.Data[0] != unix.AF_UNSPEC {
			continue // of a bridge's port there are messages of another family
		}
		flags := binary.NativeEndian.Uint32(m.Data[linkFlags:])
		s := State{
			Index:    int32(binary.NativeEndian.Uint32(m.Data[linkIndex:])),
			Ethernet: binary.NativeEndian.Uint16(m.Data[linkType:]) == unix.ARPHRD_ETHER,
			Up:       flags&unix.IFF_UP != 0,
			Carrier:  flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0,
		}
		attributes(m.Data[linkInfoLen:], s.attribute)
		if !mine(&s) {
			continue
		}
		if m.Header.Type == unix.RTM_DELLINK {
			s = State{Removed: true}
		}
		last, ok = s, true
	}
	return last, ok
}

// attribute takes what an attribute of a link message says.
func (s *State) attribute(kind uint16, value []byte) {
	switch {
	case kind == unix.IFLA_IFNAME:
		s.Name = unix.ByteSliceToString(value)
	case kind == unix.IFLA_IFALIAS:
		s.Alias = unix.ByteSliceToString(value)
	case kind == unix.IFLA_LINKINFO:
		attributes(value, func(kind uint16, value []byte) {
			if kind == unix.IFLA_INFO_KIND {
				s.Kind = unix.ByteSliceToString(value)
			}
		})
	case kind == unix.IFLA_MTU && len(value) == 4:
		s.MTU = int(binary.NativeEndian.Uint32(value))
	case kind == unix.IFLA_ADDRESS && len(value) == len(s.MAC):
		s.MAC = nic.MAC(value)
	case kind == unix.IFLA_PROMISCUITY && len(value) == 4:
		s.Promiscuous = binary.NativeEndian.Uint32(value) != 0
	}
}

// attributes calls f with each attribute of a message. The syscall package would parse
// them, but not if the last one is cut short.
func attributes(b []byte, f func(kind uint16, value []byte)) {
	const header = unix.SizeofRtAttr
	for len(b) >= header {
		n := int(binary.NativeEndian.Uint16(b))
		if n < header || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[header:n])
		b = b[min((n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
}
