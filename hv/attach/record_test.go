package attach

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hvnet/hv"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The records of docs/attach.md, byte by byte.
var golden = []struct {
	name   string
	want   string
	record []byte
}{
	{"hello", `
		01000000 44332211
		4856415454414348 01000000 02000000
		0000050000000000 0100 0200 0f000000
		0010050000000000 0020050000000000
		0030050000000000 0040050000000000
		0000050000000000 0050000000000000 0010000000000000
		6731
		0100 0000 61
		0300 0300 6d6163 613a62`, (&hello{
		Hello: Hello{Name: "g1", VPs: 2, Options: map[string]string{"mac": "a:b", "a": ""}},
		pages: hv.Pages{
			Signals: 0x50000,
			Message: []hv.GPA{0x51000, 0x53000},
			Event:   []hv.GPA{0x52000, 0x54000},
		},
		regions: []region{{0x50000, 0x5000, 0x1000}},
	}).append(nil, 0x11223344)},
	{"reply", "02000000 05000000 12000000 0100 0300 6e6f21", reply{hv.StatusInvalidConnectionID, 1, "no!"}.append(nil, 5)},
	{"post", "03000000 06000000 04000000 01000000 0e00", appendPost(nil, 6, 4, 1, []byte{14, 0})},
	{"posts", "06000000 0a000000 04000000 01000000 0200 0e00 0000 0100 0f", appendPosts(nil, 10, 4, 1, [][]byte{{14, 0}, {}, {15}})},
	{"add", "04000000 07000000 0000050000000000 0010000000000000 0020000000000000", appendAdd(nil, 7, region{0x50000, 0x1000, 0x2000})},
	{"remove", "05000000 08000000 0000050000000000", appendRemove(nil, 8, 0x50000)},
}

func TestGolden(t *testing.T) {
	for _, x := range golden {
		if want := unhex(x.want); !bytes.Equal(x.record, want) {
			t.Errorf("%s is\n%x, want\n%x", x.name, x.record, want)
		}
	}
}

func drawHello(t *rapid.T) *hello {
	gpa := rapid.Custom(func(t *rapid.T) hv.GPA { return hv.GPA(rapid.Uint64().Draw(t, "gpa")) })
	h := &hello{Hello: Hello{
		Name:    rapid.StringMatching(`[a-zä-ü0-9 ]{0,20}`).Draw(t, "name"),
		VPs:     rapid.IntRange(1, hv.MaxVPs).Draw(t, "vps"),
		Options: rapid.MapOfN(rapid.StringN(1, 20, 60), rapid.StringN(0, 40, 100), 0, 10).Draw(t, "options"),
	}}
	h.pages = hv.Pages{
		Signals: gpa.Draw(t, "signals"),
		Message: rapid.SliceOfN(gpa, h.VPs, h.VPs).Draw(t, "message"),
		Event:   rapid.SliceOfN(gpa, h.VPs, h.VPs).Draw(t, "event"),
	}
	for range rapid.IntRange(1, maxRegions).Draw(t, "regions") {
		h.regions = append(h.regions, region{gpa.Draw(t, "gpa"), rapid.Uint64().Draw(t, "size"), rapid.Uint64().Draw(t, "offset")})
	}
	return h
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Uint32().Draw(t, "id")
		want := drawHello(t)
		b := want.append(nil, id)
		if len(b) > maxHello {
			t.Fatalf("hello of %d bytes, more than %d", len(b), maxHello)
		}
		got, err := parseHello(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("hello is %+v, want %+v", got, want)
		}
		for n := range len(b) {
			if _, err := parseHello(b[:n]); err == nil {
				t.Fatalf("hello cut to %d of %d bytes is one", n, len(b))
			}
		}

		r := reply{hv.Status(rapid.Uint16().Draw(t, "status")), Version, rapid.StringN(0, 200, maxText).Draw(t, "text")}
		if got, err := parseReply(r.append(nil, id)); err != nil || got != r {
			t.Fatalf("reply is %+v, %v, want %+v", got, err, r)
		}

		payload := rapid.SliceOfN(rapid.Byte(), 0, hv.MaxPayload).Draw(t, "payload")
		conn, typ := rapid.Uint32().Draw(t, "conn"), rapid.Uint32().Draw(t, "type")
		c, m, err := parsePost(appendPost(nil, id, conn, typ, payload), nil)
		if err != nil || c != conn || len(m) != 1 || m[0].Type != typ || !bytes.Equal(m[0].Payload(), payload) {
			t.Fatalf("post is %v to %d, %v", m, c, err)
		}
		payloads := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, hv.MaxPayload), 1, hv.MaxPosts).Draw(t, "payloads")
		b = appendPosts(nil, id, conn, typ, payloads)
		c, m, err = parsePosts(b, nil)
		if err != nil || c != conn || len(m) != len(payloads) || len(b) > maxRequest {
			t.Fatalf("%d posts are %d to %d in %d bytes, %v", len(payloads), len(m), c, len(b), err)
		}
		for i := range m {
			if m[i].Type != typ || !bytes.Equal(m[i].Payload(), payloads[i]) {
				t.Fatalf("post %d is %v", i, m[i])
			}
		}

		a := region{hv.GPA(rapid.Uint64().Draw(t, "gpa")), rapid.Uint64().Draw(t, "size"), rapid.Uint64().Draw(t, "offset")}
		if got, err := parseAdd(appendAdd(nil, id, a)); err != nil || got != a {
			t.Fatalf("add is %+v, %v, want %+v", got, err, a)
		}
		if got, err := parseRemove(appendRemove(nil, id, a.gpa)); err != nil || got != a.gpa {
			t.Fatalf("remove is %#x, %v, want %#x", got, err, a.gpa)
		}
		if h, err := parseHeader(want.append(nil, id)); err != nil || h != (header{typeHello, id}) {
			t.Fatalf("header is %+v, %v", h, err)
		}
	})
}

