package linuxguest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"hvnet/internal/lab"
	"hvnet/internal/linuxguest"
)

// A lifeboat is a guest whose host is another process, which may die.
type lifeboat struct {
	*linuxguest.Guest
	dir, hvnet string
	flags      []string // of the host
	host       *lab.Process
}

// newLifeboat boots a machine on a host process, with more flags for that.
func newLifeboat(t *testing.T, m linuxguest.Machine, flags ...string) *lifeboat {
	t.Helper()
	linuxguest.Need(t, m.Kernel)
	dir, err := os.MkdirTemp("/dev/shm", "hv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &lifeboat{dir: dir, hvnet: filepath.Join(dir, "hvnet"), flags: flags}
	if out, err := exec.Command("go", "build", "-o", b.hvnet, "hvnet/cmd/hvnet").CombinedOutput(); err != nil {
		t.Fatalf("build hvnet: %v\n%s", err, out)
	}
	b.start(t)
	b.Guest = linuxguest.Boot(t, m, b.socket(), b.ram())
	return b
}

func (b *lifeboat) socket() string { return filepath.Join(b.dir, "qemu") }
func (b *lifeboat) ram() string    { return filepath.Join(b.dir, "ram") }

// start starts a host.
func (b *lifeboat) start(t *testing.T) {
	t.Helper()
	p, err := lab.Spawn("host", b.dir, nil, append([]string{
		b.hvnet, "host", "-v", "--listen", filepath.Join(b.dir, "s"), "--ivshmem", b.socket() + ",ram=" + b.ram() + ",vps=2,name=linux",
	}, b.flags...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if _, said := p.Output(); t.Failed() {
			t.Logf("a host said at last:\n%s", said[max(0, len(said)-8000):])
		}
	})
	lab.Await(t, p, "^listening")
	b.host = p
}

// flood has the guest send all the time, whatever becomes of its interface.
const flood = "touch /tmp/flood; (while [ -e /tmp/flood ]; do ping -q -f -s 1000 -w 1 198.18.0.1; sleep 0.1; done >/dev/null 2>&1) & sleep 0.3"

// The host ends in the middle of traffic, or is killed, and another one takes its
// place: the guest sees a device go and another one come, and nothing hangs.
func TestHostRestart(t *testing.T) {
	for _, kernel := range linuxguest.Kernels {
		t.Run(kernel, func(t *testing.T) {
			b := newLifeboat(t, linuxguest.Machine{Kernel: kernel})
			up := "ip link set eth0 up && ip addr replace 198.18.0.9/24 dev eth0 && ping -q -c 3 -i 0.2 -w 20 198.18.0.1"
			b.Run(t, up)
			for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGKILL} {
				if signal == syscall.SIGTERM {
					b.Run(t, flood)
				} else {
					// What is sent to a host that is no more hv_netvsc awaits for ever,
					// so nothing may be, not even by IPv6 for itself.
					b.Run(t, "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done")
				}
				before := b.Run(t, "cat /sys/class/net/eth0/ifindex")
				b.host.Signal(signal)
				if _, err := b.host.End(t.Context()); err != nil {
					t.Fatal(err)
				}
				b.start(t)
				b.Poll(t, "[ -e /sys/class/net/eth0 ] && [ $(cat /sys/class/net/eth0/ifindex) != "+before+" ]")
				b.Run(t, "rm -f /tmp/flood; killall ping; true")
				b.Run(t, up)
			}
			bad, status := b.Try(t, "dmesg -r | grep -E '^<[0-3]>.*(hv_|vmbus|lgv|BUG|Oops|hung|blocked)' | grep -vE 'zswap|ret -19|ret -22'")
			if status == 0 {
				t.Errorf("the guest's kernel says:\n%s", bad)
			}
			b.Stop(t)
		})
	}
}
