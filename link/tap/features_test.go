package tap

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"hvnet/internal/need"
	"hvnet/nic"
)

// TestFeatures has the kernel show what was set, and tell what its own ethtool sets.
func TestFeatures(t *testing.T) {
	ethtool := need.Tool(t, "ethtool")
	enter(t)
	tap := open(t, Config{Name: "eth0", Offloads: Offloads})
	shows := func(want string) {
		t.Helper()
		out, err := exec.Command(ethtool, "-k", "eth0").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for line := range strings.SplitSeq(want, ", ") {
			if !regexp.MustCompile(`(?m)^\s*` + line + `$`).Match(out) {
				t.Errorf("no %q in\n%s", line, out)
			}
		}
	}
	asked := func(want nic.FeatureSet) {
		t.Helper()
		if got, err := tap.Features(); err != nil || got&all != want {
			t.Errorf("asked for %#x %v, want %#x", got&all, err, want)
		}
	}
	set := func(change, on nic.FeatureSet) {
		t.Helper()
		if err := tap.SetFeatures(change, on); err != nil {
			t.Error(err)
		}
	}
	off := nic.FeaturesOf(nic.FeatureNoCache)
	asked(all &^ off)
	shows("tx-checksum-ip-generic: on, tx-tcp-segmentation: on, tx-tcp6-segmentation: on, generic-segmentation-offload: on, tx-nocache-copy: off")
	set(nic.FeaturesOf(nic.FeatureTSO6, nic.FeatureNoCache, nic.FeatureRxChecksum, nic.FeatureHighDMA), nic.FeaturesOf(nic.FeatureNoCache, nic.FeatureTSO))
	shows("tx-tcp-segmentation: on, tx-tcp6-segmentation: off, tx-nocache-copy: on, rx-checksumming: off .fixed.")
	asked(all &^ nic.FeaturesOf(nic.FeatureTSO6))
	set(all, all&^off)
	asked(all &^ off)

	// A watch is told, and what is of no use for now is asked for all the same.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	told := make(chan State, 100)
	ended := make(chan error, 1)
	go func() { ended <- tap.Watch(ctx, func(s State) { told <- s }) }()
	<-told
	if out, err := exec.Command(ethtool, "-K", "eth0", "tx", "off", "gro", "off").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := all &^ off &^ nic.FeaturesOf(nic.FeatureTxAny, nic.FeatureGRO)
	for deadline := time.After(10 * time.Second); ; {
		if got, err := tap.Features(); err != nil || got&all == want {
			break
		}
		select {
		case <-told:
		case <-deadline:
			t.Fatal("nobody tells of the change")
		}
	}
	asked(want)
	shows("tx-checksumming: off, tx-tcp-segmentation: off .requested on., generic-receive-offload: off")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	blind := &TAP{name: "eth0", queues: tap.queues}
	if _, err := blind.Features(); !errors.Is(err, nic.ErrNotSupported) {
		t.Errorf("without a socket: %v", err)
	}
	tap.Close()
	if err := tap.SetFeatures(all, all); err == nil {
		t.Error("a closed TAP takes features")
	}
}

// all are the features that the test looks at.
var all = nic.FeaturesOf(nic.FeatureTxAny, nic.FeatureTSO, nic.FeatureTSO6, nic.FeatureSG, nic.FeatureGSO, nic.FeatureGRO, nic.FeatureNoCache)

// TestKernelNumbers: other kernels number features otherwise, and have others.
func TestKernelNumbers(t *testing.T) {
	var names [70][featureNameLen]byte
	copy(names[1][:], "rx-gro")
	copy(names[66][:], "tx-checksum-ip-generic")
	copy(names[2][:], "a-feature-of-tomorrow-0123456789")
	k := numberFeatures(names[:])
	if k.number[nic.FeatureGRO] != 1 || k.number[nic.FeatureTxAny] != 66 || k.number[nic.FeatureTSO] != -1 || k.number[2] != -1 || k.blocks != 3 {
		t.Errorf("%+v", k)
	}
}
