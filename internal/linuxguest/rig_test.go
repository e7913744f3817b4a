package linuxguest_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hvnet/host"
	"hvnet/hv/ivshmem"
	"hvnet/internal/linuxguest"
	"hvnet/link/netstack"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// gateway is the host's address on the switch, address the guest's.
const (
	gateway = "198.18.0.1"
	address = "198.18.0.9"
)

// A rig is a machine on a host in this process.
type rig struct {
	*linuxguest.Guest
	host *host.Host
}

// heard is what a host says, whoever of it, and be it after the test.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// newRig boots a machine on a host.
func newRig(t *testing.T, m linuxguest.Machine, cfg host.Config) *rig {
	t.Helper()
	kernel := m.Kernel
	if kernel == "" {
		kernel = "6.1"
	}
	linuxguest.Need(t, kernel)
	dir, err := os.MkdirTemp("/dev/shm", "hv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	said := new(heard)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	h := host.New(cfg)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the host says:\n%s", said)
		}
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := h.AddGateway(netstack.GatewayConfig{
		MAC: nic.MAC{0x00, 0x15, 0x5d, 0, 0, 1}, IPv4: netip.MustParsePrefix(gateway + "/24"),
	}); err != nil {
		t.Fatal(err)
	}
	socket, ram := filepath.Join(dir, "s"), filepath.Join(dir, "ram")
	l, err := ivshmem.Listen(socket, ivshmem.Config{RAM: ram, VPs: m.VPs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go h.AcceptVM(context.Background(), l, host.PortConfig{Name: "linux"})
	return &rig{linuxguest.Boot(t, m, socket, ram), h}
}

// up gives eth0 its address.
func (r *rig) up(t *testing.T) {
	t.Helper()
	r.Run(t, "ip link set eth0 up && ip addr replace "+address+"/24 dev eth0")
}

// ping checks that the gateway answers.
func (r *rig) ping(t *testing.T) {
	t.Helper()
	defer func() {
		if t.Failed() {
			for _, p := range r.host.Ports() {
				t.Logf("port %s: guest %+v, dropped %v", p.Switch.Name, p.Guest, p.Drops())
			}
		}
	}()
	r.Run(t, "ping -q -c 3 -i 0.2 -w 20 "+gateway)
}

// port returns what the host knows of the guest's port.
func (r *rig) port(t *testing.T) host.PortInfo {
	t.Helper()
	for _, p := range r.host.Ports() {
		if p.Switch.Name == "linux" && p.Guest != nil {
			return p
		}
	}
	t.Fatal("the host has no port of the guest")
	return host.PortInfo{}
}

// content checks that neither the guest's kernel nor our host has found a fault in
// the other.
func (r *rig) content(t *testing.T) {
	t.Helper()
	bad, status := r.Try(t, "dmesg -r | grep -E '^<[0-4]>.*(hv_|vmbus|lgv|WARNING|BUG|Oops|hung|blocked)' | grep -vE 'out-of-tree|zswap|ret -19'")
	if status == 0 {
		t.Errorf("the guest's kernel says:\n%s", bad)
	}
	if n := r.port(t).Guest.Faults; n != 0 {
		t.Errorf("the host counts %d faults of the guest", n)
	}
}

func lookup(t *testing.T, name string) profile.Profile {
	t.Helper()
	p, err := profile.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Every host release, with the numbers of CPUs and both ways of signalling spread
// over them.
func TestProfiles(t *testing.T) {
	for i, name := range profile.Names() {
		m := linuxguest.Machine{CPUs: []int{2, 1, 4}[i%3]}
		monitor := i%2 == 1
		t.Run(fmt.Sprintf("%s, %d CPUs, monitor %v", name, m.CPUs, monitor), func(t *testing.T) {
			p := lookup(t, name)
			r := newRig(t, m, host.Config{Profile: p, Monitor: monitor})
			r.up(t)
			r.ping(t)
			info := r.port(t).Guest
			if info.NVSP != p.NVSP[0] {
				t.Errorf("NVSP %v, want %v", info.NVSP, p.NVSP[0])
			}
			want := m.CPUs
			if p.MaxChannels == 1 {
				want = 1
			}
			if info.Channels != want {
				t.Errorf("%d channels, want %d", info.Channels, want)
			}
			r.content(t)
			r.Stop(t)
		})
	}
}

// Every version of the bus in one boot: hv_vmbus is loaded again for each.
func TestVersions(t *testing.T) {
	r := newRig(t, linuxguest.Machine{Load: "shim"}, host.Config{Profile: lookup(t, "azure")})
	for _, v := range []string{"2.4", "3.0", "4.0", "4.1", "5.0", "5.1", "5.2", "5.3"} {
		t.Run(v, func(t *testing.T) {
			major, minor, _ := strings.Cut(v, ".")
			r.Run(t, fmt.Sprintf("insmod /modules/hv_vmbus.ko max_version=0x000%s000%s && lgv_netvsc", major, minor))
			r.up(t)
			r.ping(t)
			if got := r.port(t).Guest.VMBus.String(); got != v {
				t.Errorf("VMBus %s", got)
			}
			r.content(t)
			r.Run(t, "lgv_unload hv_netvsc hv_vmbus")
		})
	}
	r.Stop(t)
}
