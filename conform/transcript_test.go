package conform

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/rule"
	"hvnet/vmbus"
)

// recorder returns a transcript and what it writes.
func recorder() (*Transcript, *[]string) {
	lines := new([]string)
	return NewTranscript(Config{Line: func(s string) { *lines = append(*lines, s) }}), lines
}

// TestFaults: the first fault has its rule and the place, later ones of the rule are
// counted, and told when their number has doubled.
func TestFaults(t *testing.T) {
	tr, lines := recorder()
	for range 5 {
		tr.Broken(fmt.Errorf("GPADL_BODY: %w", rule.GPADLBody.Broken("no GPADL waits for it")))
	}
	tr.Broken(errors.New("no rule"))
	want := []string{
		"fault  GPADL_BODY: no GPADL waits for it",
		"       broken rule gpadl-body: GPADL_BODY goes on with a GPADL whose list is not complete",
		"       written in Linux include/linux/hyperv.h, struct vmbus_channel_gpadl_body",
		"fault  GPADL_BODY: no GPADL waits for it (rule gpadl-body, 2 times so far)",
		"fault  GPADL_BODY: no GPADL waits for it (rule gpadl-body, 4 times so far)",
	}
	if !slices.Equal(*lines, want) {
		t.Errorf("lines\n%s", strings.Join(*lines, "\n"))
	}
}

// TestSaid: each message comes with its bytes, what can't be decoded too, and what is no
// message without.
func TestSaid(t *testing.T) {
	var got []string
	tr := NewTranscript(Config{Said: func(s Said) {
		got = append(got, fmt.Sprintf("%v %s %d: %s", s.From, s.Protocol, len(s.Bytes), s.Text))
	}})
	packet := func(from Side, payload, content []byte) {
		tr.Packet(from, 7, finished(vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, 5), payload), content)
	}
	tr.Message(Guest, []byte{1})
	tr.Message(Host, vmbus.OpenResult{Relid: 7, OpenID: 1}.Append(nil))
	packet(Guest, nvsp.RNDISPacket{Channel: nvsp.ChannelControl, Section: 1, SectionBytes: 12}.Append(nil), rndis.Halt{RequestID: 3}.Append(nil))
	tr.Packet(Host, 7, []byte{1, 2, 3}, nil)
	want := []string{
		"guest> VMBus 1: guest> vmbus: malformed message: 1 bytes, want 8 to 240",
		"host< VMBus 20: host<  OPENCHANNEL_RESULT relid 7, open ID 1, status 0x0 (20 bytes)",
		"guest>  0: stage open reached",
		"guest> NVSP 16: guest> relid 7: SEND_RNDIS_PACKET channel 1, section 0x1, section bytes 12 (in-band, 16 bytes, tid 0x5, wants completion)",
		"guest> RNDIS 12: guest> relid 7:   RNDIS HALT request ID 3 (12 bytes)",
		"host< VMBus 3: host<  relid 7: vmbus: malformed packet: lengths in the descriptor",
	}
	if !slices.Equal(got, want) {
		t.Errorf("said\n%s", strings.Join(got, "\n"))
	}
}

// TestStages: a stage is what the host agrees to, and begins anew with the channel or
// the connection.
func TestStages(t *testing.T) {
	var reached []Stage
	tr := NewTranscript(Config{Reached: func(s Stage) { reached = append(reached, s) }})
	open := func(relid, status uint32) {
		tr.Message(Host, vmbus.OpenResult{Relid: relid, OpenID: 1, Status: status}.Append(nil))
	}
	complete := func(tid uint64, s nvsp.Status) {
		tr.Packet(Host, 1, finished(vmbus.AppendCompletion(nil, tid), nvsp.RNDISPacketComplete{Status: s}.Append(nil)), nil)
	}
	frame := func(tid uint64) {
		m := nvsp.RNDISPacket{Channel: nvsp.ChannelData, Section: 3, SectionBytes: 86}
		head := make([]byte, 86)
		rndis.PutPacket(head, 42, nil)
		tr.Packet(Guest, 1, finished(vmbus.AppendInBand(nil, 1, tid), m.Append(nil)), head)
	}
	tr.Message(Guest, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2}.Append(nil))
	tr.Message(Host, vmbus.VersionResponse{}.Append(nil, vmbus.Version5_3)) // not supported
	tr.Message(Host, vmbus.VersionResponse{Supported: true, ConnID: 1}.Append(nil, vmbus.Version5_3))
	tr.Message(Host, vmbus.Offer{Relid: 1}.Append(nil, vmbus.Version5_3))
	tr.Message(Host, vmbus.Offer{Relid: 2, SubChannel: 1}.Append(nil, vmbus.Version5_3))
	tr.Message(Host, vmbus.AllOffersDelivered{}.Append(nil))
	tr.Message(Host, vmbus.GPADLCreated{Relid: 1, ID: 1, Status: vmbus.StatusUnsuccessful}.Append(nil))
	open(1, vmbus.StatusUnsuccessful)
	open(1, vmbus.StatusSuccess)
	frame(5)
	complete(6, nvsp.StatusSuccess) // of something else
	complete(5, nvsp.StatusFail)
	frame(5)
	complete(5, nvsp.StatusSuccess)
	complete(5, nvsp.StatusSuccess)
	open(2, vmbus.StatusSuccess)
	tr.Message(Guest, vmbus.CloseChannel{Relid: 1}.Append(nil))
	open(1, vmbus.StatusSuccess)
	frame(1)
	complete(1, nvsp.StatusSuccess)
	tr.Message(Guest, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2}.Append(nil))
	tr.Message(Host, vmbus.VersionResponse{Supported: true, ConnID: 1}.Append(nil, vmbus.Version5_3))
	want := []Stage{StageVersion, StageOffers, StageOpen, StageData, StageSubChannels, StageData, StageVersion}
	if !slices.Equal(reached, want) {
		t.Errorf("stages %v, want %v", reached, want)
	}
}

