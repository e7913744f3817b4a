package host_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/hv/attach"
	"hvnet/nic"
	"hvnet/vmbus"
)

// listen makes a host that takes guests on a socket.
func listen(t testing.TB, cfg attach.ListenConfig) (h *host.Host, path string) {
	h = newHost(t, host.Config{})
	return h, listenOn(t, h, cfg)
}

// listenOn has a host take guests on a socket.
func listenOn(t testing.TB, h *host.Host, cfg attach.ListenConfig) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	l, err := h.Listen(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	accepted := make(chan error, 1)
	go func() { accepted <- h.Accept(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := await(t, accepted, "the end of Accept"); err != nil {
			t.Errorf("Accept: %v", err)
		}
		l.Close()
	})
	return path
}

// dial attaches a station to the socket.
func dial(t testing.TB, path string, cfg guest.Config, n byte) *station {
	t.Helper()
	g, err := guest.Dial(soon(t), path, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stand(t, g, prefix(n))
}

// Guests that attach by the socket get what they ask for, or hear why not.
func TestListen(t *testing.T) {
	_, path := listen(t, attach.ListenConfig{})
	mac := nic.MAC{2, 0, 0, 0, 0, 7}
	a := dial(t, path, guest.Config{Name: "a", MAC: mac, VPs: 2}, 2)
	b := dial(t, path, guest.Config{VPs: 1}, 3)
	if a.NIC.MAC() != mac || b.NIC.MAC() != host.PortMAC("guest1") {
		t.Errorf("addresses %v and %v", a.NIC.MAC(), b.NIC.MAC())
	}
	a.reach(t, prefix(3))
	for _, x := range []struct {
		hello attach.Hello
		want  string
	}{
		{attach.Hello{Name: "a", VPs: 1}, "port a: the port is in use"},
		{attach.Hello{Name: "c", VPs: 1, Options: map[string]string{nic.OptionMAC: mac.String()}},
			"port c: MAC address 02:00:00:00:00:07 belongs to port a"},
		{attach.Hello{Name: "c", VPs: 1, Options: map[string]string{nic.OptionMAC: "ff:ff:ff:ff:ff:ff"}},
			`option nic.mac: MAC address "ff:ff:ff:ff:ff:ff": not the address of one station`},
	} {
		_, err := attach.Dial(soon(t), path, x.hello)
		if !errors.Is(err, attach.ErrRefused) || !strings.HasSuffix(err.Error(), x.want) {
			t.Errorf("%+v: %v, want %q", x.hello, err, x.want)
		}
	}
	a.reach(t, prefix(3))
}

// onFile attaches a guest by hand that has one virtual processor and its memory in a
// file: a signal page, a message page, an event page.
func onFile(t testing.TB, path string) (conn *net.UnixConn, memory *os.File) {
	t.Helper()
	memory, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	const gpa, size = 1 << 30, 3 * hv.PageSize
	if err := memory.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if conn, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	le := binary.LittleEndian
	b := le.AppendUint64(nil, 1) // HELLO
	b = append(b, "HVATTACH"...)
	b = le.AppendUint32(b, attach.Version)
	b = le.AppendUint32(b, 1) // virtual processor
	b = le.AppendUint64(b, gpa)
	b = le.AppendUint64(b, 1) // region, no name, no options
	for _, v := range []uint64{gpa + hv.PageSize, gpa + 2*hv.PageSize, gpa, size, 0} {
		b = le.AppendUint64(b, v)
	}
	if _, _, err := conn.WriteMsgUnix(b, unix.UnixRights(int(memory.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	reply, oob := make([]byte, 2048), make([]byte, 256)
	n, oobn, _, _, err := conn.ReadMsgUnix(reply, oob)
	if err != nil || n < 16 || le.Uint32(reply[8:]) != 0 {
		t.Fatalf("answer to the hello: %v, %q", err, reply[:n])
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		bells, _ := unix.ParseUnixRights(&m)
		for _, fd := range bells {
			t.Cleanup(func() { unix.Close(fd) })
		}
	}
	return conn, memory
}

// A guest takes its memory away: it is sent away, and nobody else notices.
func TestMemoryThatIsGone(t *testing.T) {
	h, path := listen(t, attach.ListenConfig{TrustMemory: true})
	a, b := dial(t, path, guest.Config{VPs: 1}, 2), dial(t, path, guest.Config{VPs: 1}, 3)
	conn, memory := onFile(t, path)
	if err := memory.Truncate(0); err != nil {
		t.Fatal(err)
	}
	post := binary.LittleEndian.AppendUint32(nil, 3) // POST
	for _, v := range []uint32{1, vmbus.ConnContact, hv.MessageVMBus} {
		post = binary.LittleEndian.AppendUint32(post, v)
	}
	post = vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT}.Append(post)
	if _, err := conn.Write(post); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() {
		for reply := make([]byte, 2048); ; {
			if _, err := conn.Read(reply); err != nil {
				closed <- err
				return
			}
		}
	}()
	await(t, closed, "the guest to be sent away")
	a.reach(t, prefix(3))
	b.reach(t, prefix(2))
	if ports := h.Ports(); len(ports) != 2 {
		t.Errorf("%d ports", len(ports))
	}
}

// TestMapEntries: what guests have together of the host's memory map is bounded. Who
// comes when nothing is left is told so, and those that are there go on.
func TestMapEntries(t *testing.T) {
	h := newHost(t, host.Config{MapEntries: 40})
	path := listenOn(t, h, attach.ListenConfig{})
	a := dial(t, path, guest.Config{Name: "a", VPs: 1}, 2)
	b := dial(t, path, guest.Config{Name: "b", VPs: 1}, 3)
	var list []hv.Partition
	for range 100 {
		p, err := attach.Dial(soon(t), path, attach.Hello{VPs: 1})
		if err != nil {
			if !errors.Is(err, attach.ErrRefused) || !strings.Contains(err.Error(), "have 40 entries of its memory map together") {
				t.Errorf("attach: %v", err)
			}
			break
		}
		defer p.Close()
		list = append(list, p)
	}
	if len(list) == 0 || len(list) == 100 {
		t.Errorf("%d guests more have attached", len(list))
	}
	a.reach(t, prefix(3))
	b.stop()
	for ctx := soon(t); ; { // the host takes a moment to see that it is gone
		p, err := attach.Dial(ctx, path, attach.Hello{VPs: 1})
		if err == nil {
			p.Close()
			return
		}
		if !errors.Is(err, attach.ErrRefused) {
			t.Fatal(err)
		}
	}
}
