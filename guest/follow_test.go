package guest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hvnet/link/tap"
	"hvnet/nic"
)

var errNo = errors.New("no")

// A fakeNIC notes what it is told, and refuses what a test says.
type fakeNIC struct {
	mac    nic.MAC
	mtu    int
	most   int
	calls  []string
	refuse bool
}

func (n *fakeNIC) do(call string, change func()) error {
	n.calls = append(n.calls, call)
	if n.refuse {
		return errNo
	}
	change()
	return nil
}
func (n *fakeNIC) MAC() nic.MAC { return n.mac }
func (n *fakeNIC) MTU() int     { return n.mtu }
func (n *fakeNIC) SetMAC(_ context.Context, mac nic.MAC) error {
	return n.do("mac "+mac.String(), func() { n.mac = mac })
}
func (n *fakeNIC) SetMTU(_ context.Context, mtu int) error {
	return n.do(fmt.Sprint("mtu ", mtu), func() { n.mtu = min(mtu, n.most) })
}
func (n *fakeNIC) SetPromiscuous(_ context.Context, on bool) error {
	return n.do(fmt.Sprint("promiscuous ", on), func() {})
}
func (n *fakeNIC) Up(context.Context, nic.Sink) error { return n.do("up", func() {}) }
func (n *fakeNIC) Down(context.Context) error         { return n.do("down", func() {}) }

// A fakeIface notes what is taken back.
type fakeIface struct{ back []string }

func (i *fakeIface) do(what string) error { i.back = append(i.back, what); return nil }

func (i *fakeIface) SetMAC(mac nic.MAC) error { return i.do("mac " + mac.String()) }
func (i *fakeIface) SetMTU(mtu int) error     { return i.do(fmt.Sprint("mtu ", mtu)) }
func (i *fakeIface) SetNormal() error         { return i.do("not promiscuous") }
func (i *fakeIface) SetDown() error           { return i.do("down") }

// TestFollowReturned: an interface follows a NIC that comes back otherwise.
func TestFollowReturned(t *testing.T) {
	own, other := nic.MAC{0, 0x15, 0x5d, 0, 0, 1}, nic.MAC{2, 0, 0, 0, 0, 2}
	n, i := &fakeNIC{mac: own, mtu: 9000, most: 9000}, &fakeIface{}
	f := &follower{nic: n, iface: i}
	if says := f.returned(); len(says) != 0 {
		t.Errorf("before anything is known: %v", says)
	}
	f.apply(t.Context(), tap.State{Up: true, MTU: 9000, MAC: own})
	for _, step := range []struct {
		mac  nic.MAC
		mtu  int
		back []string
		says []string
	}{
		{own, 9000, nil, nil},
		{own, 1500, []string{"mtu 1500"}, []string{"MTU 1500, it was 9000: the host has it so now"}},
		{other, 1500, []string{"mac 02:00:00:00:00:02"}, []string{"address 02:00:00:00:00:02, it was 00:15:5d:00:00:01: the host has it so now"}},
		{other, 1500, nil, nil},
	} {
		i.back, n.calls, n.mac, n.mtu = nil, nil, step.mac, step.mtu
		var says []string
		f.apply(t.Context(), f.state) // such as that it has a carrier again
		for _, err := range f.returned() {
			says = append(says, err.Error())
		}
		// The kernel tells of what has changed, which is nothing new.
		f.apply(t.Context(), tap.State{Up: true, MTU: step.mtu, MAC: step.mac})
		if !slices.Equal(i.back, step.back) || !slices.Equal(says, step.says) || len(n.calls) != 0 {
			t.Errorf("got %q, %q, %q, want %q, %q", i.back, says, n.calls, step.back, step.says)
		}
	}
}

// TestFollow is a table of what users do one after the other, what the NIC is told,
// and what is taken back.
func TestFollow(t *testing.T) {
	own, other := nic.MAC{0, 0x15, 0x5d, 0, 0, 1}, nic.MAC{2, 0, 0, 0, 0, 2}
	n, i := &fakeNIC{mac: own, mtu: 1500, most: 9000}, &fakeIface{}
	f := &follower{nic: n, iface: i}
	for _, step := range []struct {
		what   string
		state  tap.State
		refuse bool
		calls  []string
		back   []string
		says   []string
	}{
		{"at first", tap.State{MTU: 1500, MAC: own}, false, nil, nil, nil},
		{"still down", tap.State{MTU: 1500, MAC: own}, false, nil, nil, nil},
		{"up", tap.State{Up: true, MTU: 1500, MAC: own}, false, []string{"up"}, nil, nil},
		{"all at once", tap.State{Up: true, MTU: 9000, MAC: other, Promiscuous: true}, false,
			[]string{"mtu 9000", "mac 02:00:00:00:00:02", "promiscuous true"}, nil, nil},
		{"nothing new", tap.State{Up: true, MTU: 9000, MAC: other, Promiscuous: true}, false, nil, nil, nil},
		{"lowered", tap.State{Up: true, MTU: 9001, MAC: other, Promiscuous: true}, false,
			[]string{"mtu 9001"}, []string{"mtu 9000"}, []string{"MTU 9001 refused, it is 9000: the host allows no more"}},
		{"down first", tap.State{MTU: 1400, MAC: own}, false,
			[]string{"down", "mtu 1400", "mac 00:15:5d:00:00:01", "promiscuous false"}, nil, nil},
		{"up last", tap.State{Up: true, MTU: 1500, MAC: own}, false, []string{"mtu 1500", "up"}, nil, nil},
		{"refused", tap.State{Up: true, MTU: 68, MAC: other, Promiscuous: true}, true,
			[]string{"mtu 68", "mac 02:00:00:00:00:02", "promiscuous true"},
			[]string{"mtu 1500", "mac 00:15:5d:00:00:01", "not promiscuous"},
			[]string{"MTU 68 refused, it is 1500: no", "address 02:00:00:00:00:02 refused, it is 00:15:5d:00:00:01: no", "promiscuous refused, it is not: no"}},
		{"a packet socket stays promiscuous", tap.State{Up: true, MTU: 1500, MAC: own, Promiscuous: true}, true, nil, nil, nil},
		{"no answer", tap.State{MTU: 1500, MAC: own, Promiscuous: true}, true, []string{"down"}, nil, []string{"stays up at the host: no"}},
		{"up refused", tap.State{Up: true, MTU: 1500, MAC: own, Promiscuous: true}, true,
			[]string{"up"}, []string{"down"}, []string{"up refused, it is down: no"}},
		{"taken back", tap.State{MTU: 1500, MAC: own, Promiscuous: true}, false, nil, nil, nil},
		{"again", tap.State{Up: true, MTU: 1500, MAC: own}, false, []string{"promiscuous false", "up"}, nil, nil},
	} {
		n.calls, i.back, n.refuse = nil, nil, step.refuse
		var says []string
		for _, err := range f.apply(t.Context(), step.state) {
			says = append(says, err.Error())
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %q is more than one line", step.what, err)
			}
		}
		if !slices.Equal(n.calls, step.calls) || !slices.Equal(i.back, step.back) || !slices.Equal(says, step.says) {
			t.Errorf("%s:\n got %q, %q, %q\nwant %q, %q, %q", step.what, n.calls, i.back, says, step.calls, step.back, step.says)
		}
	}
}
