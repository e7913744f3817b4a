package doctor

import (
	"regexp"
	"strconv"
	"strings"
)

// newKernel is the command for what only another kernel mends.
const newKernel = "apt-get update && apt-get full-upgrade # or what brings a new kernel here; then restart"

// A release is that of a kernel: 6.1.158.
type release [3]int

var releasePattern = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.(\d+))?`)

// parseRelease reads the numbers of a release. What comes behind them does not count.
func parseRelease(s string) (r release, ok bool) {
	m := releasePattern.FindStringSubmatch(s)
	if m == nil {
		return r, false
	}
	for i := range r {
		r[i], _ = strconv.Atoi(m[i+1])
	}
	return r, true
}

// before reports whether a release is older than another one.
func (r release) before(o release) bool {
	for i := range r {
		if r[i] != o[i] {
			return r[i] < o[i]
		}
	}
	return false
}

// series reports whether two are of one stable series.
func (r release) series(o release) bool { return r[0] == o[0] && r[1] == o[1] }

// A repair is a change of uio_hv_generic: the first release that has it, and the first
// of each older stable series.
type repair struct {
	mainline release
	stable   []release
}

// in reports whether a release has it.
func (c *repair) in(r release) bool {
	for _, s := range c.stable {
		if r.series(s) {
			return !r.before(s)
		}
	}
	return !r.before(c.mainline)
}

// Repairs of uio_hv_generic in Linux: the commits, and since when stable series have them.
var (
	// fb1adbd7e50f, CVE-2024-46739: a rescind while nothing is open.
	rescindRepair = repair{release{6, 11, 0}, []release{{5, 4, 284}, {5, 10, 226}, {5, 15, 167}, {6, 1, 110}, {6, 6, 51}, {6, 10, 10}}}
	// b15b7d2a1b09, CVE-2025-40048: the kernel leaves the interrupt mask alone.
	maskRepair = repair{release{6, 18, 0}, []release{{5, 4, 301}, {5, 10, 246}, {5, 15, 195}, {6, 1, 156}, {6, 6, 112}, {6, 12, 53}, {6, 17, 3}}}
	// d062463edf17, whose lack makes maskRepair deadly (Debian's bug 1120602).
	channelRepair = repair{release{6, 16, 0}, []release{{5, 4, 302}, {5, 10, 247}, {5, 15, 197}, {6, 1, 159}, {6, 6, 118}, {6, 12, 60}}}
	// 547fa4ffd799: channels without a bit in the monitor page.
	slowRepair = repair{mainline: release{6, 10, 0}}
)

// uioRules look at the kernel's uio_hv_generic, if it is in use. Distributions mend what
// their version number does not tell.
var uioRules = []Rule{
	uioRule("uio-oops", Fault, "Kernels that leave the interrupt mask alone and do not know sub-channels: 5.4.301, 5.10.246, 5.15.195 to .196, 6.1.156 to .158, 6.6.112 to .117, 6.12.53 to .59.",
		"An interrupt of a sub-channel takes the kernel down (Debian's bug 1120602).",
		"an interrupt of a sub-channel takes it down", func(r release) bool { return maskRepair.in(r) && !channelRepair.in(r) }),
	uioRule("uio-hang", Warning, "Kernels that set the interrupt mask behind the program's back: before 5.4.301, 5.10.246, 5.15.195, 6.1.156, 6.6.112, 6.12.53 and 6.17.3.",
		"A program that waits for an interrupt may wait for ever (CVE-2025-40048). This project's driver looks again by itself.",
		"it may lose a wakeup, so that a program waits for ever", func(r release) bool { return !maskRepair.in(r) }),
	uioRule("uio-rescind", Warning, "Kernels before 5.4.284, 5.10.226, 5.15.167, 6.1.110, 6.6.51, 6.10.10 and 6.11.",
		"If the host takes the device away while no program has it, the kernel may fall (CVE-2024-46739), and the device does not come back.",
		"it may fall when the host takes the device away", func(r release) bool { return !rescindRepair.in(r) }),
	uioRule("uio-slow", Note, "Kernels before 6.10.",
		"They refuse a device whose channels have no bit in the monitor page.",
		"it refuses devices whose channels signal otherwise than by the monitor page", func(r release) bool { return !slowRepair.in(r) }),
}

// uioRule makes the rule for a range of kernels.
func uioRule(name string, s Severity, text, why, what string, bad func(release) bool) Rule {
	return Rule{Name: name, Severity: s, Text: text + " Looked at if uio_hv_generic is loaded.", Why: why, machine: true, check: func(e *examination) {
		r, ok := parseRelease(e.Machine.Release)
		if !ok || !bad(r) || !e.Machine.UIO && len(e.Machine.UIODevices) == 0 {
			return
		}
		devices := "no device yet"
		if len(e.Machine.UIODevices) > 0 {
			devices = strings.Join(e.Machine.UIODevices, ", ")
		}
		mend := newKernel
		if s == Note {
			mend = ""
		}
		e.say(s, mend, "uio_hv_generic of kernel %s, which has %s: %s", e.Machine.Kernel, devices, what)
	}}
}
