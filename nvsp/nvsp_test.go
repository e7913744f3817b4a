package nvsp

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A message is a golden message with its parser.
type message struct {
	name  string
	bytes string // bare, in hexadecimal
	value appender
	parse func([]byte) (any, error)
}

type appender interface{ Append([]byte) []byte }

func parser[T any](f func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return f(b) }
}

func tableParser(v Version) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return ParseIndirectionTable(b, v) }
}

// Messages as Linux 6.1 and a host exchanged them, without descriptor and padding;
// those that were not seen are from the layouts.
var golden = []message{
	{"INIT", "01000000 01000600 01000600", Init{V61, V61}, parser(ParseInit)},
	{"INIT_COMPLETE", "02000000 01000600 22000000 01000000", InitComplete{uint32(V61), 34, StatusSuccess}, parser(ParseInitComplete)},
	{"NDIS_CONFIG", "7d000000 ea050000 00000000 ac00000000000000",
		NDISConfig{1514, CapSRIOV | CapVLAN | CapTeaming | CapRSC}, parser(ParseNDISConfig)},
	{"NDIS_VERSION", "64000000 06000000 1e000000", NDISVersion{6, 30}, parser(ParseNDISVersion)},
	{"SEND_RECEIVE_BUFFER", "65000000 111e0e00 feca0000", SendReceiveBuffer{0xe1e11, ReceiveBufferID}, parser(ParseSendReceiveBuffer)},
	{"SEND_RECEIVE_BUFFER_COMPLETE", "66000000 01000000 01000000 00000000 c0060000 ed250000 c0ffff00",
		SendReceiveBufferComplete{StatusSuccess, []ReceiveSection{{0, 1728, 9709, 0xffffc0}}}, parser(ParseSendReceiveBufferComplete)},
	{"SEND_SEND_BUFFER", "68000000 121e0e00 00000000", SendSendBuffer{0xe1e12, SendBufferID}, parser(ParseSendSendBuffer)},
	{"SEND_SEND_BUFFER_COMPLETE", "69000000 01000000 00180000", SendSendBufferComplete{StatusSuccess, 6144}, parser(ParseSendSendBufferComplete)},
	{"RNDIS_PACKET control", "6b000000 01000000 ffffffff 00000000", RNDISPacket{ChannelControl, NoSection, 0}, parser(ParseRNDISPacket)},
	{"RNDIS_PACKET data", "6b000000 00000000 01000000 9e000000", RNDISPacket{ChannelData, 1, 158}, parser(ParseRNDISPacket)},
	{"RNDIS_PACKET_COMPLETE", "6c000000 01000000", RNDISPacketComplete{StatusSuccess}, parser(ParseRNDISPacketComplete)},
	{"SUBCHANNEL request", "85000000 01000000 01000000", SubChannelRequest{SubChannelAllocate, 1}, parser(ParseSubChannelRequest)},
	{"SUBCHANNEL completion", "85000000 01000000 01000000", SubChannelComplete{StatusSuccess, 1}, parser(ParseSubChannelComplete)},
	{"INDIRECTION_TABLE", "86000000 10000000 0c000000" + strings.Repeat("00000000 01000000", 8),
		IndirectionTable{12, [16]uint32{1: 1, 3: 1, 5: 1, 7: 1, 9: 1, 11: 1, 13: 1, 15: 1}}, tableParser(V61)},
	{"REVOKE_RECEIVE_BUFFER", "67000000 feca0000", RevokeReceiveBuffer{ReceiveBufferID}, parser(ParseRevokeReceiveBuffer)},
	{"REVOKE_SEND_BUFFER", "6a000000 00000000", RevokeSendBuffer{SendBufferID}, parser(ParseRevokeSendBuffer)},
	{"VF_ASSOCIATION", "80000000 01000000 02000000", VFAssociation{true, 2}, parser(ParseVFAssociation)},
	{"SWITCH_DATA_PATH", "81000000 01000000", SwitchDataPath{PathVF}, parser(ParseSwitchDataPath)},
	{"OID_QUERY_EX", "83000000 88021200 03020100", OIDQueryEx{0x88, 2, 18, 0x10203}, parser(ParseOIDQueryEx)},
	{"ALLOCATE_RECEIVE_BUFFER", "78000000 07000000 00001000", AllocateReceiveBuffer{7, 1 << 20}, parser(ParseAllocateReceiveBuffer)},
	{"ALLOCATE_RECEIVE_BUFFER_COMPLETE", "79000000 02000000 07000000 111e0e00 8877665544332211",
		AllocateReceiveBufferComplete{StatusFail, 7, 0xe1e11, 0x1122334455667788}, parser(ParseAllocateReceiveBufferComplete)},
	{"FREE_RECEIVE_BUFFER", "7a000000 8877665544332211", FreeReceiveBuffer{0x1122334455667788}, parser(ParseFreeReceiveBuffer)},
	{"PD CONFIGURE", "87000000 01000000 8877665544332211 00100000 0400",
		PDRequest{Op: PDConfigure, MMIO: 0x1122334455667788, MMIOLen: 4096, Queues: 4}, parser(ParsePDRequest)},
	{"PD SWITCH_PATH", "87000000 02000000 01 00", PDRequest{Op: PDSwitchPath, HostPD: true}, parser(ParsePDRequest)},
	{"PD OPEN", "87000000 03000000 05000000 06000000", PDRequest{Op: PDOpen, Provider: 5, Flags: 6}, parser(ParsePDRequest)},
	{"PD CLOSE", "87000000 04000000 05000000", PDRequest{Op: PDClose, Provider: 5}, parser(ParsePDRequest)},
	{"PD CREATE_QUEUE", "87000000 05000000 05000000 0200 0001 01 00 ee050000 0f00000000000000 0300 000000000000",
		PDRequest{Op: PDCreateQueue, Provider: 5, QueueID: 2, QueueSize: 256, Receive: true, ReceiveLen: 1518,
			Affinity: PDAffinity{Mask: 15, Group: 3}}, parser(ParsePDRequest)},
	{"PD FLUSH_QUEUE", "87000000 06000000 05000000 0200", PDRequest{Op: PDFlushQueue, Provider: 5, QueueID: 2}, parser(ParsePDRequest)},
	{"PD FREE_QUEUE", "87000000 07000000 05000000 0200", PDRequest{Op: PDFreeQueue, Provider: 5, QueueID: 2}, parser(ParsePDRequest)},
	{"PD ALLOCATE_BUFFER", "87000000 08000000 00100000 01000000 0900",
		PDRequest{Op: PDAllocateBuffer, Length: 4096, Node: 1, Region: 9}, parser(ParsePDRequest)},
	{"PD FREE_BUFFER", "87000000 09000000 00100000 0000000001000000 01000000 0900 02",
		PDRequest{Op: PDFreeBuffer, Length: 4096, Address: 1 << 32, Node: 1, Region: 9, Cache: 2}, parser(ParsePDRequest)},
	{"PD CONFIGURE completion", "87000000 01000000 01000000 0400 02 01 00",
		PDComplete{Op: PDConfigure, Status: StatusSuccess, Queues: 4, RSSQueues: 2, Supported: true}, parser(ParsePDComplete)},
	{"PD SWITCH_PATH completion", "87000000 02000000 02000000", PDComplete{Op: PDSwitchPath, Status: StatusFail}, parser(ParsePDComplete)},
	{"PD OPEN completion", "87000000 03000000 01000000 05000000", PDComplete{Op: PDOpen, Status: StatusSuccess, Provider: 5}, parser(ParsePDComplete)},
	{"PD CREATE_QUEUE completion", "87000000 05000000 01000000 05000000 0200 0001 ee050000 0f00000000000000 0300 000000000000",
		PDComplete{Op: PDCreateQueue, Status: StatusSuccess, Provider: 5, QueueID: 2, QueueSize: 256, ReceiveLen: 1518,
			Affinity: PDAffinity{Mask: 15, Group: 3}}, parser(ParsePDComplete)},
	{"PD ALLOCATE_BUFFER completion", "87000000 08000000 01000000 0000000001000000 00100000 01000000 0900 02",
		PDComplete{Op: PDAllocateBuffer, Status: StatusSuccess, Address: 1 << 32, Length: 4096, Node: 1, Region: 9, Cache: 2}, parser(ParsePDComplete)},
	{"PD_POST_BATCH", "88000000 0200 0300 00100000 0900 0100 00180000 0900 0000",
		PDPostBatch{PDFromGuest | PDReceive, []PDEntry{{4096, 9, true}, {6144, 9, false}}}, parser(ParsePDPostBatch)},
	{"OID_QUERY_EX_COMPLETE", "84000000 bb0000c0 00000000", OIDQueryExComplete{0xc00000bb, 0}, parser(ParseOIDQueryExComplete)},
}

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.bytes)
			prefix := []byte("prefix")
			if got := g.value.Append(prefix)[len(prefix):]; !reflect.DeepEqual(got, want) {
				t.Errorf("Append:\n got %x\nwant %x", got, want)
			}
			for _, size := range []int{len(want), 28, MaxSize, 48} { // bare, padded, rounded up on the wire
				if got, err := g.parse(Pad(want[:len(want):len(want)], 0, size)); err != nil || !reflect.DeepEqual(got, g.value) {
					t.Errorf("Parse of %d bytes: %+v, %v; want %+v", size, got, err, g.value)
				}
			}
			if _, err := g.parse(want[:len(want)-3]); !errors.Is(err, ErrMalformed) {
				t.Errorf("Parse of a cut message: %v, want ErrMalformed", err)
			}
			other := append([]byte(nil), want...)
			other[0] ^= 0x40
			if _, err := g.parse(other); !errors.Is(err, ErrMalformed) {
				t.Errorf("Parse of another type: %v, want ErrMalformed", err)
			}
			if _, err := g.parse(nil); !errors.Is(err, ErrMalformed) {
				t.Errorf("Parse of nothing: %v, want ErrMalformed", err)
			}
		})
	}
}

