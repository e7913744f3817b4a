package top

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hvnet/counter"
	"hvnet/nic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// shot returns a snapshot so many seconds after the beginning.
func shot(seconds float64, stats ...nic.Stat) Snapshot {
	return Snapshot{
		At: begin.Add(time.Duration(seconds * float64(time.Second))), Channels: nic.Channels{Max: 8, Combined: 2},
		Levels: nic.HashLevels{nic.HashL4, nic.HashL3, nic.HashL4, nic.HashL4},
		RSS:    nic.RSS{Table: []uint32{0, 0, 0, 1}}, Stats: stats,
	}
}

// busy is a pair of snapshots with traffic.
func busy() (before, now Snapshot) {
	before = shot(0,
		nic.Stat{Name: "tx_busy", Value: 4}, nic.Stat{Name: "tx_lost", Value: 5},
		nic.Stat{Name: "rx_queue_0_packets", Value: 1000}, nic.Stat{Name: "rx_queue_0_bytes", Value: 64000},
		nic.Stat{Name: "rx_queue_0_wakeups", Value: 10}, nic.Stat{Name: "tx_queue_1_packets", Value: 7_000_000},
	)
	now = shot(2,
		nic.Stat{Name: "tx_busy", Value: 4}, nic.Stat{Name: "tx_lost", Value: 25}, nic.Stat{Name: "tx_no_space", Value: 1},
		nic.Stat{Name: "rx_no_memory", Value: 0}, nic.Stat{Name: "cpu0_rx_packets", Value: 99},
		nic.Stat{Name: "rx_queue_0_packets", Value: 3000}, nic.Stat{Name: "rx_queue_0_bytes", Value: 3_064_000},
		nic.Stat{Name: "rx_queue_0_wakeups", Value: 110}, nic.Stat{Name: "rx_queue_0_xdp_drop", Value: 3},
		nic.Stat{Name: "tx_queue_1_packets", Value: 400}, // opened anew
		nic.Stat{Name: "tx_queue_1_bytes", Value: 600_000},
		nic.Stat{Name: "tx_queue_7_packets", Value: 400}, // of a channel that there is no more
	)
	now.Flows = []nic.Flows{{Received: 12}, {Received: 3, Sent: nic.MaxFlows}}
	return before, now
}

