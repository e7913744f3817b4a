package main

import (
	"bytes"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fragmentTable returns the rows of a table of udp-fragments: the cells of lost and late
// datagrams in percent, by size and fragments.
func fragmentTable(t *testing.T, text string) (names []string, cells map[string][]float64) {
	t.Helper()
	cells = map[string][]float64{}
	_, rows, ok := strings.Cut(text, "LATE\n")
	if !ok {
		_, rows, ok = strings.Cut(text, "LATE  \n")
	}
	for line := range strings.Lines(rows) {
		f := strings.Fields(line)
		if len(f) != 9 {
			t.Fatalf("line %q", line)
		}
		name := f[0] + " " + f[1]
		names = append(names, name)
		for _, c := range f[3:] {
			v, err := strconv.ParseFloat(strings.TrimSuffix(c, "%"), 64)
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			cells[name] = append(cells[name], v)
		}
	}
	if !ok || len(names) == 0 {
		t.Fatalf("no table in:\n%s", text)
	}
	return names, cells
}

// TestDocsFragments holds the table of docs/udp-fragments.md against what the command that
// has made it says: the same sizes, about as many lost, and none at all with the cure.
func TestDocsFragments(t *testing.T) {
	var out, errs bytes.Buffer
	if status := run(context.Background(), []string{"bench", "udp-fragments", "--datagrams", "8"}, &out, &errs); status != 0 {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	var page string
	for _, b := range blocks(pagesOf(t)["udp-fragments.md"], "text") {
		if strings.HasPrefix(b, "Azure, ") {
			page = b
		}
	}
	if head, _, _ := strings.Cut(out.String(), "\n"); !strings.HasPrefix(page, head+"\n") {
		t.Errorf("the page has not the line %q", head)
	}
	wantNames, want := fragmentTable(t, page)
	names, got := fragmentTable(t, out.String())
	if !slices.Equal(names, wantNames) {
		t.Fatalf("the page has datagrams of %q, the command says %q", wantNames, names)
	}
	const byPorts, about = 0, 25 // column, percent
	for _, name := range names {
		for i, v := range got[name] {
			switch documented := want[name][i]; {
			case i > byPorts+1 && (v != 0 || documented != 0):
				t.Errorf("%s, column %d: %v%%, the page has %v%%, want 0", name, i, v, documented)
			case i == byPorts && ((v > 5) != (documented > 5) || math.Abs(v-documented) > about):
				t.Errorf("%s by ports: %v%% are lost, the page has %v%%", name, v, documented)
			case i == byPorts && (v > 5) == strings.HasSuffix(name, " 1"):
				t.Errorf("%s by ports: %v%% are lost", name, v)
			}
		}
	}
}
