package ethtool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"hvnet/nic"
)

// watched is a device whose changes are made up.
type watched struct {
	*fake
	changes []Change
	err     error
}

func (w *watched) Watch(_ context.Context, begun func(), changed func(Change)) error {
	begun()
	for _, c := range w.changes {
		changed(c)
	}
	return w.err
}

func TestMonitor(t *testing.T) {
	const channels = "\nChannel parameters for eth0:\nPre-set maximums:\nRX:\t\t0\nTX:\t\t0\nOther:\t\t0\nCombined:\t64\n" +
		"Current hardware settings:\nRX:\t\t0\nTX:\t\t0\nOther:\t\t0\nCombined:\t1\n\n"
	const rings = "\nRing parameters for eth0:\nPre-set maximums:\nRX:\t\t18811\nRX Mini:\t0\nRX Jumbo:\t0\nTX:\t\t2560\n" +
		"Current hardware settings:\nRX:\t\t9709\nRX Mini:\t0\nRX Jumbo:\t0\nTX:\t\t170\n\n"
	const bad = "ethtool: bad command line argument(s)\nFor more information run ethtool -h\n"
	both := []Change{ChangedChannels, "something new", ChangedRings}
	for _, x := range []struct {
		args, names string
		changes     []Change
		err         error
		stdout      string
		stderr      string
		status      int
	}{
		{"", "eth0", both, nil, "listening...\n" + channels + rings, "", 0},
		{"--all", "eth0", both, nil, "listening...\n" + channels + rings, "", 0},
		{"* ", "eth0", nil, nil, "listening...\n", "", 0},
		{"-L", "eth0", both, nil, "listening...\n" + channels, "", 0},
		{"-g eth0", "eth0 eth1", both, nil, "listening...\n" + rings, "", 0},
		{"-c", "eth0", both, nil, "listening...\n", "", 0},
		{"eth0", "", []Change{ChangedChannels}, errors.New("gone"), "listening...\n" + channels, "Cannot monitor eth0: gone\n", 1},
		{"", "", nil, nil, "", "Cannot monitor: no interface here is hvnet's; ethtool --monitor tells of the kernel's\n", 1},
		{"nosuch", "eth0", nil, nil, "", "Cannot monitor nosuch: No such device\n", 1},
		{"lo", "eth0", nil, nil, "", "Cannot monitor lo: it is the kernel's, of whose interfaces ethtool --monitor tells\n", 1},
		{"-i", "eth0", nil, nil, "", bad, 1},
		{"-L eth0 x", "eth0", nil, nil, "", bad, 1},
	} {
		var stdout, stderr bytes.Buffer
		status := Monitor(t.Context(), strings.Fields(x.args), strings.Fields(x.names), func(name string) (Device, error) {
			switch name {
			case "eth0":
				return &watched{newFake(), x.changes, x.err}, nil
			case "lo":
				return newFake(), nil
			}
			return nil, fmt.Errorf("find %s: %w", name, nic.ErrNoDevice)
		}, &stdout, &stderr)
		if stdout.String() != x.stdout || stderr.String() != x.stderr || status != x.status {
			t.Errorf("--monitor %s: status %d\n%s%s", x.args, status, &stdout, &stderr)
		}
	}
}
