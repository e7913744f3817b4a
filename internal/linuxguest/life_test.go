package linuxguest_test

import (
	"fmt"
	"strings"
	"testing"

	"hvnet/host"
	"hvnet/internal/linuxguest"
)

// What happens to a NIC in its life, with each kernel: one boot, and after each step
// traffic flows and nobody complains.
func TestLife(t *testing.T) {
	for i, kernel := range linuxguest.Kernels {
		monitor := i == 1
		t.Run(kernel, func(t *testing.T) {
			r := newRig(t, linuxguest.Machine{Kernel: kernel, CPUs: 4}, host.Config{Profile: lookup(t, "azure"), Monitor: monitor})
			r.up(t)
			r.ping(t)
			for _, step := range life {
				ok := t.Run(step.name, func(t *testing.T) {
					step.do(t, r)
					r.up(t)
					r.ping(t)
					r.content(t)
				})
				if !ok {
					t.Fatal("the rest is left out")
				}
			}
			r.Stop(t)
		})
	}
}

// flood has the guest send and get as many frames as it can until the function that is
// returned is called.
func (r *rig) flood(t *testing.T) (stop func()) {
	t.Helper()
	r.Run(t, "touch /tmp/flood; (while [ -e /tmp/flood ]; do ping -q -f -s 1000 -w 1 "+gateway+"; done >/dev/null 2>&1) & sleep 0.3")
	return func() {
		t.Helper()
		r.Run(t, "rm -f /tmp/flood; killall ping; true")
	}
}

const netvscDriver = "/sys/bus/vmbus/drivers/hv_netvsc"

var life = []struct {
	name string
	do   func(*testing.T, *rig)
}{
	{"channels", func(t *testing.T, r *rig) {
		for _, n := range []int{1, 3, 4} {
			r.Run(t, fmt.Sprint("ethtool -L eth0 combined ", n))
			r.ping(t)
			if got := r.port(t).Guest.Channels; got != n {
				t.Errorf("%d channels, want %d", got, n)
			}
		}
	}},
	{"MTU", func(t *testing.T, r *rig) {
		for _, mtu := range []int{9000, 1280, 1500} {
			r.Run(t, fmt.Sprint("ip link set eth0 mtu ", mtu))
			r.Run(t, fmt.Sprintf("ping -q -c 2 -i 0.2 -w 20 -M do -s %d %s", min(mtu, 1500)-28, gateway))
			if got := r.port(t).Guest.MTU; got != max(mtu, 1500) { // no host makes its buffers for less
				t.Errorf("MTU %d, want %d", got, mtu)
			}
		}
	}},
	{"rings", func(t *testing.T, r *rig) {
		r.Run(t, "ethtool -G eth0 rx 500 tx 100")
		r.ping(t)
		r.Run(t, "ethtool -g eth0 | grep -q TX:.*100")
	}},
	{"moving a channel to another CPU", func(t *testing.T, r *rig) {
		r.Run(t, "for c in /sys/bus/vmbus/devices/$(lgv_dev)/channels/*; do echo 3 >$c/cpu; done")
	}},
	{"interface down and up under load", func(t *testing.T, r *rig) {
		stop := r.flood(t)
		defer stop()
		for range 4 {
			r.Run(t, "ip link set eth0 down; ip link set eth0 up")
		}
	}},
	{"channels and MTU under load", func(t *testing.T, r *rig) {
		stop := r.flood(t)
		defer stop()
		r.Run(t, "ethtool -L eth0 combined 2; ip link set eth0 mtu 4000; ethtool -L eth0 combined 4; ip link set eth0 mtu 1500")
	}},
	{"carrier", func(t *testing.T, r *rig) {
		if err := r.host.SetLink("linux", false); err != nil {
			t.Fatal(err)
		}
		r.Poll(t, `[ "$(cat /sys/class/net/eth0/carrier)" = 0 ]`)
		if err := r.host.SetLink("linux", true); err != nil {
			t.Fatal(err)
		}
		r.Poll(t, `[ "$(cat /sys/class/net/eth0/carrier)" = 1 ]`)
	}},
	{"unbind and bind", func(t *testing.T, r *rig) {
		r.Run(t, "d=$(lgv_dev); cd "+netvscDriver+" && echo $d >unbind && [ ! -e /sys/class/net/eth0 ] && echo $d >bind && lgv_wait 20 '[ -e /sys/class/net/eth0 ]'")
	}},
	{"reload of hv_netvsc under load", func(t *testing.T, r *rig) {
		stop := r.flood(t)
		defer stop()
		for range 2 {
			r.Run(t, "lgv_unload hv_netvsc && lgv_netvsc")
			r.up(t)
		}
	}},
	{"rescind and offer", func(t *testing.T, r *rig) { r.rescind(t) }},
	{"rescind and offer under load", func(t *testing.T, r *rig) {
		stop := r.flood(t)
		defer stop()
		r.rescind(t)
	}},
	{"rescind without a driver", func(t *testing.T, r *rig) {
		r.Run(t, "lgv_unload hv_netvsc")
		if err := r.host.Rescind("linux"); err != nil {
			t.Fatal(err)
		}
		r.Poll(t, "! lgv_dev")
		if err := r.host.Offer("linux"); err != nil {
			t.Fatal(err)
		}
		r.Poll(t, "lgv_dev")
		r.Run(t, "lgv_netvsc")
	}},
	{"reload of the bus", func(t *testing.T, r *rig) {
		if _, status := r.Try(t, "[ -e /modules/hv_vmbus.ko ]"); status != 0 {
			return // it is built in
		}
		r.Run(t, "lgv_unload hv_netvsc hv_vmbus && lgv_netvsc")
	}},
}

// rescind takes the NIC away and gives it back.
func (r *rig) rescind(t *testing.T) {
	t.Helper()
	if err := r.host.Rescind("linux"); err != nil {
		t.Fatal(err)
	}
	r.Poll(t, "[ ! -e /sys/class/net/eth0 ]")
	if out := r.Run(t, "ls /sys/bus/vmbus/devices"); strings.TrimSpace(out) != "" {
		t.Errorf("devices after a rescind: %s", out)
	}
	if err := r.host.Offer("linux"); err != nil {
		t.Fatal(err)
	}
	r.Poll(t, "[ -e /sys/class/net/eth0 ]")
}
