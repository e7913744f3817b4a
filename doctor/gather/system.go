package gather

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hvnet/doctor"
)

// azureTag is what the chassis of Azure's machines has for an asset tag.
const azureTag = "7783-7084-3265-9085-8269-3286-77"

// read returns a file without the white space around it; nothing if it cannot be read.
func (c *collector) read(path string) string {
	b, err := os.ReadFile(filepath.Join(c.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// machine returns the facts of the machine.
func (c *collector) machine() doctor.Machine {
	m := doctor.Machine{
		Kernel:  c.read("proc/sys/kernel/osrelease"),
		CPUs:    countCPUs(c.read("sys/devices/system/cpu/online")),
		Azure:   c.read("sys/class/dmi/id/chassis_asset_tag") == azureTag,
		Forward: c.read("proc/sys/net/ipv4/ip_forward") == "1" || c.read("proc/sys/net/ipv6/conf/all/forwarding") == "1",
		SNMP:    fragments(c.read("proc/net/snmp"), c.read("proc/net/snmp6")),
	}
	m.Release = mainline(m.Kernel, c.read("proc/sys/kernel/version"), c.read("proc/version_signature"))
	if all := busVersion.FindAllStringSubmatch(c.log, -1); all != nil {
		m.VMBus = all[len(all)-1][1]
	}
	if found := hostBuild.FindStringSubmatch(c.log); found != nil {
		m.Build = found[1]
	}
	const uio = "sys/bus/vmbus/drivers/uio_hv_generic"
	entries, err := os.ReadDir(filepath.Join(c.root, uio))
	m.UIO = err == nil
	for _, e := range entries {
		if guid.MatchString(e.Name()) {
			m.UIODevices = append(m.UIODevices, e.Name())
		}
	}
	return m
}

var (
	guid       = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	busVersion = regexp.MustCompile(`(?i)vmbus version:\s*(\d+\.\d+)`)
	hostBuild  = regexp.MustCompile(`Hyper-V:? Host Build:? ?([^ \n]+)`)

	fragmentCounter = regexp.MustCompile(`^Ip6?(Frag|Reasm)[A-Za-z]*$`)

	number  = regexp.MustCompile(`^\d+\.\d+(\.\d+)?`)
	debians = regexp.MustCompile(`\bDebian (\d+\.\d+(?:\.\d+)?)`)
)

// mainline returns the release of kernel.org that a kernel is made from: Debian tells it
// in the kernel's version, Ubuntu in a file of its own, others in the name of the release.
func mainline(release, version, signature string) string {
	if words := strings.Fields(signature); len(words) > 0 && number.MatchString(words[len(words)-1]) {
		return words[len(words)-1]
	}
	if m := debians.FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return number.FindString(release)
}

// countCPUs counts the processors of a list such as 0-3,6.
func countCPUs(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		b := a
		if isRange && err == nil {
			b, err = strconv.Atoi(to)
		}
		if err != nil || b < a {
			return runtime.NumCPU()
		}
		n += b - a + 1
	}
	return n
}

// fragments returns the counters of fragments in /proc/net/snmp and snmp6, by nstat's
// names.
func fragments(v4, v6 string) map[string]uint64 {
	counters := map[string]uint64{}
	add := func(name, value string) {
		n, err := strconv.ParseUint(value, 10, 64)
		if err == nil && fragmentCounter.MatchString(name) {
			counters[name] = n
		}
	}
	var names []string
	for line := range strings.Lines(v4) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] != "Ip:":
		case names == nil:
			names = f
		default:
			for k := 1; k < min(len(f), len(names)); k++ {
				add("Ip"+names[k], f[k])
			}
		}
	}
	for line := range strings.Lines(v6) {
		if f := strings.Fields(line); len(f) == 2 {
			add(f[0], f[1])
		}
	}
	return counters
}

// device adds what sysfs has of an interface's device on the bus. sysfs may show another
// network namespace, whose interfaces have other numbers.
func (c *collector) device(index int, i *doctor.Interface) {
	dir := filepath.Join("sys/class/net", i.Name)
	if c.read(filepath.Join(dir, "ifindex")) != strconv.Itoa(index) {
		return
	}
	target, err := os.Readlink(filepath.Join(c.root, dir, "device"))
	if err != nil || !guid.MatchString(filepath.Base(target)) {
		return
	}
	i.Device = filepath.Base(target)
	device := filepath.Join("sys/bus/vmbus/devices", i.Device)
	for line := range strings.Lines(c.read(filepath.Join(device, "channel_vp_mapping"))) {
		var p doctor.Place
		if _, err := fmt.Sscanf(line, "%d:%d", &p.Relid, &p.CPU); err == nil {
			i.Places = append(i.Places, p)
		}
	}
	i.Monitor = c.read(filepath.Join(device, "monitor_id"))
}

// logged adds what the kernel has logged of an interface.
func (c *collector) logged(i *doctor.Interface) {
	count := func(what string) int { return strings.Count(c.log, fmt.Sprintf(" %s: %s", i.Name, what)) }
	i.Switches = count("Data path switched")
	i.Refused = count("nvsp_rndis_pkt_complete error status")
}

// kernelLog returns the kernel's log; nothing to those who may not read it.
func kernelLog() string {
	const readAll, size = 3, 10 // SYSLOG_ACTION_READ_ALL, SYSLOG_ACTION_SIZE_BUFFER
	n, err := unix.Klogctl(size, nil)
	if err != nil || n <= 0 {
		return ""
	}
	b := make([]byte, n)
	if n, err = unix.Klogctl(readAll, b); err != nil {
		return ""
	}
	return string(b[:n])
}
