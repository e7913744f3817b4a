package tap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// A State is what users have made of the interface, with `ip link` or otherwise.
type State struct {
	Up          bool // administratively
	MTU         int
	MAC         nic.MAC
	Promiscuous bool // somebody wants all frames: the user, a bridge, a packet socket
}

// Watch calls changed with the state of the interface now and, until ctx ends,
// whenever the kernel has told of a change. Of changes in quick succession changed
// sees only the last; it may see the same state twice. Watch returns nil at the end
// of ctx, net.ErrClosed after Close, ErrRemoved when the interface is gone. Between
// changes it costs nothing. A TAP has one watch at a time, and none without ctl.
func (t *TAP) Watch(ctx context.Context, changed func(State)) error {
	if t.ctl == nil {
		return fmt.Errorf("watch %s: %w", t.name, nic.ErrNotSupported)
	}
	err := t.watch(ctx, changed)
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, os.ErrClosed):
		return net.ErrClosed
	}
	return fmt.Errorf("watch %s: %w", t.name, err)
}

func (t *TAP) watch(ctx context.Context, changed func(State)) error {
	w := &watcher{ctl: t.ctl, buf: make([]byte, 32<<10)}
	var err error
	if w.rc, err = t.ctl.SyscallConn(); err != nil {
		return err
	}
	if w.index, err = interfaceIndex(t.ctl, t.name); err != nil {
		return err
	}
	if err := w.member(unix.NETLINK_ADD_MEMBERSHIP); err != nil {
		return err
	}
	defer w.member(unix.NETLINK_DROP_MEMBERSHIP)
	if err := t.ctl.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { t.ctl.SetReadDeadline(time.Unix(1, 0)) })()
	if err := w.ask(); err != nil {
		return err
	}
	for {
		s, ok, err := w.burst()
		if err != nil {
			return err
		}
		if ok {
			changed(s)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// A watcher reads rtnetlink's messages about one interface.
type watcher struct {
	ctl   *os.File
	rc    syscall.RawConn
	index int32
	buf   []byte
}

// member has the kernel begin or stop to tell of changes.
func (w *watcher) member(option int) error {
	return control(w.ctl, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, unix.RTNLGRP_LINK); err != nil {
			return fmt.Errorf("subscribe to changes of interfaces: %w", err)
		}
		return nil
	})
}

// ask asks the kernel for the interface's state, which comes like a change of it.
func (w *watcher) ask() error {
	return control(w.ctl, func(fd int) error {
		err := unix.Sendto(fd, linkRequest(w.index), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
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
		s, here, removed := parseLink(msg, w.index)
		if removed {
			return last, ok, ErrRemoved
		}
		if here {
			last, ok = s, true
		}
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
	linkIndex   = 4
	linkFlags   = 8
	linkInfoLen = unix.SizeofIfInfomsg
)

// linkRequest returns the question for an interface.
func linkRequest(index int32) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+linkInfoLen)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr+linkIndex:], uint32(index))
	return b
}

// parseLink returns what a datagram of rtnetlink says of an interface: its last
// state, ok false if there is none, and whether it was removed.
func parseLink(b []byte, index int32) (last State, ok, removed bool) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return last, false, false
	}
	for i := range messages {
		m := &messages[i]
		link := m.Header.Type == unix.RTM_NEWLINK || m.Header.Type == unix.RTM_DELLINK
		if !link || len(m.Data) < linkInfoLen || int32(binary.NativeEndian.Uint32(m.Data[linkIndex:])) != index || m.Data[0] != unix.AF_UNSPEC {
			continue // of a bridge's port there are messages of another family
		}
		if m.Header.Type == unix.RTM_DELLINK {
			return last, ok, true
		}
		last, ok = State{Up: binary.NativeEndian.Uint32(m.Data[linkFlags:])&unix.IFF_UP != 0}, true
		last.attributes(m.Data[linkInfoLen:])
	}
	return last, ok, false
}

// attributes takes what the attributes of a link message say. The syscall package
// would parse them, but not if the last one is cut short.
func (s *State) attributes(b []byte) {
	const header = unix.SizeofRtAttr
	for len(b) >= header {
		n := int(binary.NativeEndian.Uint16(b))
		if n < header || n > len(b) {
			return
		}
		kind, value := binary.NativeEndian.Uint16(b[2:]), b[header:n]
		switch {
		case kind == unix.IFLA_MTU && len(value) == 4:
			s.MTU = int(binary.NativeEndian.Uint32(value))
		case kind == unix.IFLA_ADDRESS && len(value) == len(s.MAC):
			s.MAC = nic.MAC(value)
		case kind == unix.IFLA_PROMISCUITY && len(value) == 4:
			s.Promiscuous = binary.NativeEndian.Uint32(value) != 0
		}
		b = b[min((n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
}
