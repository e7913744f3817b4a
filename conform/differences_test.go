package conform_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/conform"
	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/nic"
)

// ours has our driver do what the commands of the recording had hv_netvsc do, and
// returns the text of it.
func ours(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var mu sync.Mutex
	var x text
	reached := make(chan conform.Stage, 64)
	cfg := x.config()
	line := cfg.Line
	cfg.Line = func(s string) {
		mu.Lock()
		defer mu.Unlock()
		line(s)
	}
	cfg.Reached = func(s conform.Stage) { reached <- s }
	cfg.Broken = func(err error) { t.Errorf("our driver broke a rule: %v", err) }
	h := host.New(host.Config{Watch: func(string) conform.Config { return cfg }})
	defer h.Close(ctx)
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(far, host.PortConfig{Name: "g1"}) }()
	g, err := guest.Start(ctx, part, guest.Config{VPs: 2})
	if err != nil {
		t.Fatal(err)
	}
	data := func() {
		mac := g.NIC.MAC()
		frame := append(append(slices.Clone(nic.Broadcast[:]), mac[:]...), make([]byte, 48)...)
		g.NIC.Send(0, []nic.Frame{{Head: frame}})
		for {
			select {
			case s := <-reached:
				if s == conform.StageData {
					return
				}
			case <-ctx.Done():
				t.Fatal("the frame was not completed")
			}
		}
	}
	do := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	do("up", g.NIC.Up(ctx, discard{}))
	data()
	do("one channel", g.NIC.SetChannels(ctx, 1))
	data()
	do("down", g.NIC.Down(ctx))
	do("close", g.Close(ctx))
	<-served
	mu.Lock()
	defer mu.Unlock()
	return x.lines
}

type discard struct{}

func (discard) WriteFrames([]nic.Frame) {}

// What differs from one run to the next, or from one machine to the other, and means
// nothing: addresses, transactions, and what was in the frames.
var (
	address = regexp.MustCompile(`0x[0-9a-f]{6,}\b`)
	tid     = regexp.MustCompile(`, tid 0x[0-9a-f]+| request ID [0-9]+,?`)
	traffic = regexp.MustCompile(`(relid|length|data len|section bytes|section) (0x)?[0-9a-f]+|\([0-9]+ bytes\)`)
	noise   = regexp.MustCompile(`_PACKET_COMPLETE|completions|so far|in all|…` +
		`|RELID_RELEASED relid 2`) // of the sub-channel: by another thread, at some time
)

// said returns what the guest said, without noise. Of frames that follow each other
// the first is there.
func said(lines []string) (list []string) {
	for _, s := range lines {
		s, ok := strings.CutPrefix(s, "guest> ")
		if !ok || noise.MatchString(s) {
			continue
		}
		s = address.ReplaceAllString(tid.ReplaceAllString(s, ""), "0x…")
		if strings.Contains(s, "channel 0") || strings.Contains(s, "RNDIS PACKET") {
			s = traffic.ReplaceAllString(s, "$1 *")
			s = strings.TrimSuffix(s, "  *")
			if n := len(list); n > 1 && (list[n-1] == s || list[n-2] == s) {
				continue
			}
		}
		list = append(list, s)
	}
	return list
}

// A difference is a line of theirs and a line of ours; one of them may be empty.
type difference struct{ theirs, ours string }

// align puts two texts side by side, with as many equal lines as there can be.
func align(a, b []string) (rows []difference) {
	common := make([][]int, len(a)+1) // length of the longest common part of a[i:], b[j:]
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	name := func(s string) string { return strings.Join(strings.Fields(s)[:min(3, len(strings.Fields(s)))], " ") }
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			rows = append(rows, difference{a[i], b[j]})
			i, j = i+1, j+1
		case i < len(a) && j < len(b) && common[i][j] == common[i+1][j+1] && name(a[i]) == name(b[j]):
			rows = append(rows, difference{a[i], b[j]}) // the same message with other fields
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			rows = append(rows, difference{theirs: a[i]})
			i++
		default:
			rows = append(rows, difference{ours: b[j]})
			j++
		}
	}
	return rows
}

// TestDifferences puts what hv_netvsc said beside what our driver says when the same
// is asked of it. Every difference is in the table of docs/differences.md, with the
// reason, and nothing else is.
func TestDifferences(t *testing.T) {
	var live []string
	synctest.Test(t, func(t *testing.T) { live = ours(t) }) // so that no timer fires on a busy machine
	rows := align(said(replay(t, "hv_netvsc-6.1.txt")), said(live))
	var sides strings.Builder
	found := map[difference]bool{}
	for _, r := range rows {
		mark := "  "
		if r.theirs != r.ours {
			mark = "! "
			found[r] = true
		}
		fmt.Fprintf(&sides, "%shv_netvsc  %s\n  hvnet      %s\n", mark, r.theirs, r.ours)
	}
	golden(t, "side-by-side.golden", sides.String())

	page, err := os.ReadFile("../docs/differences.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[difference]bool{}
	row := regexp.MustCompile("(?m)^\\| (?:`(.*?)`|–) \\| (?:`(.*?)`|–) \\| (.+) \\|$")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		listed[difference{m[1], m[2]}] = true
	}
	for d := range found {
		if !listed[d] {
			t.Errorf("docs/differences.md does not have\n| `%s` | `%s` |", d.theirs, d.ours)
		}
	}
	for d := range listed {
		if !found[d] {
			t.Errorf("docs/differences.md has a difference that there is not:\n| `%s` | `%s` |", d.theirs, d.ours)
		}
	}
}
