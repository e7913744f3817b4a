package rtnl

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestRequest builds a message as rtnetlink(7) has it.
func TestRequest(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	r := Link(unix.RTM_SETLINK, 7, unix.IFF_UP, unix.IFF_UP).PutString(unix.IFLA_IFNAME, "v0").PutUint32(unix.IFLA_MTU, 1400)
	r.Nest(unix.IFLA_LINKINFO, func() {
		r.Put(unix.IFLA_INFO_KIND, []byte("veth")).Nest(unix.IFLA_INFO_DATA, func() { r.Head([]byte{1, 2, 3}).Put(9, nil) })
	})
	want := unhex(t, `48000000 1300 0500 02000000 00000000
		00 00 0000 07000000 01000000 01000000
		0700 0300 76300000 0800 0400 78050000
		1800 1280 0800 0100 76657468 0c00 0280 01020300 0400 0900`)
	if got := r.bytes(2); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

// TestClient makes interfaces, has them changed and counted, and is refused.
func TestClient(t *testing.T) {
	enter(t)
	ctl := open(t)
	c := NewClient(ctl)
	r := Link(unix.RTM_NEWLINK, 0, 0, 0).Flags(unix.NLM_F_CREATE|unix.NLM_F_EXCL).PutString(unix.IFLA_IFNAME, "v0")
	r.Nest(unix.IFLA_LINKINFO, func() { r.Put(unix.IFLA_INFO_KIND, []byte("veth")) })
	if _, err := c.Do(r); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(r); err != unix.EEXIST {
		t.Errorf("made twice: %v", err)
	}
	index, err := Index(ctl, "v0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(Link(unix.RTM_SETLINK, index, unix.IFF_UP, unix.IFF_UP).Put(unix.IFLA_IFALIAS, []byte("the one"))); err != nil {
		t.Fatal(err)
	}
	s, err := Find(t.Context(), open(t), func(s *State) bool { return s.Name != "lo" && s.Alias == "the one" })
	if err != nil || s.Index != index || s.Kind != "veth" || s.Name != "v0" || !s.Up || !s.Ethernet {
		t.Errorf("found %+v, %v", s, err)
	}
	if n, err := Counts(c, index); err != nil || n != (Count{}) {
		t.Errorf("an interface without carrier has counted %+v, %v", n, err)
	}
	if _, err := c.Do(Link(unix.RTM_DELLINK, index, 0, 0)); err != nil {
		t.Error(err)
	}
	if _, err := Counts(c, index); err != unix.ENODEV {
		t.Errorf("counts of what is gone: %v", err)
	}
}

// TestFind finds what comes later, not what was here before, and ends with its context.
func TestFind(t *testing.T) {
	enter(t)
	ctl := open(t)
	named := func(s *State) bool { return s.Name == "v0" }
	for range 3 {
		asked := make(chan struct{})
		found := make(chan State, 1)
		go func() {
			first := true
			s, err := Find(t.Context(), ctl, func(s *State) bool {
				if first {
					first = false
					close(asked)
				}
				return named(s)
			})
			if err != nil {
				t.Error(err)
			}
			found <- s
		}()
		<-asked // about lo
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
		if err := netlink.LinkAdd(pair); err != nil {
			t.Fatal(err)
		}
		s := <-found
		if s.Removed || s.Name != "v0" || s.Index == 0 {
			t.Errorf("found %+v", s)
		}
		if err := netlink.LinkDel(pair); err != nil {
			t.Fatal(err)
		}
		// By its number it stays removed.
		gone := errors.New("gone")
		err := Watch(t.Context(), ctl, Interface{Index: s.Index}, func(s State) error {
			if s.Removed {
				return gone
			}
			return nil
		})
		if err != gone {
			t.Errorf("watch ended with %v", err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := Find(ctx, ctl, named); !errors.Is(err, context.Canceled) {
		t.Errorf("found: %v", err)
	}
}

func TestAnswers(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	ack := unhex(t, `14000000 0200 0000 01000000 00000000 00000000`)
	eperm := unhex(t, `14000000 0200 0000 01000000 00000000 ffffffff`)
	data := unhex(t, `14000000 1000 0000 01000000 00000000 01020304`)
	for _, x := range []struct {
		b    []byte
		data []byte
		err  error
	}{
		{ack, nil, nil},
		{eperm, nil, unix.EPERM},
		{append(bytes.Clone(data), ack...), []byte{1, 2, 3, 4}, nil},
		{append(bytes.Clone(eperm), ack...), nil, unix.EPERM},
		{nil, nil, nil},
	} {
		if data, err := answers(x.b); !bytes.Equal(data, x.data) || err != x.err {
			t.Errorf("%x: %x, %v", x.b, data, err)
		}
	}
	if _, err := answers(ack[:19]); err == nil {
		t.Error("half an answer is one")
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(unhex(f, `14000000 0200 0000 01000000 00000000 ffffffff`))
	f.Add(unhex(f, linkMessage))
	f.Fuzz(func(t *testing.T, b []byte) {
		if data, err := answers(b); err == nil && len(data) > len(b) {
			t.Errorf("%x: %x", b, data)
		}
	})
}
