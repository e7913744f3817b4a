package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"hvnet/internal/need"
	"hvnet/link/tap"
	"hvnet/sandbox"
)

// vfMoves returns how many moves a test makes: few; a thousand with HVNET_LONG=1.
func vfMoves() int {
	switch {
	case os.Getenv("HVNET_LONG") == "1":
		return 1000
	case testing.Short():
		return 3
	}
	return 10
}

// needSandbox skips a test where there can be no sandbox with an interface.
func needSandbox(t *testing.T) {
	t.Helper()
	s, err := sandbox.New(t.Context(), sandbox.Config{})
	if errors.Is(err, sandbox.ErrForbidden) {
		need.Root(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	probe, err := s.OpenTAP(t.Context(), tap.Config{Name: "eth0"})
	if errors.Is(err, tap.ErrPermission) || errors.Is(err, tap.ErrNoTun) {
		need.Root(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	probe.Close()
}

// TestVF: kernels exchange datagrams and TCP while a virtual function comes and goes. Nothing
// is lost if that is announced; nothing comes twice and no connection breaks however it goes.
func TestVF(t *testing.T) {
	needSandbox(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	cfg := VFConfig{Moves: vfMoves(), Mbits: 50, Window: 128}
	r, err := VF(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 4 {
		t.Errorf("%d rows", len(r.Rows))
	}
	for _, row := range r.Rows {
		t.Logf("%+v", row)
		if row.TCP.Broken != 0 || row.TCP.Bytes == 0 {
			t.Errorf("%s: %+v", row.Kind, row.TCP)
		}
		for i, s := range row.Streams {
			if row.Kind == VFAnnounced && (s.Lost != 0 || s.Overflowed != 0) {
				t.Errorf("%s, %s: %d of %d datagrams are lost, and %d had no room", row.Kind, VFDirections[i], s.Lost, s.Sent, s.Overflowed)
			}
			if s.Duplicated != 0 || s.Lost < 0 || s.Sent-s.Lost < cfg.Moves*2*vfBetween {
				t.Errorf("%s, %s: %+v", row.Kind, VFDirections[i], s)
			}
		}
	}
}

// TestNumbered: what is lost, comes twice, comes late or found no room is counted.
func TestNumbered(t *testing.T) {
	s := newNumbered(200, 0)
	if ms := s.every * 1e3; ms < .0559 || ms > .0561 { // of 1400 bytes
		t.Errorf("every %v ms", ms)
	}
	s.sent.Store(10)
	begin := s.mark()
	for _, n := range []uint64{0, 1, 4, 3, 4} {
		s.took(n, nil)
	}
	middle := s.mark()
	full := make([]byte, 24) // struct cmsghdr of a native machine, u32
	binary.NativeEndian.PutUint32(full[8:], 1)
	binary.NativeEndian.PutUint32(full[12:], 40)
	binary.NativeEndian.PutUint32(full[16:], 1)
	s.took(8, full)
	end := s.mark()
	for _, c := range []struct {
		a, b           numberedMark
		lost, overflow int
	}{{begin, middle, 1, 0}, {middle, end, 3, 1}, {begin, end, 4, 1}} {
		if lost, overflow := s.lost(c.a, c.b); lost != c.lost || overflow != c.overflow {
			t.Errorf("%d lost, %d of them for want of room, want %d and %d", lost, overflow, c.lost, c.overflow)
		}
	}
	r := s.report([]numberedMark{begin, middle}, time.Second)
	want := VFStream{Sent: 10, Lost: 4, Overflowed: 1, Duplicated: 1, Reordered: 1, Mbits: r.Mbits,
		OutageMedian: 112 * time.Microsecond, Outage99: 112 * time.Microsecond, OutageMax: 112 * time.Microsecond, PauseMedian: r.PauseMedian, PauseMax: r.PauseMax}
	if r != want || r.Mbits < .11 || r.Mbits > .113 {
		t.Errorf("%+v, want %+v", r, want)
	}
	s.took(1<<40, nil)
	if s.mark().next != 9 {
		t.Error("a number that nobody has sent counts")
	}
}
