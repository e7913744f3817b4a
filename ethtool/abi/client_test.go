package abi

import (
	"bytes"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/ethtool"
	"hvnet/nic"
)

// shortBus is a device whose bus has a name that fits.
type shortBus struct{ *fake }

func (d shortBus) DriverInfo() nic.DriverInfo {
	i := d.fake.DriverInfo()
	i.Bus = "b"
	return i
}

// client returns what asks a device by the structures.
func client(t *testing.T, d ethtool.Device) *Client {
	return &Client{Request: func(b []byte) (int, error) {
		m := &buffer{b: b}
		n := Serve(t.Context(), d, m, func() bool { return true })
		for _, e := range errnos {
			if n == -e.n {
				return 0, e.err
			}
		}
		if n < 0 {
			return 0, syscall.Errno(-n)
		}
		return n, nil
	}}
}

func run(t *testing.T, d ethtool.Device, line string) string {
	var out bytes.Buffer
	status := ethtool.Run(t.Context(), strings.Fields(line), func(string) (ethtool.Device, error) { return d, nil }, &out, &out)
	out.WriteString(string(rune('0'+status%10)) + "\n")
	return out.String()
}

// TestClient: a device has the same text and takes the same settings by way of the
// structures, in both directions, as without them.
func TestClient(t *testing.T) {
	direct, asked := shortBus{newFake()}, shortBus{newFake()}
	c := client(t, asked)
	for _, line := range []string{
		"eth0", "-i eth0", "-S eth0", "-l eth0", "-g eth0", "-k eth0", "-n eth0", "-n eth0 rx-flow-hash udp4", "-n eth0 rx-flow-hash tcp6",
		"-n eth0 rx-flow-hash ah4", "-x eth0", "-x eth0 context 1", "-d eth0", "-T eth0", "-P eth0", "-a eth0", "-c eth0", "-m eth0", "--show-eee eth0",
		"--json -k eth0", "--json -l eth0", "--json eth0", "--json -T eth0",
		"-L eth0 combined 2", "-L eth0 rx 1", "-G eth0 rx 100", "-G eth0 rx 99999", "-K eth0 tso off lro on",
		"-s eth0 speed 100 duplex half", "-s eth0 port tp", "-s eth0 autoneg on", "-s eth0 msglvl 3", "-s eth0 wol g", "-N eth0 rx-flow-hash udp4 sd",
		"-N eth0 rx-flow-hash udp4 m", "-X eth0 weight 1 3", "-X eth0 default", "-X eth0 equal 9", "-X eth0 hkey " + strings.Repeat("0a:", 39) + "0b",
		"-X eth0 hfunc xor", "-X eth0 context new equal 2", "-N eth0 delete 1",
	} {
		if d := cmp.Diff(run(t, direct, line), run(t, c, line)); d != "" {
			t.Errorf("ethtool %s: -direct +asked:\n%s", line, d)
		}
	}
	if d := cmp.Diff(direct.said, asked.said); d != "" || len(direct.said) < 8 {
		t.Errorf("settings: -direct +asked:\n%s", d)
	}
}

// TestClientSettings: the settings of Device, which ethtool's text makes by requests of its
// own.
func TestClientSettings(t *testing.T) {
	direct, asked := newFake(), newFake()
	for _, d := range []ethtool.Device{direct, client(t, asked)} {
		ctx := t.Context()
		for i, err := range []error{
			d.SetChannels(ctx, 3), d.SetRings(ctx, 20, 30), d.SetFeatures(ctx, nic.FeatureChange{Change: 1 << 40, On: 1 << 40}),
			d.SetLinkSettings(ctx, 10, nic.DuplexHalf), d.SetMessageLevel(ctx, 5), d.SetHashLevel(ctx, nic.FlowUDPv6, nic.HashL3),
			d.SetRSS(ctx, nic.RSSChange{Default: true, Key: bytes.Repeat([]byte{1}, 40)}), d.SetRSS(ctx, nic.RSSChange{Table: []uint32{3, 2, 1, 0}}),
			d.SetRSS(ctx, nic.RSSChange{Key: bytes.Repeat([]byte{2}, 40)}),
		} {
			if err != nil {
				t.Errorf("setting %d: %v", i, err)
			}
		}
	}
	if d := cmp.Diff(direct.said, asked.said); d != "" {
		t.Errorf("settings: -direct +asked:\n%s", d)
	}
	c := client(t, asked)
	if c.HashLevels() != asked.levels || !slices.Equal(c.RSS().Table, asked.rss.Table) || c.Channels() != asked.channels || c.Rings() != asked.rings ||
		c.LinkSettings() != asked.link || c.Registers() != asked.Registers() || c.PermanentMAC() != asked.PermanentMAC() || c.MessageLevel() != asked.messages {
		t.Error("what is shown is another")
	}
}

// TestClientDistrusts: answers with wild numbers make no panic and no endless list.
func TestClientDistrusts(t *testing.T) {
	wild := []byte{0xff, 0, 1, 0x7f, 0x80}
	if testing.Short() {
		wild = wild[:2]
	}
	for _, x := range wild {
		c := &Client{Request: func(b []byte) (int, error) {
			for i := range b[min(4, len(b)):] {
				b[4+i] = x
			}
			return 0, nil
		}}
		for _, line := range []string{"eth0", "-i eth0", "-S eth0", "-l eth0", "-k eth0", "-x eth0", "-P eth0", "-T eth0", "-c eth0",
			"--show-priv-flags eth0", "--phy-statistics eth0", "--show-eee eth0", "-a eth0", "-K eth0 tso on", "-X eth0 default", "-s eth0 speed 10"} {
			run(t, c, line)
		}
	}
}
