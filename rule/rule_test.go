package rule

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/rules.md anew")

func TestFault(t *testing.T) {
	inner := errors.New("page 16384 of 8")
	for _, c := range []struct {
		err     error
		text    string
		explain string
	}{
		{OffersOnce.Broken("asked %d times", 2), "asked 2 times",
			"asked 2 times; rule offers-once: REQUESTOFFERS is sent once in a connection (Linux drivers/hv/channel_mgmt.c, vmbus_request_offers)"},
		{fmt.Errorf("OPENCHANNEL: %w", BufferID.Err(inner)), "OPENCHANNEL: page 16384 of 8",
			"OPENCHANNEL: page 16384 of 8; rule buffer-id: the receive buffer has the id 0xcafe (Linux drivers/net/hyperv/hyperv_net.h, NETVSC_RECEIVE_BUFFER_ID)"},
		{inner, "page 16384 of 8", "page 16384 of 8"},
	} {
		if c.err.Error() != c.text || Explain(c.err) != c.explain {
			t.Errorf("\n got %s\n and %s\nwant %s", c.err, Explain(c.err), c.explain)
		}
	}
	if err := Ring.Err(nil); err != nil {
		t.Errorf("no fault is %v", err)
	}
	if err := Ring.Err(inner); !errors.Is(err, inner) || Of(err).Rule != Ring {
		t.Errorf("%v has lost something", err)
	}
}

func TestLayout(t *testing.T) {
	bad := errors.New("too short")
	if f := Of(Layout(MessageLayout, "OPENCHANNEL", bad)); !strings.HasSuffix(f.Source, "struct vmbus_channel_open_channel") {
		t.Errorf("source %s", f.Source)
	}
	if f := Of(Layout(NVSPLayout, "something", bad)); f.Source != NVSPLayout.Source {
		t.Errorf("source %s", f.Source)
	}
	if Layout(RNDISLayout, "QUERY", nil) != nil {
		t.Error("nothing is a fault")
	}
}

// TestTable: names are names, and each once; every rule is used by a host.
func TestTable(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{"../vmbus/host", "../netvsp", "../conform"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if b, err := os.ReadFile(f); err != nil {
				t.Fatal(err)
			} else if !strings.HasSuffix(f, "_test.go") {
				code.Write(b)
			}
		}
	}
	names := map[string]bool{}
	for _, r := range All() {
		if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(r.Name) || names[r.Name] || r.Text == "" || r.Source == "" {
			t.Errorf("rule %+v", r)
		}
		names[r.Name] = true
	}
	files, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\t(\w+) = add\(`).FindAllStringSubmatch(string(b), -1) {
			if !regexp.MustCompile(`rule\.` + m[1] + `\b`).MatchString(code.String()) {
				t.Errorf("no host uses rule.%s", m[1])
			}
		}
	}
}

// TestDoc: docs/rules.md is the table.
func TestDoc(t *testing.T) {
	const path = "../docs/rules.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(page), "| rule |")
	var b strings.Builder
	b.WriteString(head + "| rule | what a guest has to do | where it is written |\n|---|---|---|\n")
	for _, r := range All() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Name, r.Text, r.Source)
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if b.String() != string(page) {
		t.Errorf("%s is not the table of package rule: go test ./rule -update writes it anew", path)
	}
}