func TestCompute(t *testing.T) {
	want := View{
		Interface: "eth0", At: begin.Add(2 * time.Second), Seconds: 2, Channels: 2, MaxChannels: 8, Path: "synthetic",
		Levels: map[string]string{"tcp4": "ports", "udp4": "addresses", "tcp6": "ports", "udp6": "ports"}, Entries: 4,
		Queues: []Queue{
			{Queue: 0, Rates: Rates{RxPackets: 1000, RxBits: 12e6, Wakeups: 50}, Flows: &nic.Flows{Received: 12}, Table: 0.75},
			{Queue: 1, Rates: Rates{TxPackets: 200, TxBits: 2.4e6}, Flows: &nic.Flows{Received: 3, Sent: nic.MaxFlows}, Table: 0.25},
		},
		All:     Rates{RxPackets: 1000, RxBits: 12e6, TxPackets: 200, TxBits: 2.4e6, Wakeups: 50},
		Flows:   &nic.Flows{Received: 15, Sent: nic.MaxFlows},
		Dropped: 26,
		Counters: []Counter{
			{Name: "tx_busy", Value: 4}, {Name: "tx_lost", Value: 25, PerSecond: 10, Drop: true},
			{Name: "tx_no_space", Value: 1, PerSecond: 0.5, Drop: true},
		},
	}
	before, now := busy()
	if diff := cmp.Diff(want, Compute("eth0", before, now)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Whatever a driver shows, no number is one that JSON does not have.
func TestComputeOdd(t *testing.T) {
	for _, c := range [][2]Snapshot{
		{}, {shot(0), shot(0, nic.Stat{Name: "rx_queue_0_bytes", Value: math.MaxUint64})},
		{shot(5), shot(0, nic.Stat{Name: "tx_lost", Value: 1})},
		{shot(0), {At: begin.Add(1), Channels: nic.Channels{Combined: -1}, RSS: nic.RSS{Table: []uint32{9}},
			Stats: []nic.Stat{{Name: "rx_queue_-1_bytes", Value: 1}, {Name: "rx_queue_", Value: 1}, {Name: "rx_queue_x_y", Value: 1}}}},
	} {
		v := Compute("eth0", c[0], c[1])
		if _, err := json.Marshal(v); err != nil {
			t.Error(err)
		}
		v.Page(BySent, true)
	}
}

func TestPath(t *testing.T) {
	vf, synthetic := nic.Stat{Name: "tx_queue_1_vf_packets", Value: 1}, nic.Stat{Name: "rx_queue_0_packets", Value: 1}
	for _, c := range []struct {
		stats []nic.Stat
		want  string
	}{
		{nil, "synthetic"}, {[]nic.Stat{synthetic}, "synthetic"}, {[]nic.Stat{vf}, "virtual function"},
		{[]nic.Stat{vf, synthetic}, "synthetic and virtual function"},
	} {
		if v := Compute("eth0", shot(0), shot(1, c.stats...)); v.Path != c.want {
			t.Errorf("%v: %s", c.stats, v.Path)
		}
	}
}

// What goes by a virtual function is traffic of the channel with the queue's number.
func TestBothPaths(t *testing.T) {
	before, now := busy()
	now.Stats = append(now.Stats,
		nic.Stat{Name: "rx_queue_1_vf_packets", Value: 6}, nic.Stat{Name: "rx_queue_1_vf_bytes", Value: 1000},
		nic.Stat{Name: "tx_queue_1_vf_packets", Value: 20}, nic.Stat{Name: "tx_queue_1_vf_bytes", Value: 2000})
	v := Compute("eth0", before, now)
	if want := (Rates{RxPackets: 3, RxBits: 4000, TxPackets: 210, TxBits: 2.408e6}); v.Queues[1].Rates != want || v.All.RxPackets != 1003 {
		t.Errorf("%+v", v)
	}
}

// The counters of drops are in the table of counters, and those that say so are here.
func TestDrops(t *testing.T) {
	known := map[string]bool{}
	for _, d := range drops {
		known[d] = true
	}
	for _, d := range counter.Defs() {
		delete(known, d.Name)
	}
	if len(known) > 0 {
		t.Errorf("no such counters: %v", known)
	}
}

func TestPage(t *testing.T) {
	before, now := busy()
	v := Compute("eth0", before, now)
	page := v.Page(BySent, false)
	want := `eth0: 2 of 8 channels, path synthetic, table of 4, 26 dropped
flows by: tcp4 ports, udp4 addresses, tcp6 ports, udp6 ports

       RECEIVED                    SENT                        WAKEUPS   TABLE
QUEUE  PACKETS/S    BITS/S  FLOWS  PACKETS/S    BITS/S  FLOWS       /S
    1          0         0      3        200    2.40 M  >7097        0    25 %
    0     1.00 k    12.0 M     12          0         0      0       50    75 %
  all     1.00 k    12.0 M     15        200    2.40 M  >7097       50

COUNTER                        VALUE        /S
tx_busy                            4         0
tx_lost                           25        10   dropped
tx_no_space                        1      0.50   dropped`
	if diff := cmp.Diff(want, strings.Join(page.Lines(), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	queues := func(by Order, reverse bool) string {
		var names string
		for _, q := range v.sorted(by, reverse) {
			names += string(rune('0' + q.Queue))
		}
		return names
	}
	got := []string{queues(ByQueue, false), queues(ByQueue, true), queues(ByReceived, false), queues(BySent, false), queues(BySent, true)}
	if diff := cmp.Diff([]string{"01", "10", "01", "10", "01"}, got); diff != "" {
		t.Errorf("orders: -want +got:\n%s", diff)
	}
	now.Channels.Combined = 3 // just now: the flows are those of two
	if v := Compute("eth0", before, now); v.Flows != nil || v.Page(ByQueue, false).All != "  all     1.00 k    12.0 M      -        200    2.40 M      -       50" {
		t.Errorf("without flows: %q", v.Page(ByQueue, false))
	}
	v.Entries = 0
	if page := v.Page(ByQueue, false); !strings.Contains(page.Head[0], "no table") || !strings.HasSuffix(page.Queues[0], " -") {
		t.Errorf("without a table: %q", page)
	}
}

func TestShort(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0", 1: "1", 12: "12", 999: "999", 0.5: "0.50", 0.004: "0.00", 9.994: "9.99", 9.996: "10.0", 99.96: "100",
		999.4: "999", 999.6: "1.00 k", 1000: "1.00 k", 9994: "9.99 k", 12345: "12.3 k", 123456: "123 k", 999600: "1.00 M",
		2.4e6: "2.40 M", 3e9: "3.00 G", 25e12: "25.0 T", 1e18: "1000000 T",
	} {
		if got := short(f); got != want {
			t.Errorf("%v: %q, want %q", f, got, want)
		}
	}
}

var errBroken = errors.New("broken")

func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name  string
		errs  []error // of each fetch; nil after the last
		most  int     // of views that are wanted
		views int
		gone  bool
		err   error
	}{
		{"until enough", nil, 3, 3, false, nil},
		{"none", []error{nic.ErrNoDevice}, 3, 0, false, nic.ErrNoDevice},
		{"it ends", []error{nil, nil, nic.ErrNoDevice}, 3, 1, true, nil},
		{"it is just ending", []error{nil, nil, errBroken, nic.ErrNoDevice}, 3, 1, true, nil},
		{"it is broken", []error{nil, nil, errBroken, errBroken}, 3, 1, false, errBroken},
		{"one failure", []error{nil, errBroken}, 2, 2, false, nil},
	} {
		n, views := 0, 0
		gone, err := Watch(t.Context(), "eth0", time.Millisecond, func(context.Context) (Snapshot, error) {
			n++
			if n <= len(c.errs) && c.errs[n-1] != nil {
				return Snapshot{}, c.errs[n-1]
			}
			return shot(float64(n)), nil
		}, func(v View) bool {
			views++
			return views < c.most
		})
		if gone != c.gone || !errors.Is(err, c.err) || views != c.views {
			t.Errorf("%s: %d views, gone %v, %v", c.name, views, gone, err)
		}
	}
}

// screen returns a screen in memory.
func screen(t *testing.T, width, height int) tcell.SimulationScreen {
	t.Helper()
	s := tcell.NewSimulationScreen("UTF-8")
	if err := s.Init(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Fini)
	s.SetSize(width, height)
	return s
}

// lines are what is on it.
func lines(s tcell.SimulationScreen) (list []string) {
	cells, width, height := s.GetContents()
	for y := range height {
		var b strings.Builder
		for _, c := range cells[y*width : (y+1)*width] {
			b.WriteString(string(c.Runes))
		}
		list = append(list, strings.TrimRight(b.String(), " "))
	}
	return list
}

func TestDisplay(t *testing.T) {
	s := screen(t, 70, 10)
	d := display{screen: s, iface: "eth0"}
	d.draw()
	want := []string{"eth0: looking for a moment", "", "", "", "", "", "", "", "", "q quit   s sort, by queue   r reverse   space pause"}
	if diff := cmp.Diff(want, lines(s)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	before, now := busy()
	now.Channels.Combined = 9
	v := Compute("eth0", before, now)
	d.news(&v)
	queues := func() (names string) {
		d.draw()
		for _, l := range lines(s)[5:7] {
			names += strings.Fields(l)[0]
		}
		if l := lines(s)[7]; !strings.HasPrefix(l, "  all     1.00 k") {
			t.Errorf("the sum is not there: %q", l)
		}
		return names
	}
	key := func(k tcell.Key, r rune) {
		if d.event(tcell.NewEventKey(k, r, tcell.ModNone)) {
			t.Error("it leaves")
		}
	}
	steps := []struct {
		key  tcell.Key
		r    rune
		want string
	}{
		{tcell.KeyDown, 0, "12"}, {tcell.KeyPgDn, 0, "78"}, {tcell.KeyDown, 0, "78"}, {tcell.KeyUp, 0, "67"}, {tcell.KeyPgUp, 0, "01"},
		{tcell.KeyRune, 's', "01"}, {tcell.KeyRune, 's', "17"}, {tcell.KeyRune, 'r', "86"}, {tcell.KeyRune, 's', "87"}, {tcell.KeyRune, 'x', "87"},
	}
	if got := queues(); got != "01" {
		t.Errorf("first: %s", got)
	}
	for i, step := range steps {
		key(step.key, step.r)
		if got := queues(); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
	key(tcell.KeyRune, ' ')
	d.news(&View{})
	if got := queues(); got != "87" {
		t.Errorf("paused: %s", got)
	}
	if l := lines(s)[9]; l != "q quit   s sort, by queue reversed   r reverse   space pause: paused" {
		t.Errorf("keys: %q", l)
	}
	for _, k := range []*tcell.EventKey{
		tcell.NewEventKey(tcell.KeyRune, 'q', 0), tcell.NewEventKey(tcell.KeyCtrlC, 0, 0), tcell.NewEventKey(tcell.KeyEscape, 0, 0),
	} {
		if !d.event(k) {
			t.Errorf("%s: it stays", k.Name())
		}
	}
	for _, size := range [][2]int{{0, 0}, {1, 1}, {10, 3}, {300, 100}} { // any terminal
		s.SetSize(size[0], size[1])
		d.draw()
	}
}

// Run ends when its user wants, when the driver does, and when it is told to.
func TestRun(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	for _, c := range []struct {
		name string
		ctx  context.Context
		errs []error
		key  rune
		gone bool
		err  error
	}{
		{name: "user", ctx: t.Context(), key: 'q'},
		{name: "context", ctx: ended},
		{name: "driver", ctx: t.Context(), errs: []error{nil, nil, nic.ErrNoDevice}, gone: true},
		{name: "failure", ctx: t.Context(), errs: []error{errBroken}, err: errBroken},
	} {
		s := tcell.NewSimulationScreen("UTF-8")
		n := 0
		gone, err := Run(c.ctx, s, "eth0", time.Millisecond, func(context.Context) (Snapshot, error) {
			if n++; n <= len(c.errs) && c.errs[n-1] != nil {
				return Snapshot{}, c.errs[n-1]
			}
			if c.key != 0 && n == 3 {
				s.InjectKey(tcell.KeyRune, c.key, tcell.ModNone)
			}
			return shot(float64(n)), nil
		})
		if gone != c.gone || !errors.Is(err, c.err) {
			t.Errorf("%s: gone %v, %v", c.name, gone, err)
		}
	}
}
