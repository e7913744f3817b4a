package ethtool

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/nic"
)

func (f *fake) Features() nic.Features { return f.features }

// SetFeatures is that of a NIC whose segmentation needs its checksum.
func (f *fake) SetFeatures(_ context.Context, c nic.FeatureChange) error {
	if f.refuse != nil {
		return f.refuse
	}
	if c.Change&nic.FeaturesNeverChanged != 0 {
		return fmt.Errorf("set features: %w", nic.ErrInvalid)
	}
	x := &f.features
	c.Change &= x.Available
	x.Wanted = x.Wanted&^c.Change | c.On&c.Change
	x.Active = x.Active&^x.Available | x.Wanted
	if !x.Active.Has(nic.FeatureTxIPv4) {
		x.Active &^= nic.FeaturesOf(nic.FeatureTSO)
	}
	return nil
}

// TestFeatures is what the recorded texts of Linux do not have.
func TestFeatures(t *testing.T) {
	const bad = "! ethtool: bad command line argument(s)\n! For more information run ethtool -h\n= 1\n"
	for _, x := range []struct{ line, want string }{
		{"-K eth0 tx off tx on", "= 0\n"},
		{"-K eth0 tx-checksum-ipv4 off tx-checksum-ipv4 on", "= 0\n"},
		{"-K eth0 tx off tx-checksum-ipv4 on", "! Could not change any device features\n= 1\n"},
		{"-K eth0 tx on tx-checksum-ipv4 off", "| Actual changes:\n| tx-checksumming: off\n| \ttx-checksum-ipv4: off\n" +
			"| tcp-segmentation-offload: off\n| \ttx-tcp-segmentation: off [requested on]\n= 0\n"},
		{"-K eth0 rx-checksumming off", "= 0\n"},
		{"-K eth0 gro off lro on", "! Cannot change large-receive-offload\n| Actual changes:\n| generic-receive-offload: off\n= 0\n"},
		{"-K eth0 \"\" on", "! Could not change any device features\n= 1\n"},
		{"-K eth0 \"\" off", "= 0\n"},
		{"-K eth0 tx ON", bad},
		{"-K eth0 tx-checksum-* off", bad},
		{"-K eth0 tx on off", bad},
		{"-K", bad},
		{"-k", bad},
		{"--features nosuch nosuch on", "! Cannot get device feature names: No such device\n= 1\n"},
		{"--offload * tx on", "! netlink interface initialization failed, wildcard dump not supported\n= 1\n"},
	} {
		f := newFake()
		f.features = nic.Features{Available: nic.FeaturesOf(nic.FeatureTxIPv4, nic.FeatureTSO, nic.FeatureGRO, nic.FeatureRxChecksum)}
		f.features.Wanted = f.features.Available
		f.features.Active = f.features.Available | nic.FeaturesOf(nic.FeatureHighDMA)
		got := f.run(t, words(t, x.line)...)
		// What is written to stdout comes last in a pipe, and first in a transcript.
		if lines := strings.SplitAfter(got, "\n"); sorted(lines) != sorted(strings.SplitAfter(x.want, "\n")) {
			t.Errorf("%s:\n%s, want\n%s", x.line, got, x.want)
		}
	}
	f := newFake()
	f.refuse = fmt.Errorf("set features: %w", nic.ErrNoDevice)
	if got := f.run(t, "-K", "eth0", "highdma", "off"); got != "! Cannot set device feature settings: No such device\n= 1\n" {
		t.Errorf("without a device: %s", got)
	}
}

// sorted returns lines with those of stderr behind the others.
func sorted(lines []string) (out string) {
	var errs string
	for _, l := range lines {
		if strings.HasPrefix(l, "!") {
			errs += l
		} else {
			out += l
		}
	}
	return out + errs
}

// TestAliases: each names features that there are, and none is in two.
func TestAliases(t *testing.T) {
	var all nic.FeatureSet
	for i, a := range aliases {
		if len(ownFeatures.aliased[i]) == 0 && a.short != "ufo" {
			t.Errorf("%s names a feature that there is not", a.short)
		}
		for _, f := range ownFeatures.aliased[i] {
			if all.Has(f) {
				t.Errorf("%v is in two aliases", f)
			}
			all |= nic.FeaturesOf(f)
		}
	}
}

// TestFeatureDefs: each line of -k is explained, in its order, and each name of -K.
func TestFeatureDefs(t *testing.T) {
	f := newFake()
	var shown []string
	for l := range strings.Lines(f.run(t, "-k", "eth0")) {
		if name, _, ok := strings.Cut(strings.Trim(l, "| \t"), ": "); ok {
			shown = append(shown, name)
		}
	}
	var said []string
	for _, d := range FeatureDefs() {
		said = append(said, d.Name)
		if d.Meaning == "" || !strings.HasSuffix(d.Meaning, ".") || len(d.Features) == 0 {
			t.Errorf("%s is not explained", d.Name)
		}
		for _, name := range append(d.Others, d.Name) {
			var w wish
			if !w.add(ownFeatures, name, true) || !d.Called(name) {
				t.Errorf("-K does not know %s", name)
			}
		}
	}
	if d := cmp.Diff(shown, said); d != "" || len(said) != 65 {
		t.Errorf("%d are explained:\n%s", len(said), d)
	}
}
