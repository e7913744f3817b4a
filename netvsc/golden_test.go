package netvsc

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// unhex turns a dump into n bytes, zeros behind what it shows.
func unhex(t *testing.T, n int, dump string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(dump), ""))
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, n-len(b))...)
}

// TestGolden holds the driver's bring-up against what Linux hv_netvsc puts into its
// ring on a host of NVSP 6.1. The capabilities in NDIS_CONFIG and the offloads that
// are asked for are this driver's own.
func TestGolden(t *testing.T) {
	h := newFakeHost()
	h.lastGPADL = 0xe1e10 // Linux shares its rings first
	h.queues = 2
	h.vps = 2
	var packets, messages [][]byte
	h.onPacket = func(index int, b []byte) {
		if index == 0 && b[0] != 0x0b {
			packets = append(packets, bytes.Clone(b))
		}
	}
	h.onRNDIS = func(m []byte) { messages = append(messages, bytes.Clone(m)) }
	open(t, h, Config{})

	for i, want := range [][]byte{
		unhex(t, 56, `06 00 02 00 07 00 01 00 01 00 00 00 00 00 00 00  01 00 00 00 01 00 06 00 01 00 06 00`),
		unhex(t, 56, `06 00 02 00 07 00 00 00 fd ff ff ff ff ff ff ff  7d 00 00 00 ea 05 00 00 00 00 00 00 a8 00 00 00`),
		unhex(t, 56, `06 00 02 00 07 00 00 00 fd ff ff ff ff ff ff ff  64 00 00 00 06 00 00 00 1e 00 00 00`),
		unhex(t, 56, `06 00 02 00 07 00 01 00 01 00 00 00 01 00 00 00  65 00 00 00 11 1e 0e 00 fe ca`),
		unhex(t, 56, `06 00 02 00 07 00 01 00 01 00 00 00 02 00 00 00  68 00 00 00 12 1e 0e 00`),
	} {
		if i >= len(packets) || !bytes.Equal(packets[i], want) {
			t.Errorf("packet %d is\n%s, want\n%s", i, hex.Dump(packets[i]), hex.Dump(want))
		}
	}
	// A control message: one range, channel 1, no section.
	b := packets[5]
	pfn := b[32:40:40]
	want := append(unhex(t, 32, `09 00 05 00 0a 00 01 00 01 00 00 00 03 00 00 00  00 00 00 00 01 00 00 00 18 00 00 00 00 00 00 00`), pfn...)
	want = append(want, unhex(t, 40, `6b 00 00 00 01 00 00 00 ff ff ff ff 00 00 00 00`)...)
	if !bytes.Equal(b, want) {
		t.Errorf("control packet is\n%s, want\n%s", hex.Dump(b), hex.Dump(want))
	}

	rss := func(id, flags byte) []byte {
		m := unhex(t, 28+40, `05 00 00 00 6c 02 00 00 `+hex.EncodeToString([]byte{id})+` 00 00 00 04 02 01 00
			50 02 00 00 14 00 00 00 00 00 00 00 89 02 28 00  `+hex.EncodeToString([]byte{flags})+` 00 00 00 01 17 00 00 00 02 00 00 28 00 00 00
			28 00 00 00 28 02 00 00`)
		for i := range 128 {
			m = append(m, byte(i%2), 0, 0, 0)
		}
		return append(m, unhex(t, 40, `6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa`)...)
	}
	wanted := [][]byte{
		unhex(t, 24, `02 00 00 00 18 00 00 00 01 00 00 00 01 00 00 00  00 00 00 00 00 40 00 00`),
		unhex(t, 28, `04 00 00 00 1c 00 00 00 02 00 00 00 06 01 01 00  00 00 00 00 14 00 00 00`),
		unhex(t, 28, `04 00 00 00 1c 00 00 00 03 00 00 00 01 01 01 01  00 00 00 00 14 00 00 00`),
		unhex(t, 28, `04 00 00 00 1c 00 00 00 04 00 00 00 16 02 02 00  00 00 00 00 14 00 00 00`),
		unhex(t, 184, `04 00 00 00 b8 00 00 00 05 00 00 00 0d 02 01 fc  9c 00 00 00 14 00 00 00 00 00 00 00 a7 03 9c 00`),
		unhex(t, 56, `05 00 00 00 38 00 00 00 06 00 00 00 0c 02 01 fc  1c 00 00 00 14 00 00 00 00 00 00 00 80 03 1c 00
			01 01 01 01 01 00 00 01 01 00 00 00 00 00 00 00  00 00 01 01 00 00 00 00`),
		unhex(t, 28, `04 00 00 00 1c 00 00 00 07 00 00 00 14 01 01 00  00 00 00 00 14 00 00 00`),
		unhex(t, 28, `04 00 00 00 1c 00 00 00 08 00 00 00 07 01 01 00  00 00 00 00 14 00 00 00`),
		nil, // RSS capabilities: below
		rss(10, 0x10),
		rss(11, 0),
	}
	if len(messages) != len(wanted) {
		t.Fatalf("%d control messages, want %d", len(messages), len(wanted))
	}
	for i, want := range wanted {
		if want != nil && !bytes.Equal(messages[i], want) {
			t.Errorf("control message %d is\n%s, want\n%s", i, hex.Dump(messages[i]), hex.Dump(want))
		}
	}
	if caps := messages[8]; !bytes.HasPrefix(caps[28:], []byte{0x88, 2, 18, 0}) {
		t.Errorf("query of RSS capabilities is\n%s", hex.Dump(caps))
	}
}
