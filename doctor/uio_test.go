package doctor

import "testing"

// TestKernels: which kernels have which fault of uio_hv_generic.
func TestKernels(t *testing.T) {
	for _, c := range []struct {
		release             string
		rescind, hang, oops bool
	}{
		{"4.19.300", true, true, false},
		{"5.4.283", true, true, false},
		{"5.4.284", false, true, false},
		{"5.4.301", false, false, true},
		{"5.4.302", false, false, false},
		{"5.10.246", false, false, true},
		{"5.15.196", false, false, true},
		{"5.15.197", false, false, false},
		{"6.1.109", true, true, false},
		{"6.1.155", false, true, false},
		{"6.1.156", false, false, true},
		{"6.1.158", false, false, true},
		{"6.1.159", false, false, false},
		{"6.5.13", true, true, false},
		{"6.6.117", false, false, true},
		{"6.10.9", true, true, false},
		{"6.11", false, true, false},
		{"6.12.60", false, false, false},
		{"6.17.2", false, true, false},
		{"6.17.3", false, false, false},
		{"6.18.0", false, false, false},
		{"7.3.4-rc1+deb13", false, false, false},
	} {
		r, ok := parseRelease(c.release)
		if !ok {
			t.Errorf("%s: not understood", c.release)
		}
		rescind, hang := !rescindRepair.in(r), !maskRepair.in(r)
		oops := maskRepair.in(r) && !channelRepair.in(r)
		if rescind != c.rescind || hang != c.hang || oops != c.oops {
			t.Errorf("%s: rescind %v, hang %v, oops %v", c.release, rescind, hang, oops)
		}
	}
	for _, s := range []string{"", "next", "6"} {
		if r, ok := parseRelease(s); ok {
			t.Errorf("%q is %v", s, r)
		}
	}
}
