package ethtool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"hvnet/nic"
)

// TestJSON: what is shown as JSON is what the device has.
func TestJSON(t *testing.T) {
	f := newFake()
	f.levels[nic.FlowUDPv4] = nic.HashL3
	f.link.Mbps = nic.SpeedUnknown
	f.rss.Table, f.rss.Key = []uint32{0, 1}, []byte{1, 255}
	for _, x := range []struct{ args, want string }{
		{"-l eth0", `[{"ifname":"eth0","combined-max":64,"combined":1}]`},
		{"-g eth0", `[{"ifname":"eth0","rx-max":18811,"tx-max":2560,"rx":9709,"tx":170}]`},
		{"-S eth0", `[{"ifname":"eth0","tx_scattered":7,"rx_queue_0_packets":18446744073709551615}]`},
		{"-x eth0", `[{"ifname":"eth0","rss-indirection-table":[0,1],"rss-hash-key":[1,255],"rss-hash-function":"toeplitz"}]`},
		{"-n eth0 rx-flow-hash udp4", `[{"ifname":"eth0","flow-type":"udp4","hash-fields":["ip-src","ip-dst"]}]`},
		{"-n eth0 rx-flow-hash tcp6", `[{"ifname":"eth0","flow-type":"tcp6","hash-fields":["ip-src","ip-dst","l4-bytes-0-1","l4-bytes-2-3"]}]`},
		{"-n eth0 rx-flow-hash sctp4", `[{"ifname":"eth0","flow-type":"sctp4","hash-fields":[]}]`},
		{"-P eth0", `[{"ifname":"eth0","permanent-address":"00:15:5d:01:02:03"}]`},
		{"eth0", `[{"ifname":"eth0","speed":null,"duplex":"Full","auto-negotiation":false,"port":"Other","phyad":0,"transceiver":"internal","message-level":247,"link-detected":true}]`},
		{"-l nosuch", "! Cannot get device channel parameters: No such device\n= 1"},
		{"-n eth0", "! ethtool: bad command line argument(s)\n! For more information run ethtool -h\n= 1"},
		{"-l eth0 x", "! ethtool: bad command line argument(s)\n! For more information run ethtool -h\n= 1"},
	} {
		var stdout, stderr bytes.Buffer
		exit := Run(t.Context(), append([]string{"--json"}, words(t, x.args)...), func(name string) (Device, error) {
			if name != "eth0" {
				return nil, fmt.Errorf("find %s: %w", name, nic.ErrNoDevice)
			}
			return f, nil
		}, &stdout, &stderr)
		got := strings.TrimSuffix(transcript(stdout.String(), stderr.String(), exit), "\n")
		if stdout.Len() > 0 {
			var text bytes.Buffer
			if err := json.Compact(&text, stdout.Bytes()); err != nil || exit != 0 || stderr.Len() > 0 {
				t.Errorf("%s: %v: %s", x.args, err, got)
			}
			got = strings.TrimSpace(text.String())
		}
		if got != x.want {
			t.Errorf("%s: %s, want %s", x.args, got, x.want)
		}
	}
}
