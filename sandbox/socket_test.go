package sandbox

import (
	"bytes"
	"io"
	"net/netip"
	"testing"
)

// TestSockets: sockets of a sandbox carry what is sent, there and not here, and an address
// that the sandbox has not is refused.
func TestSockets(t *testing.T) {
	s := newSandbox(t)
	ctx := t.Context()
	any := netip.MustParseAddrPort("127.0.0.1:0")
	u, err := s.ListenUDP(ctx, any)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	here := u.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()
	if _, err := u.WriteToUDPAddrPort([]byte("datagram"), here); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	if n, from, err := u.ReadFromUDPAddrPort(b); err != nil || string(b[:n]) != "datagram" || from != here {
		t.Errorf("%q from %v, %v", b[:n], from, err)
	}
	l, err := s.ListenTCP(ctx, any)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort()
	c, err := s.DialTCP(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		peer.Write([]byte("stream"))
		peer.Close()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, []byte("stream")) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := s.ListenUDP(ctx, netip.MustParseAddrPort("192.0.2.1:0")); err == nil {
		t.Error("a socket has an address that the sandbox has not")
	}
	if _, err := s.socket(ctx, "raw", any); err == nil {
		t.Error("a socket of no kind")
	}
}

// TestGone: an interface is removed.
func TestGone(t *testing.T) {
	s := newSandbox(t)
	if err := s.Configure(t.Context(), Interface{Name: "nosuch", Gone: true}); err == nil {
		t.Error("an interface that is not there was removed")
	}
}
