package conform_test

import (
	"bufio"
	"encoding/hex"
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"

	"hvnet/conform"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s: line %d of %d, want %d lines:\n got %s\nwant %s\n(go test -update writes it anew)",
				path, i+1, len(g), len(w), at(g, i), at(w, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing"
}

// A text collects what a transcript writes.
type text struct{ lines []string }

func (x *text) config() conform.Config {
	return conform.Config{Line: func(s string) { x.lines = append(x.lines, s) }}
}

// replay decodes a recording.
func replay(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var x text
	tr := conform.NewTranscript(x.config())
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if w[0] == "#" {
			continue
		}
		side := conform.Side(w[0] == "host")
		var data [2][]byte
		first := map[string]int{"message": 2, "packet": 3}[w[1]]
		for i, s := range w[first:] {
			if data[i], err = hex.DecodeString(s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if w[1] == "message" {
			tr.Message(side, data[0])
			continue
		}
		relid, err := strconv.Atoi(w[2])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tr.Packet(side, uint32(relid), data[0], data[1])
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return x.lines
}

// TestRecorded decodes what a real hv_netvsc and its host said.
func TestRecorded(t *testing.T) {
	golden(t, "hv_netvsc-6.1.golden", strings.Join(replay(t, "hv_netvsc-6.1.txt"), "\n")+"\n")
}