func roundTrip[T appender](t *testing.T, parse func([]byte) (T, error), fix func(*T)) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.Make[T]().Draw(t, "message")
		if fix != nil {
			fix(&m)
		}
		got, err := parse(Pad(m.Append(nil), 0, rapid.SampledFrom([]int{0, 28, 40}).Draw(t, "size")))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("round trip of %+v: %+v, %v", m, got, err)
		}
	})
}

func TestRoundTrip(t *testing.T) {
	roundTrip(t, ParseInit, nil)
	roundTrip(t, ParseInitComplete, nil)
	roundTrip(t, ParseNDISVersion, nil)
	roundTrip(t, ParseNDISConfig, nil)
	roundTrip(t, ParseSendReceiveBuffer, nil)
	roundTrip(t, ParseSendReceiveBufferComplete, func(m *SendReceiveBufferComplete) {
		if len(m.Sections) == 0 {
			m.Sections = nil
		}
	})
	roundTrip(t, ParseRevokeReceiveBuffer, nil)
	roundTrip(t, ParseAllocateReceiveBuffer, nil)
	roundTrip(t, ParseAllocateReceiveBufferComplete, nil)
	roundTrip(t, ParseFreeReceiveBuffer, nil)
	roundTrip(t, ParsePDRequest, func(m *PDRequest) {
		m.Op %= PDFreeBuffer + 2
		m.Affinity = PDAffinity{Mask: m.Affinity.Mask, Group: m.Affinity.Group}
		only := PDRequest{Op: m.Op}
		for i, f := range only.fields() {
			reflect.ValueOf(f).Elem().Set(reflect.ValueOf(m.fields()[i]).Elem())
		}
		*m = only
	})
	roundTrip(t, ParsePDComplete, func(m *PDComplete) {
		m.Op %= PDFreeBuffer + 2
		m.Affinity = PDAffinity{Mask: m.Affinity.Mask, Group: m.Affinity.Group}
		only := PDComplete{Op: m.Op, Status: m.Status}
		for i, f := range only.fields() {
			reflect.ValueOf(f).Elem().Set(reflect.ValueOf(m.fields()[i]).Elem())
		}
		*m = only
	})
	roundTrip(t, ParsePDPostBatch, func(m *PDPostBatch) {
		if len(m.Entries) == 0 {
			m.Entries = nil
		}
	})
	roundTrip(t, ParseSendSendBuffer, nil)
	roundTrip(t, ParseSendSendBufferComplete, nil)
	roundTrip(t, ParseRevokeSendBuffer, nil)
	roundTrip(t, ParseRNDISPacket, nil)
	roundTrip(t, ParseRNDISPacketComplete, nil)
	roundTrip(t, ParseSubChannelRequest, nil)
	roundTrip(t, ParseSubChannelComplete, nil)
	roundTrip(t, ParseVFAssociation, nil)
	roundTrip(t, ParseSwitchDataPath, nil)
	roundTrip(t, ParseOIDQueryEx, nil)
	roundTrip(t, ParseOIDQueryExComplete, nil)
	roundTrip(t, func(b []byte) (IndirectionTable, error) { return ParseIndirectionTable(b, V61) },
		func(m *IndirectionTable) { m.Offset = 12 + m.Offset%500 })
}

