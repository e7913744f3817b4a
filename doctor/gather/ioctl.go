package gather

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/doctor"
	"hvnet/nic"
)

// The commands of SIOCETHTOOL that are asked (linux/ethtool.h), and two sets of strings.
const (
	getRings     = 0x10
	getStrings   = 0x1b
	getStats     = 0x1d
	getPermanent = 0x20
	getFlowHash  = 0x29
	getSetInfo   = 0x37
	getTable     = 0x38
	getFeatures  = 0x3a
	getChannels  = 0x3c

	statNames    = 1
	featureNames = 4
	nameLen      = 32
	mostStrings  = 1 << 16
)

// Fields of a flow that a hash is computed over (RXH_…): both ports make it one of L4.
const hashPorts = 1<<6 | 1<<7

var flowTypes = map[string]uint32{"tcp4": 1, "udp4": 2, "tcp6": 5, "udp6": 6}

var native = binary.NativeEndian

// driver returns what an interface's driver says of itself.
func (c *collector) driver(name string) (nic.DriverInfo, error) {
	d, err := unix.IoctlGetEthtoolDrvinfo(c.socket, name)
	if err != nil {
		return nic.DriverInfo{}, fmt.Errorf("ask for the driver of %s: %w", name, err)
	}
	bus := unix.ByteSliceToString(d.Bus_info[:])
	if strings.EqualFold(bus, "N/A") {
		bus = ""
	}
	return nic.DriverInfo{Driver: unix.ByteSliceToString(d.Driver[:]), Version: unix.ByteSliceToString(d.Version[:]), Bus: bus}, nil
}

// ask makes one call of SIOCETHTOOL with a structure of size bytes, of which words are set
// behind the command. nil is the answer if the driver has none.
func (c *collector) ask(name string, command uint32, size int, words ...uint32) []byte {
	b := make([]byte, size)
	native.PutUint32(b, command)
	for i, w := range words {
		native.PutUint32(b[4+4*i:], w)
	}
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(ifr.name[:unix.IFNAMSIZ-1], name)
	ifr.data = unsafe.Pointer(unsafe.SliceData(b))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
		return nil
	}
	return b
}

// word returns the nth 32-bit word of an answer, 0 if there is none.
func word(b []byte, n int) int {
	if len(b) < 4*n+4 {
		return 0
	}
	return int(native.Uint32(b[4*n:]))
}

// strings returns a set of strings of an interface.
func (c *collector) strings(name string, set uint32) (list []string) {
	n := word(c.ask(name, getSetInfo, 20, 0, 1<<set, 0), 4)
	if n <= 0 || n > mostStrings {
		return nil
	}
	b := c.ask(name, getStrings, 12+n*nameLen, set, uint32(n))
	for i := range min(n, word(b, 2)) {
		list = append(list, unix.ByteSliceToString(b[12+i*nameLen:][:nameLen]))
	}
	return list
}

// settings adds what ethtool shows of an interface.
func (c *collector) settings(i *doctor.Interface) {
	ch := c.ask(i.Name, getChannels, 36)
	i.MaxChannels, i.Channels = word(ch, 4), word(ch, 8)
	r := c.ask(i.Name, getRings, 36)
	i.MaxRx, i.MaxTx, i.RxSections, i.TxSections = word(r, 1), word(r, 4), word(r, 5), word(r, 8)
	if p := c.ask(i.Name, getPermanent, 16, uint32(len(nic.MAC{}))); i.Burnt == "" && word(p, 1) == len(nic.MAC{}) {
		i.Burnt = net.HardwareAddr(p[8:14]).String()
	}
	i.Hash = map[string]string{}
	for flow, t := range flowTypes {
		if b := c.ask(i.Name, getFlowHash, 16, t); b != nil {
			i.Hash[flow] = map[bool]string{true: "L4", false: "L3"}[native.Uint64(b[8:])&hashPorts == hashPorts]
		}
	}
	if n := word(c.ask(i.Name, getTable, 8), 1); n > 0 && n <= mostStrings {
		b := c.ask(i.Name, getTable, 8+4*n, uint32(n))
		table := make([]uint32, min(n, word(b, 1)))
		for k := range table {
			table[k] = uint32(word(b, 2+k))
		}
		i.SetTable(table)
	}
	c.features(i)
	names := c.strings(i.Name, statNames)
	b := c.ask(i.Name, getStats, 8+8*len(names), uint32(len(names)))
	for k := range min(len(names), word(b, 1)) {
		i.SetCounter(names[k], native.Uint64(b[8+8*k:]))
	}
}

// features adds those that are on or could be. Their numbers differ between kernels, so
// their names are asked for.
func (c *collector) features(i *doctor.Interface) {
	names := c.strings(i.Name, featureNames)
	blocks := (len(names) + 31) / 32
	b := c.ask(i.Name, getFeatures, 8+16*blocks, uint32(blocks))
	for k, name := range names {
		block, bit := k/32*4, k%32
		available, active := word(b, 2+block), word(b, 4+block)
		switch {
		case name == "":
		case active>>bit&1 != 0:
			i.Features = append(i.Features, name)
		case available>>bit&1 != 0:
			i.Off = append(i.Off, name)
		}
	}
}
