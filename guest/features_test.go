package guest

import (
	"context"
	"errors"
	"testing"

	"hvnet/nic"
)

// A switchNIC is a NIC whose segmentation needs its checksum.
type switchNIC struct {
	has    nic.Features
	tell   func(nic.Features)
	refuse error
	calls  int
}

func (n *switchNIC) SetFeatures(_ context.Context, c nic.FeatureChange) error {
	n.calls++
	if n.refuse != nil {
		return n.refuse
	}
	f := &n.has
	c.Change &= f.Available
	f.Wanted = f.Wanted&^c.Change | c.On&c.Change
	f.Active = f.Wanted
	if !f.Active.Has(nic.FeatureTxIPv4) {
		f.Active &^= nic.FeaturesOf(nic.FeatureTSO)
	}
	n.tell(*f)
	return nil
}

func (n *switchNIC) Features() nic.Features { return n.has }

// A switchIface is an interface; its user changes asked.
type switchIface struct {
	asked nic.FeatureSet
	err   error
}

func (i *switchIface) Features() (nic.FeatureSet, error) { return i.asked, i.err }
func (i *switchIface) SetFeatures(change, on nic.FeatureSet) error {
	if i.err == nil {
		i.asked = i.asked&^change | on&change
	}
	return i.err
}

// TestMirror: an interface and its NIC, switched at either.
func TestMirror(t *testing.T) {
	const csum4, csum6, anySum, tso, tso6, ecn, gro = 1 << nic.FeatureTxIPv4, 1 << nic.FeatureTxIPv6, 1 << nic.FeatureTxAny,
		1 << nic.FeatureTSO, 1 << nic.FeatureTSO6, 1 << nic.FeatureTSOECN, 1 << nic.FeatureGRO
	const fcoe = 1 << 21
	const all = csum4 | csum6 | tso | gro
	n := &switchNIC{has: nic.Features{Available: all, Wanted: all, Active: all}}
	i := &switchIface{asked: anySum | tso | tso6 | ecn | gro | fcoe}
	m := &mirror{nic: n, iface: i}
	n.tell = func(f nic.Features) {
		if err := m.show(f); err != nil && i.err == nil {
			t.Error(err)
		}
	}
	n.tell(n.Features())
	user := func(what string, asked, wantNIC, wantIface nic.FeatureSet, refused string) {
		t.Helper()
		i.asked = asked
		said := ""
		if err := m.take(t.Context()); err != nil {
			said = err.Error()
		}
		if n.has.Active != wantNIC || i.asked != wantIface || said != refused {
			t.Errorf("%s: the NIC has %#x, want %#x, the interface %#x, want %#x; said %q", what, n.has.Active, wantNIC, i.asked, wantIface, said)
		}
		calls := n.calls
		if err := m.take(t.Context()); err != nil || n.calls != calls {
			t.Errorf("%s: there is no end to it: %v", what, err)
		}
	}
	shown := nic.FeatureSet(anySum | tso | ecn | gro | fcoe)
	user("as it is", shown, all, shown, "")
	user("no GRO", shown&^gro, all&^gro, shown&^gro, "")
	user("no checksum", shown&^gro&^anySum, 0, fcoe, "")
	user("checksum", fcoe|anySum, csum4|csum6|tso, shown&^gro, "")
	user("what is not the NIC's", shown&^gro|tso6, csum4|csum6|tso, shown&^gro, "tx-tcp6-segmentation refused, as before: operation not supported")
	user("what is nobody's", shown&^gro&^fcoe, csum4|csum6|tso, shown&^gro&^fcoe, "")

	n.refuse = errors.New("no")
	shown = shown &^ gro &^ fcoe
	user("a NIC that refuses", shown&^tso, csum4|csum6|tso, shown, "features refused, they are as before: no")
	n.refuse = nil
	if err := n.SetFeatures(t.Context(), nic.FeatureChange{Change: csum4}); err != nil {
		t.Fatal(err)
	}
	user("set at the NIC", anySum, csum6, anySum, "")
	i.err = errors.New("not there")
	if err := m.take(t.Context()); !errors.Is(err, i.err) {
		t.Errorf("an interface that does not say: %v", err)
	}
	if err := m.show(n.Features()); !errors.Is(err, i.err) {
		t.Errorf("an interface that does not show: %v", err)
	}
}