func TestIndirectionTableOffset(t *testing.T) {
	// entry i of the table at 12 is i, of the one at 40 100+i.
	build := func(count, offset uint32, size int) []byte {
		b := appendWords(nil, TypeIndirectionTable, count, offset)
		b = Pad(b, 0, size)
		for i := range uint32(16) {
			if 12+4*int(i)+4 <= size {
				le.PutUint32(b[12+4*i:], i)
			}
		}
		for i := range uint32(16) {
			if 40+4*int(i)+4 <= size {
				le.PutUint32(b[40+4*i:], 100+i)
			}
		}
		return b
	}
	for _, c := range []struct {
		name          string
		v             Version
		count, offset uint32
		size          int
		offsetWant    uint32 // 0: malformed
	}{
		{"new host, right behind the header", V61, 16, 12, 76, 12},
		{"new host, behind a whole message", V61, 16, 40, 104, 40},
		{"new host is taken at its word", V61, 16, 12, 104, 12},
		{"old host, long message: the offset is wrong", V6, 16, 12, 104, 40},
		{"old host, long message, offset beyond the end", V5, 16, 1 << 31, 112, 40},
		{"old host, short message: the offset counts", V6, 16, 12, 80, 12},
		{"old host, short message, offset beyond the end", V6, 16, 24, 80, 0},
		{"count too small", V61, 15, 12, 76, 0},
		{"count too large", V61, 17, 12, 104, 0},
		{"table ends beyond the message", V61, 16, 13, 76, 0},
		{"offset wraps", V61, 16, 0xffffffff, 76, 0},
		{"table over the header", V61, 16, 8, 76, 0},
		{"message too short for a table", V61, 16, 12, 72, 0},
	} {
		m, err := ParseIndirectionTable(build(c.count, c.offset, c.size), c.v)
		if c.offsetWant == 0 {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %+v, %v; want ErrMalformed", c.name, m, err)
			}
			continue
		}
		if err != nil || m.Offset != c.offsetWant {
			t.Errorf("%s: offset %d, %v; want %d", c.name, m.Offset, err, c.offsetWant)
		}
		if c.offsetWant == 40 && m.Table[5] != 105 {
			t.Errorf("%s: entry 5 is %d", c.name, m.Table[5])
		}
	}
}

