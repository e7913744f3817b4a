package netvsp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A golden line is one entry of a transcript.
type goldenLine struct {
	what    string // "guest", "content", "completion", "notice", "answer"
	channel int
	b       []byte
}

func readGolden(t *testing.T, name string) (list []goldenLine) {
	t.Helper()
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	pad := func() {
		if k := len(list) - 1; k >= 0 {
			list[k].b = nvsp.Pad(list[k].b, 0, size)
		}
	}
	for line := range strings.Lines(string(file)) {
		switch line = strings.TrimRight(line, "\n"); {
		case line == "", line[0] == '#':
		case line[0] == ' ':
			b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			list[len(list)-1].b = append(list[len(list)-1].b, b...)
		default:
			pad()
			var g goldenLine
			if _, err := fmt.Sscanf(line, "guest channel %d %d", &g.channel, &size); err == nil {
				g.what = "guest"
			} else if _, err := fmt.Sscanf(line, "%s %d", &g.what, &size); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			list = append(list, g)
		}
	}
	pad()
	return list
}

// TestGolden lets the recorded bytes of a real guest meet the device.
func TestGolden(t *testing.T) {
	g := newGuest(t, "ws2022")
	big := g.alloc(16 << 20)
	g.bus.gpadls[0xe1e11] = pfns(big)
	g.bus.gpadls[0xe1e12] = pfns(g.alloc(1044480))
	send := g.bus.gpadls[0xe1e12]
	g.recv, g.size = big, 1806
	channels := []*channel.Channel{g.ch, nil}
	type transfer struct {
		ch *channel.Channel
		p  vmbus.Packet
	}
	var transfers []transfer // not completed yet
	var answers [][]byte
	lines := readGolden(t, "testdata/linux-6.1.txt")
	if len(lines) < 80 {
		t.Fatalf("%d lines", len(lines))
	}
	// await returns the next packet of the given type; others are kept.
	inbox := map[*channel.Channel][]vmbus.Packet{}
	await := func(ch *channel.Channel, typ uint16) vmbus.Packet {
		t.Helper()
		for {
			for i, p := range inbox[ch] {
				if p.Type == typ {
					inbox[ch] = slices.Delete(inbox[ch], i, i+1)
					return p
				}
			}
			p := g.next(ch)
			if p.Type == vmbus.PacketTransferPages {
				transfers = append(transfers, transfer{ch, p})
				answers = append(answers, g.messages(p)...)
			}
			inbox[ch] = append(inbox[ch], p)
		}
	}
	var ch *channel.Channel
	var frames [][]byte
	for i, l := range lines {
		switch l.what {
		case "guest":
			if l.channel == 1 && channels[1] == nil {
				t.Fatal("a packet on channel 1 before it was granted")
			}
			ch = channels[l.channel]
			b := bytes.Clone(l.b)
			if i+1 < len(lines) && lines[i+1].what == "content" {
				content := lines[i+1].b
				if b[0] == vmbus.PacketGPADirect {
					binary.LittleEndian.PutUint64(b[32:], g.page.PFN(0))
					copy(g.page.Bytes[binary.LittleEndian.Uint32(b[28:]):], content)
				} else {
					section := binary.LittleEndian.Uint32(b[24:])
					mem, err := g.bus.mem.Map(send)
					if err != nil {
						t.Fatal(err)
					}
					copy(mem.Bytes[section*6144:], content)
					mem.Close()
				}
				if rndis.MessageType(content[0]) == rndis.TypePacket {
					off, n := binary.LittleEndian.Uint32(content[8:]), binary.LittleEndian.Uint32(content[12:])
					frames = append(frames, content[8+off:][:n])
				}
			}
			if b[0] == vmbus.PacketCompletion {
				if len(transfers) == 0 {
					continue // of a frame to the guest, of which there are none here
				}
				ch = transfers[0].ch
				binary.LittleEndian.PutUint64(b[8:], transfers[0].p.TID)
				transfers = transfers[1:]
			}
			g.put(ch, b, nil)
		case "completion":
			p := await(ch, vmbus.PacketCompletion)
			if want, err := vmbus.ParsePacket(l.b); err != nil || p.TID != want.TID || !bytes.Equal(p.Payload, want.Payload) {
				t.Fatalf("line %d: completion of %d is\n%x, want of %d\n%x", i, p.TID, p.Payload, want.TID, want.Payload)
			}
			if binary.LittleEndian.Uint32(p.Payload) == uint32(nvsp.TypeSubChannel) {
				if n := <-g.bus.offered; n != 1 {
					t.Fatalf("%d sub-channels offered", n)
				}
				guest, host := g.pair(1)
				if err := g.backend.Open(host); err != nil {
					t.Fatal(err)
				}
				channels[1] = guest
			}
		case "notice":
			p := await(g.ch, vmbus.PacketInBand)
			if want, _ := vmbus.ParsePacket(l.b); !bytes.Equal(p.Payload, want.Payload) || p.Flags != want.Flags {
				t.Fatalf("line %d: notice is\n%x, want\n%x", i, p.Payload, want.Payload)
			}
		case "answer":
			for len(answers) == 0 {
				await(g.ch, vmbus.PacketTransferPages)
			}
			if !bytes.Equal(answers[0], l.b) {
				t.Fatalf("line %d: answer is\n%x, want\n%x", i, answers[0], l.b)
			}
			answers = answers[1:]
		}
	}
	for i, b := range g.port.take(t, len(frames)) {
		if !bytes.Equal(b, frames[i]) {
			t.Errorf("frame %d is\n%x, want\n%x", i, b, frames[i])
		}
	}
	g.ask(nvsp.OIDQueryEx{}.Append(nil)) // a round trip: the revokes have been seen
	info := g.dev.Info()
	if info.Faults != 0 || info.Failures != 0 || info.ReceiveSections != 0 || info.SendSections != 0 || info.Receive.InFlight != 0 {
		t.Errorf("at the end: %+v", info)
	}
}
