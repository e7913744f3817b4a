package ethtool

import (
	"encoding/binary"
	"errors"
	"os"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// registersRequest is what a command line of -d asks for.
type registersRequest struct {
	raw, hex bool
	file     string
}

func (r *registersRequest) parse(args []string) bool {
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) {
			return false
		}
		if args[i] == "file" {
			r.file = args[i+1]
			continue
		}
		on, ok := oneOf("off", "on")(args[i+1])
		switch {
		case !ok:
			return false
		case args[i] == "raw":
			r.raw = on == 1
		case args[i] == "hex":
			r.hex = on == 1
		default:
			return false
		}
	}
	return true
}

// showRegisters is -d. Ethtool knows no better form for hv_netvsc's registers than
// hexadecimal, and this program none for anybody's.
func (c *call) showRegisters() int {
	var r registersRequest
	if !r.parse(c.args) {
		return c.badArgs()
	}
	b, status := c.registers()
	if b == nil {
		return status
	}
	if r.file != "" && !r.raw {
		var err error
		if b, err = os.ReadFile(r.file); err != nil {
			return c.fail(exitSettings, "Can't open '%s': %s", r.file, errText(err))
		}
	}
	c.printDump(b, r.raw, 0)
	return 0
}

// registers returns those of the device, or why not and the exit status.
func (c *call) registers() (b []byte, status int) {
	info, err := c.driver()
	if err != nil {
		return nil, c.fail(exitRegisters, "Cannot get driver information: %s", errText(err))
	}
	d, err := c.lookup(c.name)
	if err != nil {
		return nil, c.fail(exitEEPROM, "Cannot get register dump: %s", errText(err))
	}
	if a, ok := d.(Asker); ok {
		n := min(word(info, driverRegisters), maxDump)
		b := request(12+int(n), layout.GREGS, 0, n)
		if _, err := a.Ask(b); err != nil {
			return nil, c.fail(exitEEPROM, "Cannot get register dump: %s", errText(err))
		}
		return b[12 : 12+min(n, word(b, 8))], 0
	}
	for _, v := range d.Registers() {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b, 0
}

// maxDump is how many bytes of registers or EEPROM are believed in.
const maxDump = 1 << 24

// Offsets in struct ethtool_drvinfo, of lengths in bytes.
const (
	driverEEPROM    = 188
	driverRegisters = 192
	driverLen       = 196
)

// driver returns that structure; of a NIC of Hyper-V, one with nothing in it.
func (c *call) driver() ([]byte, error) {
	b := request(driverLen, layout.GDRVINFO)
	err := c.ask(b)
	if errors.Is(err, nic.ErrNotSupported) {
		if d, e := c.lookup(c.name); e == nil {
			if _, ok := d.(Asker); !ok {
				return b, nil
			}
		}
	}
	return b, err
}

// printDump prints bytes in hexadecimal, or as they are. The first has an offset.
func (c *call) printDump(b []byte, raw bool, offset int) {
	if raw {
		c.stdout.Write(b)
		return
	}
	c.printf("Offset\t\tValues\n------\t\t------")
	for i, v := range b {
		if i%16 == 0 {
			c.printf("\n0x%04x:\t\t", offset+i)
		}
		c.printf("%02x ", v)
	}
	c.printf("\n")
}
