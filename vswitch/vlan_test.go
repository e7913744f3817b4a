package vswitch

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
)

func TestParseVLAN(t *testing.T) {
	for text, want := range map[string]string{
		"untagged": "", "access=1": "", "access=4094": "",
		"trunk=10": "", "trunk=10,20-30,native=1": "", "trunk=all": "", "trunk=all,native=10": "",
		"trunk=3,2,1,5-6":      "trunk=1-3,5-6",
		"trunk=native=0,1-2":   "trunk=1-2",
		"trunk=63-64,127,1-62": "trunk=1-64,127",
		"trunk=1-4094":         "trunk=all",
		"trunk=2-4094":         "",
	} {
		v, err := ParseVLAN(text)
		if want == "" {
			want = text
		}
		if err != nil || v.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, v, err, want)
		}
		if again, err := ParseVLAN(v.String()); err != nil || again != v {
			t.Errorf("%s: %s is read as %v, %v", text, v, again, err)
		}
	}
	for text, want := range map[string]string{
		"":                         "want untagged, access=ID or trunk=IDS",
		"acces=1":                  "want untagged, access=ID or trunk=IDS",
		"untagged=1":               "want untagged",
		"access":                   `VLAN id "": want a number from 1 to 4094`,
		"access=0":                 "from 1 to 4094",
		"access=4095":              "from 1 to 4094",
		"access=1,2":               "from 1 to 4094",
		"trunk=":                   `VLAN id ""`,
		"trunk=10-5":               `VLAN id "5": want a number from 10 to 4094`,
		"trunk=1-":                 "from 1 to 4094",
		"trunk=1,native=4095":      "from 0 to 4094",
		"trunk=1,native=1,native=": "native: want it once",
		"trunk=native=1":           "want the ids that it allows",
	} {
		if _, err := ParseVLAN(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func FuzzParseVLAN(f *testing.F) {
	f.Add("trunk=10,20-30,native=1")
	f.Add("access=5")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVLAN(text)
		if err != nil {
			return
		}
		if again, err := ParseVLAN(v.String()); err != nil || again != v {
			t.Fatalf("%q is %s, which is read as %v, %v", text, v, again, err)
		}
	})
}

// vlans is a switch with learning ports of the given VLANs.
func vlans(t testing.TB, texts ...string) (*Switch, []*Port, []*catcher) {
	t.Helper()
	s, ps, cs := ports(t, Config{}, len(texts))
	for i, text := range texts {
		v, err := ParseVLAN(text)
		if err != nil {
			t.Fatal(err)
		}
		ps[i].SetVLAN(v)
	}
	return s, ps, cs
}

const toAllFrom1 = "ffffffffffff 020000000001 "

// TestForms sends a frame of each form into each kind of port and looks at what comes out of
// every other.
func TestForms(t *testing.T) {
	kinds := []string{"untagged", "access=10", "access=20", "trunk=10,20", "trunk=10-30,native=10", "trunk=all"}
	const none, drop = "", "drop"
	const bare = "0800 01020304"
	for _, c := range []struct {
		from int
		in   string
		out  [6]string // by kind of port; drop at from: the frame is not let in
	}{
		{0, bare, [6]string{none, none, none, bare, none, bare}},
		{0, "8100 a000 0800 01", [6]string{none, none, none, "0800 01", none, "0800 01"}}, // a priority alone
		{0, "8100 000a " + bare, [6]string{0: drop}},
		{0, "8100 0001 " + bare, [6]string{0: drop}},
		{0, "8100 00", [6]string{0: drop}},
		{0, "88a8 000a " + bare, [6]string{none, none, none, "88a8 000a " + bare, none, "88a8 000a " + bare}},
		{1, bare, [6]string{none, none, none, "8100 000a " + bare, bare, "8100 000a " + bare}},
		{1, "8100 f000 " + bare, [6]string{none, none, none, "8100 f00a " + bare, bare, "8100 f00a " + bare}},
		{1, "8100 000a " + bare, [6]string{1: drop}}, // its own VLAN is no exception
		{3, bare, [6]string{bare, none, none, none, none, bare}},
		{3, "8100 b00a " + bare, [6]string{none, bare, none, none, bare, "8100 b00a " + bare}},
		{3, "8100 0014 8100 0007 " + bare, [6]string{none, none, "8100 0007 " + bare, none, "8100 0014 8100 0007 " + bare, "8100 0014 8100 0007 " + bare}},
		{3, "8100 001e " + bare, [6]string{3: drop}},
		{4, bare, [6]string{none, bare, none, "8100 000a " + bare, none, "8100 000a " + bare}},
		{4, "8100 6000 " + bare, [6]string{none, bare, none, "8100 600a " + bare, none, "8100 600a " + bare}},
		{4, "8100 000a " + bare, [6]string{none, bare, none, "8100 000a " + bare, none, "8100 000a " + bare}},
		{4, "8100 001f " + bare, [6]string{4: drop}},
		{5, "8100 0ffe " + bare, [6]string{}},
		{5, "8100 0fff " + bare, [6]string{5: drop}}, // reserved
	} {
		t.Run(fmt.Sprintf("%s of %s", c.in, kinds[c.from]), func(t *testing.T) {
			s, ps, cs := vlans(t, kinds...)
			ps[c.from].WriteFrames([]nic.Frame{packets.Split(packets.Hex(toAllFrom1 + c.in))})
			info := s.Ports()[c.from]
			refused := c.out[c.from] == drop
			if n := info.Dropped[DropVLAN]; (n == 1) != refused || n > 1 {
				t.Errorf("%d dropped for the VLAN, refused %v", n, refused)
			}
			if (len(info.Stations) == 0) != refused {
				t.Errorf("learned %v", info.Stations)
			}
			for i, want := range c.out {
				var frames [][]byte
				if want != none && want != drop {
					frames = [][]byte{packets.Hex(toAllFrom1 + want)}
				}
				if len(cs[i].frames) != len(frames) || len(frames) == 1 && !bytes.Equal(cs[i].frames[0], frames[0]) {
					t.Errorf("%s got %x, want %x", kinds[i], cs[i].frames, frames)
				}
			}
		})
	}
}