func TestOnlySection(t *testing.T) {
	const buffer = 1 << 20
	for _, c := range []struct {
		name     string
		sections []ReceiveSection
		ok       bool
	}{
		{"one that fits", []ReceiveSection{{0, 1024, 1024, 1 << 20}}, true},
		{"none", nil, false},
		{"two", []ReceiveSection{{0, 1024, 1, 1024}, {1024, 1024, 1, 2048}}, false},
		{"not at the start", []ReceiveSection{{8, 1024, 1, 1032}}, false},
		{"size too small", []ReceiveSection{{0, MinSection - 1, 1, 67}}, false},
		{"smallest size", []ReceiveSection{{0, MinSection, 1, MinSection}}, true},
		{"no parts", []ReceiveSection{{0, 1024, 0, 0}}, false},
		{"one too many", []ReceiveSection{{0, 1024, 1025, 0}}, false},
		{"product wraps in 32 bits", []ReceiveSection{{0, 1 << 16, 1 << 16, 0}}, false},
	} {
		s, err := SendReceiveBufferComplete{StatusSuccess, c.sections}.Only(buffer)
		if c.ok != (err == nil) || c.ok && s != c.sections[0] || !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", c.name, s, err)
		}
	}
}

func TestSectionCountBeyondMessage(t *testing.T) {
	for _, n := range []uint32{2, 1 << 28, 0xffffffff} {
		b := Pad(appendWords(nil, TypeSendReceiveBufferComplete, 1, n), 0, 28)
		if m, err := ParseSendReceiveBufferComplete(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d sections in 28 bytes: %+v, %v", n, m, err)
		}
	}
}

