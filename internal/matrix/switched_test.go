package matrix

import (
	"context"
	"fmt"
	"os/exec"
	"testing"

	"hvnet/internal/lab"
	"hvnet/internal/need"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// TestSwitched sends TCP streams, one after the other, each way that there is, while
// offloads are switched off and on: at the drivers, and at the kernel's interfaces as its
// ethtool does. The payload arrives, and the account of sections balances.
func TestSwitched(t *testing.T) {
	need.Root(t)
	need.Tool(t, "ip")
	need.Tool(t, "ethtool")
	axes := []Axis{{"profile", []string{profile.Default}}, ways, {"ip", versions.Values[:1]}, {"protocol", protocols.Values[:1]}, {"mtu", sizes.Values[:1]},
		on(lro), on(gro), on(sums), on(lso)}
	if need.All() {
		names := profile.Names()
		axes[0].Values = append(axes[0].Values, names[0], names[len(names)-1])
	}
	if testing.Short() {
		axes[1].Values = axes[1].Values[:1]
	}
	ends := lab.Namespaces(t)
	for _, c := range All(axes) {
		t.Run(c.Of("profile")+"/"+c.Of("way"), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			s := newStage(ctx, t, c, ends)
			before := [2]map[string]uint64{faults(t, ends[0]), faults(t, ends[1])}
			done := make(chan error, 1)
			go func() { done <- s.switchAll(ctx) }()
			for going := true; going; {
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
					going = false // and one stream more
				default:
				}
				if err := s.transfer(ctx, c); err != nil {
					t.Fatal(err)
				}
			}
			s.balanced(ctx, t, c)
			for i, end := range ends {
				for name, n := range faults(t, end) {
					if n != before[i][name] {
						t.Errorf("end %d: its kernel counts %d of %s", i, n-before[i][name], name)
					}
				}
			}
		})
	}
}

// on is an axis on which all is on.
func on(a Axis) Axis { return Axis{a.Name, []string{"on"}} }

// switchAll switches each feature off and on again, a few times: at all drivers, and then
// at the near end's interface.
func (s *stage) switchAll(ctx context.Context) error {
	features := []nic.FeatureSet{nic.FeaturesOf(nic.FeatureLRO), nic.FeaturesOf(nic.FeatureGRO),
		nic.FeaturesOf(nic.FeatureTSO, nic.FeatureTSO6), nic.FeaturesOf(nic.FeatureTxIPv4, nic.FeatureTxIPv6),
		nic.FeaturesOf(nic.FeatureRxChecksum), nic.FeaturesOf(nic.FeatureSG)}
	for range 3 {
		for _, f := range features {
			for _, on := range []nic.FeatureSet{0, f} {
				if err := s.set(ctx, nic.FeatureChange{Change: f, On: on}); err != nil {
					return err
				}
			}
		}
	}
	for range 3 { // not in turns, for what is done here comes to the driver a little later
		for _, feature := range []string{"tx", "tso", "sg", "gro"} {
			for _, value := range []string{"off", "on"} {
				argv := s.near.In("ethtool", "-K", "eth0", feature, value)
				if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
					return fmt.Errorf("ethtool -K eth0 %s %s: %w: %s", feature, value, err, out)
				}
			}
		}
	}
	return nil
}