// TestVLANStations has one address in two VLANs at two ports.
func TestVLANStations(t *testing.T) {
	s, ps, cs := vlans(t, "access=10", "access=20", "trunk=10,20", "access=10", "access=20")
	say := func(p int, dst, src nic.MAC, tag string) {
		b := append(append(dst[:], src[:]...), packets.Hex(tag+"0800 01")...)
		ps[p].WriteFrames([]nic.Frame{packets.Split(b)})
	}
	got := func(what string, want ...int) {
		t.Helper()
		for i, n := range want {
			if len(cs[i].frames) != n {
				t.Errorf("%s: port %d got %d frames, want %d", what, i, len(cs[i].frames), n)
			}
			cs[i].take()
		}
	}
	say(0, nic.Broadcast, mac(1), "")
	say(1, nic.Broadcast, mac(1), "")
	got("both at once", 0, 0, 2, 1, 1)
	say(2, mac(1), mac(2), "8100000a")
	say(2, mac(1), mac(2), "81000014")
	got("each in its VLAN", 1, 1, 0, 0, 0)
	say(2, mac(1), mac(2), "")
	got("nobody has VLAN 0", 0, 0, 0, 0, 0)
	if st := s.Ports()[2].Stations; len(st) != 3 || st[0].VLAN != 0 || st[1].VLAN != 10 || st[2].VLAN != 20 {
		t.Errorf("stations %v", st)
	}
	// A port that goes over to another VLAN leaves its stations behind.
	ps[0].SetVLAN(Access(20))
	say(2, mac(1), mac(2), "8100000a")
	got("unknown now", 0, 0, 0, 1, 0)
	say(0, nic.Broadcast, mac(3), "")
	got("from its new VLAN", 0, 1, 1, 0, 1)
	if st := s.Ports()[0]; st.VLAN != "access=20" || len(st.Stations) != 1 || st.Stations[0].VLAN != 20 {
		t.Errorf("%+v", st)
	}
}

// TestVLANFixed has a port with an address of its own in several VLANs.
func TestVLANFixed(t *testing.T) {
	s, ps, cs := vlans(t, "trunk=all", "access=10", "access=30")
	own := new(catcher)
	trunk, err := ParseVLAN("trunk=10,20")
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.Connect("guest", own, PortOptions{MAC: mac(7), VLAN: trunk})
	if err != nil {
		t.Fatal(err)
	}
	to7, from7 := "020000000007 020000000001 ", "020000000001 020000000007 "
	ps[0].WriteFrames([]nic.Frame{
		packets.Split(packets.Hex(to7 + "8100000a 0800 61")),
		packets.Split(packets.Hex(to7 + "8100001e 0800 62")), // not its VLAN: unknown there
		packets.Split(packets.Hex(to7 + "81000014 0800 63")),
		packets.Split(packets.Hex(to7 + "0800 64")),
	})
	ps[1].WriteFrames([]nic.Frame{packets.Split(packets.Hex("020000000007 020000000009 0800 65"))})
	if got := own.take(); string(got) != "acde" {
		t.Errorf("its port got %q", got)
	}
	if got := cs[2].take(); string(got) != "b" {
		t.Errorf("the other VLAN got %q", got)
	}
	if got := cs[1].take(); len(got) != 0 {
		t.Errorf("a port of a VLAN where the station is known got %q", got)
	}
	// Its address is its own in all VLANs.
	ps[2].WriteFrames([]nic.Frame{packets.Split(packets.Hex(from7 + "0800 66"))})
	if n := s.Ports()[2].Dropped[DropForged]; n != 1 {
		t.Errorf("%d forged frames", n)
	}
	q.WriteFrames([]nic.Frame{packets.Split(packets.Hex(from7 + "81000014 0800 67"))})
	if got := cs[0].take(); string(got) != "g" {
		t.Errorf("the trunk got %q", got)
	}
}

