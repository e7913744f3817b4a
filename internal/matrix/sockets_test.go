package matrix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/internal/lab"
	"hvnet/internal/packets"
)

// What a flow carries, in bytes.
const (
	streamBytes   = 2 << 20
	echoBytes     = 300 << 10
	datagramBytes = 600 << 10
)

var errPayload = errors.New("the payload is not what was sent")

// stream sends a TCP stream to the far end.
func (s *stage) stream(ctx context.Context, to string) error {
	var l net.Listener
	if err := within(s.far, func() (err error) { l, err = net.Listen("tcp", to); return err }); err != nil {
		return err
	}
	defer l.Close()
	payload := packets.Random(streamBytes)
	result := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			result <- err
			return
		}
		defer c.Close()
		got := sha256.New()
		c.SetDeadline(time.Now().Add(patience))
		n, err := io.Copy(got, c)
		if sum := sha256.Sum256(payload); err == nil && !bytes.Equal(got.Sum(nil), sum[:]) {
			err = fmt.Errorf("stream of %d bytes: %w", n, errPayload)
		}
		result <- err
	}()
	c, err := s.dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	_, err = c.Write(payload)
	return errors.Join(err, c.Close(), <-result)
}

// echoed sends a flow to the gateway's echo service, and compares what comes back.
func (s *stage) echoed(ctx context.Context, c Case) error {
	network := strings.ToLower(c.Of("protocol"))
	conn, err := s.dial(ctx, network, net.JoinHostPort(addresses[c.Of("ip")][1], "7"))
	if err != nil {
		return err
	}
	defer conn.Close()
	payload := packets.Random(echoBytes)
	if network == "udp" {
		return s.echoedDatagrams(c, conn.(*net.UDPConn), payload)
	}
	go conn.Write(payload) // an error is missed by the reader
	back := make([]byte, len(payload))
	if _, err := io.ReadFull(conn, back); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	if sha256.Sum256(back) != sha256.Sum256(payload) {
		return errPayload
	}
	return nil
}

// echoedDatagrams is echoed by UDP, two datagrams at a time: the gateway's socket is small.
func (s *stage) echoedDatagrams(c Case, conn *net.UDPConn, payload []byte) error {
	size := c.datagram()
	send, err := segments(conn, size, c.On("uso"))
	if err != nil {
		return err
	}
	sent, got := sha256.New(), sha256.New()
	buf := make([]byte, size+1)
	for len(payload) > 0 {
		part := payload[:min(2*size, len(payload))]
		payload = payload[len(part):]
		sent.Write(part)
		if err := send(part); err != nil {
			return err
		}
		for left := len(part); left > 0; {
			n, err := conn.Read(buf)
			if err != nil {
				return fmt.Errorf("echo: %w", err)
			}
			got.Write(buf[:n])
			left -= n
		}
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return errPayload
	}
	return nil
}

// datagrams sends UDP to the far end, some at a time: each burst waits until the one
// before is there.
func (s *stage) datagrams(ctx context.Context, c Case, to string) error {
	var l net.PacketConn
	if err := within(s.far, func() (err error) { l, err = net.ListenPacket("udp", to); return err }); err != nil {
		return err
	}
	defer l.Close()
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	conn, err := s.dial(ctx, "udp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	size := c.datagram()
	send, err := segments(conn.(*net.UDPConn), size, c.On("uso"))
	if err != nil {
		return err
	}
	payload := packets.Random(datagramBytes)
	burst := min(20, 60000/size) * size
	sent, got := sha256.New(), sha256.New()
	buf := make([]byte, size+1)
	for len(payload) > 0 {
		part := payload[:min(burst, len(payload))]
		payload = payload[len(part):]
		sent.Write(part)
		if err := send(part); err != nil {
			return err
		}
		for left := len(part); left > 0; {
			n, _, err := l.ReadFrom(buf)
			if err != nil {
				return fmt.Errorf("%d bytes of %d are missing: %w", left, len(part), err)
			}
			got.Write(buf[:n])
			left -= n
		}
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return errPayload
	}
	return nil
}

// segments returns what sends bytes as datagrams of a size: in one call, cut by the
// kernel, or in one call each.
func segments(conn *net.UDPConn, size int, uso bool) (send func([]byte) error, err error) {
	if !uso {
		return func(b []byte) error {
			for len(b) > 0 {
				n := min(size, len(b))
				if _, err := conn.Write(b[:n]); err != nil {
					return err
				}
				b = b[n:]
			}
			return nil
		}, nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	return func(b []byte) error { _, err := conn.Write(b); return err }, errors.Join(err, set)
}

// faults returns what the kernel of a namespace counts of packets that were damaged
// or that it had no room for.
func faults(t testing.TB, ns *lab.Netns) map[string]uint64 {
	t.Helper()
	found := map[string]uint64{}
	err := within(ns, func() error {
		for _, name := range []string{"snmp", "netstat", "snmp6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			for counter, n := range parseCounters(string(text)) {
				for _, fault := range []string{"CsumErrors", "InErrors", "InErrs", "HdrErrors", "RcvbufErrors", "TruncatedPkts"} {
					if strings.HasSuffix(counter, fault) {
						found[counter] = n
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// parseCounters reads both forms of the kernel's counters: a line of names and one of
// values for each protocol, or a name and a value in each line.
func parseCounters(text string) map[string]uint64 {
	found := map[string]uint64{}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := 0; i < len(lines); i++ {
		names := strings.Fields(lines[i])
		if len(names) == 2 && !strings.HasSuffix(names[0], ":") {
			found[names[0]], _ = strconv.ParseUint(names[1], 10, 64)
			continue
		}
		if i++; i == len(lines) {
			break
		}
		for k, v := range strings.Fields(lines[i]) {
			if k > 0 && k < len(names) {
				found[strings.TrimSuffix(names[0], ":")+names[k]], _ = strconv.ParseUint(v, 10, 64)
			}
		}
	}
	return found
}

func TestParseCounters(t *testing.T) {
	got := parseCounters("Tcp: RtoMin InErrs InCsumErrors\nTcp: -1 2 3\nUdp: InErrors\nUdp: 4\n")
	if got["TcpInErrs"] != 2 || got["TcpInCsumErrors"] != 3 || got["UdpInErrors"] != 4 {
		t.Errorf("snmp: %v", got)
	}
	if got := parseCounters("Ip6InReceives   7\nUdp6InCsumErrors 8\n"); got["Udp6InCsumErrors"] != 8 || len(got) != 2 {
		t.Errorf("snmp6: %v", got)
	}
}
