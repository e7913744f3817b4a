package sandbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A socketRequest asks for a socket of the sandbox.
type socketRequest struct {
	Kind string // of the constants below
	Addr netip.AddrPort
}

const (
	socketUDP    = "udp"
	socketListen = "listen"
	socketDial   = "dial"
)

// dialTimeout bounds how long a connection may take to come about.
const dialTimeout = 10 * time.Second

// udpBuffer is how much a UDP socket may hold that nobody has read, in bytes as the kernel
// counts them. Who has no right to that much gets as much as the machine's rmem_max allows.
const udpBuffer = 16 << 20

// ListenUDP returns a UDP socket of the sandbox with an address. It holds much, and says
// of each datagram how many it has dropped before (SO_RXQ_OVFL).
func (s *Sandbox) ListenUDP(ctx context.Context, addr netip.AddrPort) (*net.UDPConn, error) {
	f, err := s.socket(ctx, socketUDP, addr)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	return as[*net.UDPConn](c, err)
}

// ListenTCP returns a socket of the sandbox that takes connections to an address.
func (s *Sandbox) ListenTCP(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	f, err := s.socket(ctx, socketListen, addr)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := net.FileListener(f)
	return as[*net.TCPListener](l, err)
}

// DialTCP returns a connection from the sandbox to an address. The sandbox does nothing else
// meanwhile.
func (s *Sandbox) DialTCP(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	f, err := s.socket(ctx, socketDial, addr)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FileConn(f)
	return as[*net.TCPConn](c, err)
}

// as returns a socket of the kind that the helper was asked for.
func as[T any](v any, err error) (t T, _ error) {
	if err != nil {
		return t, err
	}
	t, ok := v.(T)
	if !ok {
		return t, fmt.Errorf("the helper sent a %T, want a %T", v, t)
	}
	return t, nil
}

// socket has the helper open a socket.
func (s *Sandbox) socket(ctx context.Context, kind string, addr netip.AddrPort) (*os.File, error) {
	r, err := s.call(ctx, message{Socket: &socketRequest{kind, addr}})
	if err == nil && len(r.files) != 1 {
		err = fmt.Errorf("open a socket: the helper sent %d descriptors, want 1", len(r.files))
	}
	if err != nil {
		closeFiles(r.files)
		return nil, err
	}
	return r.files[0], nil
}

// socket opens a socket here.
func (h *helper) socket(answer message, req socketRequest) error {
	f, err := openSocket(req)
	if answer.Error = toWire(err); err != nil {
		return h.conn.send(answer)
	}
	defer f.Close()
	return h.conn.send(answer, f)
}

func openSocket(req socketRequest) (*os.File, error) {
	var c any
	var err error
	switch req.Kind {
	case socketUDP:
		c, err = (&net.ListenConfig{Control: roomy}).ListenPacket(context.Background(), "udp", req.Addr.String())
	case socketListen:
		c, err = net.Listen("tcp", req.Addr.String())
	case socketDial:
		c, err = net.DialTimeout("tcp", req.Addr.String(), dialTimeout)
	default:
		err = fmt.Errorf("open a socket: %q is no kind of socket", req.Kind)
	}
	if err != nil {
		return nil, err
	}
	s := c.(interface {
		File() (*os.File, error)
		Close() error
	})
	defer s.Close()
	return s.File()
}

// roomy has a UDP socket hold much and say what it drops.
func roomy(_, _ string, c syscall.RawConn) (err error) {
	e := c.Control(func(s uintptr) {
		fd := int(s)
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer) != nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, udpBuffer)
		}
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
		}
	})
	if e != nil {
		return e
	}
	return err
}