// TestVLANCut sends a frame that is to be cut from a trunk to an access port and to a trunk: the
// pieces have the form of their port and right checksums.
func TestVLANCut(t *testing.T) {
	_, ps, cs := vlans(t, "access=5", "trunk=5", "trunk=5", "access=5")
	b := packets.Shape{Tag: true, TCPOptions: 12}.Frame(packets.Random(3000)) // VLAN 5
	for _, from := range []int{1, 3} {
		f := packets.Partial(bytes.Clone(b), nic.SegmentTCPv4, 1400, 10, 1000)
		if from == 3 {
			f = packets.Partial(packets.Shape{TCPOptions: 12}.Frame(packets.Random(3000)), nic.SegmentTCPv4, 1400, 10, 1000)
		}
		ps[from].WriteFrames([]nic.Frame{f})
		for i, at := range []int{14, 18, 18, 14} {
			if i == from {
				continue
			}
			if len(cs[i].frames) != 3 {
				t.Fatalf("port %d got %d frames, want 3", i, len(cs[i].frames))
			}
			for _, got := range cs[i].frames {
				if ip, _, _, _ := packets.Parts(got); ip != at || len(got) > at+52+1400 {
					t.Errorf("port %d: IP header at %d of %d bytes", i, ip, len(got))
				}
				want := bytes.Clone(got)
				if packets.Correct(want); !bytes.Equal(got, want) {
					t.Errorf("port %d: a wrong checksum", i)
				}
			}
			cs[i].take()
		}
	}
}

func TestVLANNoAllocation(t *testing.T) {
	s, ps, _ := vlans(t, "trunk=10", "access=10")
	for i, p := range ps {
		p.Close()
		q, err := s.Connect("quiet", new(sum), PortOptions{VLAN: []VLAN{Trunk(), Access(10)}[i]})
		if err != nil {
			t.Fatal(err)
		}
		ps[i] = q
	}
	for i, text := range []string{"8100 a00a", ""} {
		var batch []nic.Frame
		for range 100 {
			b := append(packets.Hex(toAllFrom1+text+"0800"), packets.Random(1000)...)
			batch = append(batch, packets.Split(b, 2, 500))
		}
		ps[i].WriteFrames(batch)
		if n := testing.AllocsPerRun(200, func() { ps[i].WriteFrames(batch) }); n > 0 && !raceEnabled {
			t.Errorf("from port %d: %v allocations", i, n)
		}
	}
}

// FuzzVLAN sends frames of random bytes through ports of all kinds. Nothing may panic, and what
// comes out of a port has the form that its VLAN has.
func FuzzVLAN(f *testing.F) {
	f.Add(packets.Hex(toAllFrom1+"8100 a00a 0800 01"), uint8(3))
	f.Add(packets.Hex(toAllFrom1+"0800 01"), uint8(1))
	f.Add(packets.Hex(toAllFrom1+"8100 00"), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, from uint8) {
		_, ps, cs := vlans(t, "untagged", "access=10", "access=20", "trunk=10,20", "trunk=10-30,native=10", "trunk=all")
		ps[int(from)%len(ps)].WriteFrames([]nic.Frame{packets.Split(b, 1, 7)})
		for i, c := range cs {
			for _, got := range c.frames {
				id, tagged, ok := ps[i].vlan.Load().of(got)
				inner := len(b) >= 18 && b[16] == 0x81 && b[17] == 0 // of two tags, one was taken
				if !inner && (!ok || tagged && id == ps[i].vlan.Load().id) {
					t.Fatalf("%v got %x", ps[i].vlan.Load(), got)
				}
			}
		}
	})
}
