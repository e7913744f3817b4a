package ethtool

import "hvnet/ethtool/layout"

// A timeWord is one of the masks of -T: its names and the kernel's, by bits.
type timeWord [][2]string

// struct ethtool_ts_info: the masks, and the number of the clock, -1 for none.
const (
	timeCan    = 4
	timeClock  = 8
	timeTx     = 12
	timeFilter = 28
	timeLen    = 44
)

var (
	timeCans = timeWord{
		{"hardware-transmit", "SOF_TIMESTAMPING_TX_HARDWARE"}, {"software-transmit", "SOF_TIMESTAMPING_TX_SOFTWARE"},
		{"hardware-receive", "SOF_TIMESTAMPING_RX_HARDWARE"}, {"software-receive", "SOF_TIMESTAMPING_RX_SOFTWARE"},
		{"software-system-clock", "SOF_TIMESTAMPING_SOFTWARE"}, {"hardware-legacy-clock", "SOF_TIMESTAMPING_SYS_HARDWARE"},
		{"hardware-raw-clock", "SOF_TIMESTAMPING_RAW_HARDWARE"},
	}
	timeTypes = timeWord{
		{"off", "HWTSTAMP_TX_OFF"}, {"on", "HWTSTAMP_TX_ON"}, {"one-step-sync", "HWTSTAMP_TX_ONESTEP_SYNC"},
	}
	timeFilters = timeWord{
		{"none", "HWTSTAMP_FILTER_NONE"}, {"all", "HWTSTAMP_FILTER_ALL"}, {"some", "HWTSTAMP_FILTER_SOME"},
		{"ptpv1-l4-event", "HWTSTAMP_FILTER_PTP_V1_L4_EVENT"}, {"ptpv1-l4-sync", "HWTSTAMP_FILTER_PTP_V1_L4_SYNC"},
		{"ptpv1-l4-delay-req", "HWTSTAMP_FILTER_PTP_V1_L4_DELAY_REQ"}, {"ptpv2-l4-event", "HWTSTAMP_FILTER_PTP_V2_L4_EVENT"},
		{"ptpv2-l4-sync", "HWTSTAMP_FILTER_PTP_V2_L4_SYNC"}, {"ptpv2-l4-delay-req", "HWTSTAMP_FILTER_PTP_V2_L4_DELAY_REQ"},
		{"ptpv2-l2-event", "HWTSTAMP_FILTER_PTP_V2_L2_EVENT"}, {"ptpv2-l2-sync", "HWTSTAMP_FILTER_PTP_V2_L2_SYNC"},
		{"ptpv2-l2-delay-req", "HWTSTAMP_FILTER_PTP_V2_L2_DELAY_REQ"}, {"ptpv2-event", "HWTSTAMP_FILTER_PTP_V2_EVENT"},
		{"ptpv2-sync", "HWTSTAMP_FILTER_PTP_V2_SYNC"}, {"ptpv2-delay-req", "HWTSTAMP_FILTER_PTP_V2_DELAY_REQ"},
		{"ntp-all", "HWTSTAMP_FILTER_NTP_ALL"},
	}
)

// timeInfo returns the structure. Of a NIC of Hyper-V all that there is is made by the
// stack above the driver.
func (c *call) timeInfo() ([]byte, error) {
	b := request(timeLen, layout.GETTSINFO)
	d, err := c.lookup(c.name)
	if err != nil {
		return nil, err
	}
	if a, ok := d.(Asker); ok {
		_, err := a.Ask(b)
		return b, err
	}
	const software = 1<<1 | 1<<3 | 1<<4
	order.PutUint32(b[timeCan:], software)
	order.PutUint32(b[timeClock:], 1<<32-1)
	return b, nil
}

// showTime is -T.
func (c *call) showTime() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Time stamping parameters for %s:\n", c.name)
	b, err := c.timeInfo()
	if err != nil {
		return c.fail(exitMinus, "Cannot get device time stamping settings: %s", errText(err))
	}
	c.printf("Capabilities:\n")
	c.printTimes(timeCans, word(b, timeCan))
	if clock := int32(word(b, timeClock)); clock >= 0 {
		c.printf("PTP Hardware Clock: %d\n", clock)
	} else {
		c.printf("PTP Hardware Clock: none\n")
	}
	for _, w := range []struct {
		title string
		names timeWord
		bits  uint32
	}{
		{"Hardware Transmit Timestamp Modes", timeTypes, word(b, timeTx)},
		{"Hardware Receive Filter Modes", timeFilters, word(b, timeFilter)},
	} {
		if w.bits == 0 {
			c.printf("%s: none\n", w.title)
			continue
		}
		c.printf("%s:\n", w.title)
		c.printTimes(w.names, w.bits)
	}
	return 0
}

func (c *call) printTimes(names timeWord, bits uint32) {
	for i, n := range names {
		if bits>>i&1 != 0 {
			c.printf("\t%-21s (%s)\n", n[0], n[1])
		}
	}
}

// showAddress is -P, which looks at no more arguments.
func (c *call) showAddress() int {
	const room = 32 // for the longest address of any kind of interface
	b := request(8+room, layout.GPERMADDR, room)
	d, err := c.deviceFor(b)
	if err != nil {
		return c.fail(exitMinus, "Cannot read permanent address: %s", errText(err))
	}
	address := b[8:][:min(word(b, 4), room)]
	if _, ok := d.(Asker); !ok {
		mac := d.PermanentMAC()
		address = mac[:]
	}
	c.printf("Permanent address:")
	for i, x := range address {
		c.printf("%c%02x", " :"[min(i, 1)], x)
	}
	c.printf("\n")
	return 0
}
