package rtnl

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Request is a netlink message to the kernel in the making, as netlink(7) has it.
type Request struct{ b []byte }

// NewRequest begins a message of a type with flags besides NLM_F_REQUEST. head is what it
// has in front of its attributes, such as struct ifinfomsg.
func NewRequest(kind, flags uint16, head []byte) *Request {
	b := make([]byte, unix.SizeofNlMsghdr, 256)
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	return &Request{append(b, head...)}
}

// Link begins a message of rtnetlink about the interface of an index, to set those flags
// (IFF_UP, …) that are in change as they are in flags. The kernel confirms it.
func Link(kind uint16, index int32, flags, change uint32) *Request {
	head := make([]byte, linkInfoLen)
	binary.NativeEndian.PutUint32(head[linkIndex:], uint32(index))
	binary.NativeEndian.PutUint32(head[linkFlags:], flags)
	binary.NativeEndian.PutUint32(head[linkChange:], change)
	return NewRequest(kind, unix.NLM_F_ACK, head)
}

// Flags adds flags of the message, such as NLM_F_CREATE.
func (r *Request) Flags(flags uint16) *Request {
	binary.NativeEndian.PutUint16(r.b[6:], binary.NativeEndian.Uint16(r.b[6:])|flags)
	return r
}

// Put adds an attribute.
func (r *Request) Put(kind uint16, value []byte) *Request {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(unix.SizeofRtAttr+len(value)))
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = append(r.b, value...)
	r.pad()
	return r
}

// PutUint32 adds an attribute with a number in the order of the machine.
func (r *Request) PutUint32(kind uint16, value uint32) *Request {
	return r.Put(kind, binary.NativeEndian.AppendUint32(nil, value))
}

// PutString adds an attribute with a string that ends in 0.
func (r *Request) PutString(kind uint16, value string) *Request {
	return r.Put(kind, append([]byte(value), 0))
}

// Nest adds an attribute that consists of those that f adds.
func (r *Request) Nest(kind uint16, f func()) *Request {
	at := len(r.b)
	r.Put(kind|unix.NLA_F_NESTED, nil)
	f()
	binary.NativeEndian.PutUint16(r.b[at:], uint16(len(r.b)-at))
	return r
}

// Head adds a structure in front of attributes that are to follow inside of another one.
func (r *Request) Head(b []byte) *Request {
	r.b = append(r.b, b...)
	r.pad()
	return r
}

// bytes returns the finished message with a sequence number.
func (r *Request) bytes(seq uint32) []byte {
	binary.NativeEndian.PutUint32(r.b, uint32(len(r.b)))
	binary.NativeEndian.PutUint32(r.b[8:], seq)
	return r.b
}

func (r *Request) pad() {
	for len(r.b)%unix.NLMSG_ALIGNTO != 0 {
		r.b = append(r.b, 0)
	}
}

// A Client has the kernel do what requests say, one after the other. It may be used from
// any goroutine. The socket must not be one of a watch, nor another client's.
type Client struct {
	file *os.File
	mu   sync.Mutex
	buf  []byte
}

// NewClient returns a client of an rtnetlink socket, or one of another family.
func NewClient(file *os.File) *Client { return &Client{file: file, buf: make([]byte, 32<<10)} }

// Do sends requests in one datagram and returns the error of the first that failed, a
// syscall.Errno, and the last answer that is not a mere confirmation.
func (c *Client) Do(requests ...*Request) (answer []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b []byte
	for i, r := range requests {
		b = append(b, r.bytes(uint32(i+1))...)
	}
	var failed error
	err = Control(c.file, func(fd int) error {
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		// The kernel has done it, and answered, when it returns from that.
		answered := false
		for {
			n, from, err := unix.Recvfrom(fd, c.buf, unix.MSG_DONTWAIT)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN && answered:
				return nil
			case err == unix.EAGAIN:
				return errors.New("the kernel does not answer")
			case err != nil:
				return err
			}
			if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
				continue // any process may send to the socket
			}
			answered = true
			data, err := answers(c.buf[:n])
			if data != nil {
				answer = append([]byte(nil), data...)
			}
			if failed == nil {
				failed = err
			}
		}
	})
	return answer, cmp.Or(err, failed)
}

// answers returns the data of the last answer in a datagram of the kernel, nil if there is
// none, and the first failure.
func answers(b []byte) (data []byte, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, fmt.Errorf("answer of the kernel: %w", err)
	}
	for i := range messages {
		m := &messages[i]
		switch {
		case m.Header.Type != unix.NLMSG_ERROR:
			data = m.Data
		case len(m.Data) >= 4 && err == nil:
			if e := int32(binary.NativeEndian.Uint32(m.Data)); e < 0 {
				err = syscall.Errno(-e)
			}
		}
	}
	return data, err
}

// A Count is what an interface has counted.
type Count struct{ Received, Sent uint64 } // frames

// Counts asks for what the interface of an index has counted.
func Counts(c *Client, index int32) (n Count, err error) {
	b, err := c.Do(Link(unix.RTM_GETLINK, index, 0, 0))
	if err != nil {
		return n, err
	}
	if len(b) < linkInfoLen {
		return n, errors.New("no answer about the interface")
	}
	err = errors.New("the interface counts nothing")
	attributes(b[linkInfoLen:], func(kind uint16, value []byte) {
		// struct rtnl_link_stats64 begins with the frames received and sent.
		if kind == unix.IFLA_STATS64 && len(value) >= 16 {
			n, err = Count{binary.NativeEndian.Uint64(value), binary.NativeEndian.Uint64(value[8:])}, nil
		}
	})
	return n, err
}
