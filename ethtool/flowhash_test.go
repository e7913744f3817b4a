package ethtool

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/nic"
)

func (f *fake) HashLevels() nic.HashLevels { return f.levels }
func (f *fake) SetHashLevel(_ context.Context, flow nic.Flow, level nic.HashKind) error {
	if f.refuse != nil {
		return f.refuse
	}
	f.levels[flow] = level
	return nil
}

// TestFlowHashTranscripts compares with what ethtool 6.1 says.
func TestFlowHashTranscripts(t *testing.T) {
	transcripts(t, "testdata/flowhash.txt", 119, func(f *fake, words []string) { f.of(t, words) })
}

// TestHashLevels is a session with a real hv_netvsc, for each kind of flow.
func TestHashLevels(t *testing.T) {
	f := newFake()
	for i, title := range []string{"TCP over IPV4", "UDP over IPV4", "TCP over IPV6", "UDP over IPV6"} {
		name := []string{"tcp4", "udp4", "tcp6", "udp6"}[i]
		head := "| " + title + " flows use these fields for computing Hash flow key:\n| IP SA\n| IP DA\n"
		l4 := head + "| L4 bytes 0 & 1 [TCP/UDP src port]\n| L4 bytes 2 & 3 [TCP/UDP dst port]\n| \n= 0\n"
		for _, step := range []struct{ args, want string }{
			{"-n eth0 rx-flow-hash " + name, l4},
			{"-N eth0 rx-flow-hash " + name + " sd", "= 0\n"},
			{"-n eth0 rx-flow-hash " + name, head + "| \n= 0\n"},
			{"-N eth0 rx-flow-hash " + name + " sdf", "! Cannot change RX network flow hashing options: Operation not supported\n= 0\n"},
			{"-n eth0 rx-flow-hash " + name, head + "| \n= 0\n"},
			{"-N eth0 rx-flow-hash " + name + " nfds", "= 0\n"},
			{"-n eth0 rx-flow-hash " + name, l4},
			{"-N eth0 rx-flow-hash " + name + " ds", "= 0\n"},
		} {
			if got := f.run(t, strings.Fields(step.args)...); got != step.want {
				t.Errorf("%s\n%s", step.args, cmp.Diff(step.want, got))
			}
		}
		for k, level := range f.levels {
			if want := nic.HashL4 - nic.HashKind(btoi(k <= i)); level != want {
				t.Errorf("after %s: level of %v is %d, want %d", name, nic.Flow(k), level, want)
			}
		}
	}
	f.refuse = nic.ErrNoDevice
	if got, want := f.run(t, "-N", "eth0", "rx-flow-hash", "tcp4", "sdfn"), "! Cannot change RX network flow hashing options: No such device\n= 0\n"; got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