func TestVersions(t *testing.T) {
	want := []struct {
		v       Version
		word    uint32
		name    string
		size    int
		highest MessageType
		ndis    string
		receive int
	}{
		{V61, 0x60001, "6.1", 40, 136, "6.30", 31 << 20},
		{V6, 0x60000, "6", 28, 136, "6.30", 31 << 20},
		{V5, 0x50000, "5", 28, 134, "6.30", 31 << 20},
		{V4, 0x40000, "4", 28, 130, "6.1", 31 << 20},
		{V2, 0x30002, "2", 28, 127, "6.1", 15 << 20},
		{V1, 0x2, "1", 28, 108, "6.1", 15 << 20},
	}
	if len(Versions()) != len(want) {
		t.Fatalf("Versions: %v", Versions())
	}
	for i, v := range Versions() {
		w := want[i]
		if v != w.v || uint32(v) != w.word || v.String() != w.name || v.Size() != w.size ||
			v.Highest() != w.highest || v.NDIS().String() != w.ndis || v.MaxReceiveBuffer() != w.receive || !v.Known() {
			t.Errorf("version %v (0x%x): size %d, highest %v, NDIS %v, receive buffer %d; want %+v",
				v, uint32(v), v.Size(), v.Highest(), v.NDIS(), v.MaxReceiveBuffer(), w)
		}
	}
	if v := Version(0x30000); v.Known() || v.Allows(TypeNDISVersion) {
		t.Errorf("%v: known", v)
	}
}

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		v  Version
		t  MessageType
		ok bool
	}{
		{V1, TypeInit, true}, {V1, TypeRNDISPacketComplete, true}, {V1, TypeNDISConfig, false},
		{V2, TypeNDISConfig, true}, {V2, TypeVFAssociation, false}, {V4, TypeVFAssociation, true}, {V4, TypeSubChannel, false},
		{V5, TypeSubChannel, true}, {V5, TypeIndirectionTable, true}, {V5, 135, false}, {V6, 135, true},
		{V61, TypePDPostBatch, true}, {V61, 137, false}, {V61, TypeNone, false}, {V61, 3, false}, {V61, 99, false},
	} {
		if got := c.v.Allows(c.t); got != c.ok {
			t.Errorf("version %v allows %v: %v", c.v, c.t, got)
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]MessageType{}
	for n := TypeInit; n <= TypePDPostBatch; n++ {
		name := n.String()
		if other, ok := seen[name]; ok {
			t.Errorf("types %d and %d are both %s", n, other, name)
		}
		seen[name] = n
		if named := !strings.HasPrefix(name, "NVSP type"); named != V61.Allows(n) {
			t.Errorf("type %d is %s", n, name)
		}
	}
	if s := StatusBusy.Error(); s != "NVSP status busy" {
		t.Error(s)
	}
	if s := Status(77).String(); s != "unknown status 77" {
		t.Error(s)
	}
}

// FuzzParse: no message can do harm, and what is accepted means the same when
// written again.
func FuzzParse(f *testing.F) {
	for _, g := range golden {
		f.Add(Pad(unhex(f, g.bytes), 0, MaxSize))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, g := range golden {
			m, err := g.parse(b)
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("%s: %v is not ErrMalformed", g.name, err)
				}
				continue
			}
			again, err := g.parse(m.(appender).Append(nil))
			if err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("%s: %+v, again %+v, %v", g.name, m, again, err)
			}
		}
		for _, v := range Versions() {
			if m, err := ParseIndirectionTable(b, v); err == nil && int(m.Offset)+64 > len(b) {
				t.Fatalf("version %v: table at %d of %d bytes", v, m.Offset, len(b))
			}
		}
	})
}

func TestDataPathDoesNotAllocate(t *testing.T) {
	var b [MaxSize]byte
	if n := testing.AllocsPerRun(100, func() {
		m := RNDISPacket{ChannelData, 3, 100}
		w := Pad(m.Append(b[:0]), 0, MaxSize)
		if got, err := ParseRNDISPacket(w); err != nil || got != m {
			t.Fatal(got, err)
		}
		w = RNDISPacketComplete{StatusSuccess}.Append(b[:0])
		if _, err := ParseRNDISPacketComplete(w); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