func TestLongText(t *testing.T) {
	r, err := parseReply(reply{text: strings.Repeat("x", 5000)}.append(nil, 1))
	if err != nil || len(r.text) != maxText {
		t.Errorf("text of %d bytes, %v", len(r.text), err)
	}
}

func TestReplyError(t *testing.T) {
	if err := (reply{text: "all is well"}).err(); err != nil {
		t.Errorf("success is an error: %v", err)
	}
	if err := (reply{status: hv.StatusTimeout}).err(); err != hv.StatusTimeout {
		t.Errorf("status alone: %v", err)
	}
	err := reply{status: hv.StatusAccessDenied, text: "go away"}.err()
	if !errors.Is(err, hv.StatusAccessDenied) || err.Error() != "hypercall: access denied: go away" {
		t.Errorf("status with text: %v", err)
	}
}

// FuzzRecord parses anything as everything. What is accepted must come out the
// same again.
func FuzzRecord(f *testing.F) {
	for _, x := range golden {
		f.Add(unhex(x.want))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		head, err := parseHeader(b)
		if err != nil {
			return
		}
		if h, err := parseHello(b); err == nil {
			if err := h.Check(); err != nil {
				t.Errorf("accepted a bad hello: %v", err)
			}
			again, err := parseHello(h.append(nil, head.id)) // options may be in another order
			if err != nil || !reflect.DeepEqual(again, h) {
				t.Errorf("hello %+v becomes %+v, %v", h, again, err)
			}
		}
		if r, err := parseReply(b); err == nil {
			if got := r.append(nil, head.id); !bytes.Equal(got[4:], b[4:]) {
				t.Errorf("reply %x becomes %x", b, got)
			}
		}
		if conn, m, err := parsePost(b, nil); err == nil {
			if got := appendPost(nil, head.id, conn, m[0].Type, m[0].Payload()); !bytes.Equal(got[4:], b[4:]) {
				t.Errorf("post %x becomes %x", b, got)
			}
		}
		if conn, m, err := parsePosts(b, nil); err == nil {
			var payloads [][]byte
			for i := range m {
				payloads = append(payloads, m[i].Payload())
			}
			if got := appendPosts(nil, head.id, conn, m[0].Type, payloads); !bytes.Equal(got[4:], b[4:]) {
				t.Errorf("posts %x become %x", b, got)
			}
		}
		if r, err := parseAdd(b); err == nil {
			if got := appendAdd(nil, head.id, r); !bytes.Equal(got[4:], b[4:]) {
				t.Errorf("add %x becomes %x", b, got)
			}
		}
		if gpa, err := parseRemove(b); err == nil {
			if got := appendRemove(nil, head.id, gpa); !bytes.Equal(got[4:], b[4:]) {
				t.Errorf("remove %x becomes %x", b, got)
			}
		}
	})
}
