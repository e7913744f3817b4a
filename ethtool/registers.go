package ethtool

import (
	"encoding/binary"
	"os"
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
// hexadecimal.
func (c *call) showRegisters() int {
	var r registersRequest
	if !r.parse(c.args) {
		return c.badArgs()
	}
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitRegisters, "Cannot get driver information: %s", errText(err))
	}
	var b []byte
	for _, v := range d.Registers() {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	if r.raw {
		c.stdout.Write(b)
		return 0
	}
	if r.file != "" {
		if b, err = os.ReadFile(r.file); err != nil {
			return c.fail(exitSettings, "Can't open '%s': %s", r.file, errText(err))
		}
	}
	c.printf("Offset\t\tValues\n------\t\t------")
	for i, v := range b {
		if i%16 == 0 {
			c.printf("\n0x%04x:\t\t", i)
		}
		c.printf("%02x ", v)
	}
	c.printf("\n")
	return 0
}

// showTime is -T: all that there is is made by the stack above the driver.
func (c *call) showTime() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Time stamping parameters for %s:\n", c.name)
	if _, err := c.lookup(c.name); err != nil {
		return c.fail(exitMinus, "Cannot get device time stamping settings: %s", errText(err))
	}
	c.printf("Capabilities:\n" +
		"\tsoftware-transmit     (SOF_TIMESTAMPING_TX_SOFTWARE)\n" +
		"\tsoftware-receive      (SOF_TIMESTAMPING_RX_SOFTWARE)\n" +
		"\tsoftware-system-clock (SOF_TIMESTAMPING_SOFTWARE)\n" +
		"PTP Hardware Clock: none\n" +
		"Hardware Transmit Timestamp Modes: none\n" +
		"Hardware Receive Filter Modes: none\n")
	return 0
}

// showAddress is -P, which looks at no more arguments.
func (c *call) showAddress() int {
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitMinus, "Cannot read permanent address: %s", errText(err))
	}
	c.printf("Permanent address: %s\n", d.PermanentMAC())
	return 0
}