// finished is a packet as a consumer gets it, its length in it.
func finished(head, body []byte) []byte {
	b := append(head, body...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b[4] = byte(len(b) / 8)
	return b
}

// TestFramesAreCounted: of frames the first is written, then how many there were.
func TestFramesAreCounted(t *testing.T) {
	tr, lines := recorder()
	m := nvsp.RNDISPacket{Channel: nvsp.ChannelData, Section: nvsp.NoSection}
	head := make([]byte, 86)
	rndis.PutPacket(head, 42, nil)
	for i := range uint64(250) {
		tr.Packet(Guest, 1, finished(vmbus.AppendInBand(nil, 1, i), m.Append(nil)), head)
		tr.Packet(Host, 1, finished(vmbus.AppendCompletion(nil, i), nil), nil)
	}
	tr.Message(Guest, vmbus.CloseChannel{Relid: 1}.Append(nil))
	want := []string{
		"guest> relid 1: SEND_RNDIS_PACKET channel 0, section 0xffffffff, section bytes 0 (in-band, 16 bytes, tid 0x0, wants completion)",
		"guest> relid 1:   RNDIS PACKET length 86, data offset 44, data len 42 (86 bytes)",
		"host<  relid 1: completion, 0 bytes, tid 0x0",
		"guest> relid 1: 10 packets with frames in pages so far",
		"host<  relid 1: 10 empty completions so far",
		"guest> relid 1: 100 packets with frames in pages so far",
		"host<  relid 1: 100 empty completions so far",
		"guest> CLOSECHANNEL relid 1 (12 bytes)",
		"guest> relid 1: 250 packets with frames in pages in all",
		"host<  relid 1: 250 empty completions in all",
	}
	if !slices.Equal(*lines, want) {
		t.Errorf("lines\n%s\nwant\n%s", strings.Join(*lines, "\n"), strings.Join(want, "\n"))
	}
}

// FuzzTranscript: whatever a guest and a host say, there is a text, and no panic.
func FuzzTranscript(f *testing.F) {
	f.Add([]byte{0, 0, 14, 0, 0, 0}, []byte(nil))
	f.Add(append([]byte{0, 0}, vmbus.InitiateContact{Version: vmbus.Version5_3}.Append(nil)...), []byte(nil))
	f.Add(append([]byte{2, 1}, finished(vmbus.AppendInBand(nil, 1, 1), nvsp.RNDISPacket{Channel: 1}.Append(nil))...),
		rndis.Query{OID: rndis.OIDOffloadHardwareCaps, Info: make([]byte, 20)}.Append(nil))
	f.Add(append([]byte{3, 9}, finished(vmbus.AppendTransferPages(nil, 1, 0xcafe, []vmbus.ByteRange{{Count: 1, Offset: 2}}), nil)...),
		rndis.InitializeComplete{}.Append(nil))
	f.Fuzz(func(t *testing.T, b, content []byte) {
		if len(b) < 2 {
			return
		}
		n := 0
		tr := NewTranscript(Config{Line: func(string) { n++ }})
		side, data := Side(b[0]&1 != 0), b[2:]
		if b[0]&2 != 0 {
			tr.Packet(side, uint32(b[1]), data, content)
		} else {
			tr.Message(side, data)
		}
		if n == 0 {
			t.Error("nothing is written")
		}
	})
}
