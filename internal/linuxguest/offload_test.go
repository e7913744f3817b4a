package linuxguest_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/host"
	"hvnet/internal/linuxguest"
	"hvnet/internal/need"
	"hvnet/link/tap"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// TestOffloads sends data by TCP between Linux on our host and the kernel of this
// machine, behind a TAP that takes what it is given: both ways the frames are of many
// segments, and the data arrives as it was.
func TestOffloads(t *testing.T) {
	linuxguest.Need(t, "6.1")
	need.Root(t)
	need.Tool(t, "ip")
	runtime.LockOSThread() // for good, as the thread is in another namespace from now on
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, linuxguest.Machine{}, host.Config{Profile: lookup(t, profile.Default)})
	if err := r.host.AddTAP(tap.Config{Name: "tap0", Offloads: tap.Offloads}); err != nil {
		t.Fatal(err)
	}
	r.up(t)
	r.ping(t)
	r.exchange(t, exchange{dev: "tap0", mtu: 1500, cuts: true, coalesces: true})
	r.content(t)
	r.Stop(t)
}

// here is the address of this machine's kernel.
const here = "198.18.0.3"

// An exchange is data by TCP between Linux and this machine's kernel.
type exchange struct {
	dev             string // the interface here
	mtu             int
	cuts, coalesces bool // the host cuts frames of Linux, and gives it joined ones
}

// exchange sends data by TCP between Linux and this machine's kernel, which gets an
// address: both ways it arrives as it was, most frames are of many segments if the host
// has it so, and Linux finds no checksum wrong.
func (r *rig) exchange(t *testing.T, x exchange) {
	t.Helper()
	for _, args := range []string{"addr replace " + here + "/24 dev " + x.dev, "link set " + x.dev + " up"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	l, err := net.Listen("tcp", here+":5000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accept := func(f func(c net.Conn) error) chan error {
		done := make(chan error, 1)
		go func() {
			l.(*net.TCPListener).SetDeadline(time.Now().Add(linuxguest.Patience))
			c, err := l.Accept()
			if err == nil {
				c.SetDeadline(time.Now().Add(linuxguest.Patience))
				err = errors.Join(f(c), longest(c, x.mtu), c.Close())
			}
			done <- err
		}()
		return done
	}
	var text strings.Builder
	for i := 1; i <= 600000; i++ {
		fmt.Fprintln(&text, i)
	}
	want := fmt.Sprintf("%x", sha256.Sum256([]byte(text.String())))

	var got string
	done := accept(func(c net.Conn) error {
		h := sha256.New()
		_, err := io.Copy(h, c)
		got = fmt.Sprintf("%x", h.Sum(nil))
		return err
	})
	before := r.port(t).Guest.Stats
	r.Run(t, "seq 1 600000 >/tmp/numbers; nc "+here+" 5000 </tmp/numbers")
	if err := <-done; err != nil || got != want {
		t.Errorf("from Linux: %v, sum %s, want %s", err, got, want)
	}
	after := r.port(t).Guest.Stats
	many := uint64(x.mtu + nic.HeaderLen + nic.TagLen) // more on average is not by frames of the MTU
	if frames, bytes := after.TxFrames-before.TxFrames, after.TxBytes-before.TxBytes; x.cuts && bytes < many*frames {
		t.Errorf("Linux sent %d bytes in %d frames", bytes, frames)
	}

	done = accept(func(c net.Conn) error {
		_, err := io.WriteString(c, text.String())
		return err
	})
	before = after
	sum := r.Run(t, "nc "+here+" 5000 </dev/null | sha256sum")
	if err := <-done; err != nil || !strings.HasPrefix(sum, want) {
		t.Errorf("to Linux: %v, sum %s, want %s", err, sum, want)
	}
	after = r.port(t).Guest.Stats
	if frames, bytes := after.RxFrames-before.RxFrames, after.RxBytes-before.RxBytes; x.coalesces && bytes < many*frames {
		t.Errorf("Linux got %d bytes in %d frames", bytes, frames)
	}
	noChecksumWrong(t, "Linux", r.Run(t, "cat /proc/net/snmp"), "Tcp:")
}

// noChecksumWrong looks for wrong checksums in /proc/net/snmp of some kernel.
func noChecksumWrong(t *testing.T, whose, text, proto string) {
	t.Helper()
	if n := inCsumErrors(text, proto); n != "0" {
		t.Errorf("%s counts %s wrong checksums, %s", whose, n, proto)
	}
}

// longest checks that the segments of a connection are as long as the MTU allows, with
// the time in each.
func longest(c net.Conn, mtu int) error {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var mss int
	var got error
	err = raw.Control(func(fd uintptr) { mss, got = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	if want := mtu - 52; mss < want {
		got = errors.Join(got, fmt.Errorf("segments of %d bytes, want %d", mss, want))
	}
	return errors.Join(err, got)
}

// inCsumErrors finds the count in /proc/net/snmp, which has a line of names and then
// one of values for each protocol.
func inCsumErrors(text, proto string) string {
	var names []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != proto {
			continue
		}
		if names == nil {
			names = words
			continue
		}
		for i, name := range names {
			if name == "InCsumErrors" && i < len(words) {
				return words[i]
			}
		}
	}
	return "no count of"
}
