package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hvnet/ethtool"
	"hvnet/nic"
)

// pagesOf returns the project's pages, from its root: README.md and docs/*.md.
func pagesOf(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, name := range append(names, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.Base(name)] = string(text)
	}
	return pages
}

// blocks returns the fenced blocks of a language.
func blocks(page, language string) []string {
	var all []string
	for _, m := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)\n```").FindAllStringSubmatch(page, -1) {
		all = append(all, m[1])
	}
	return all
}

// shellWord matches one word or one operator of a shell.
var shellWord = regexp.MustCompile(`'[^']*'|"[^"]*"|[;|&]+|#.*|[^\s;|&'"]+`)

// hvnetIn returns the arguments of each hvnet on a line of shell, also of those in
// its quoted scripts.
func hvnetIn(line string) (all [][]string) {
	var args []string
	inside := false
	end := func() {
		if inside {
			all = append(all, args)
		}
		args, inside = nil, false
	}
	for _, w := range shellWord.FindAllString(line, -1) {
		switch {
		case w[0] == '#':
			end()
			return all
		case strings.ContainsRune(";|&", rune(w[0])):
			end()
		case !inside && (w == "hvnet" || strings.HasSuffix(w, "/hvnet")):
			inside = true
		case inside:
			if w[0] == '\'' || w[0] == '"' {
				w = w[1 : len(w)-1]
				all = append(all, hvnetIn(w)...)
			}
			args = append(args, w)
		}
	}
	end()
	return all
}

// TestDocsCommands takes every hvnet command of the pages through the parser.
func TestDocsCommands(t *testing.T) {
	commandsSeen := map[string]bool{}
	for name, page := range pagesOf(t) {
		for _, block := range blocks(page, "sh") {
			for line := range strings.Lines(block) {
				for _, args := range hvnetIn(line) {
					if len(args) == 0 || line[0] == '#' || strings.HasPrefix(line, "go install") || strings.HasPrefix(line, "go build") {
						continue
					}
					commandsSeen[args[0]] = true
					if err := understood(t, args); err != nil {
						t.Errorf("%s: hvnet %s: %v", name, strings.Join(args, " "), err)
					}
				}
			}
		}
	}
	for _, c := range []string{"demo", "run", "host", "up", "ethtool"} {
		if !commandsSeen[c] {
			t.Errorf("no page has an example of hvnet %s", c)
		}
	}
}

// understood returns what a command line would be refused for before anything is
// made.
func understood(t *testing.T, args []string) error {
	var cli commands
	parser, err := newParser(t.Context(), &cli, streams{io.Discard, io.Discard}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := parser.Parse(asTyped(args))
	if err != nil {
		return err
	}
	host, guest := hostFlags{Profile: "ws2022"}, guestFlags{Iface: "eth0"}
	switch ctx.Command() {
	case "run", "run <cmd>":
		host, guest = cli.Run.hostFlags, cli.Run.guestFlags
	case "host serve":
		host = cli.Host.Serve.hostFlags
		if _, err := cli.Host.Serve.vlans(); err != nil {
			return err
		}
	case "up <path>":
		guest = cli.Up.guestFlags
	case "ethtool <args>":
		var said strings.Builder
		ethtool.Run(t.Context(), cli.Ethtool.Args, func(string) (ethtool.Device, error) { return nil, nic.ErrNoDevice }, io.Discard, &said)
		if strings.Contains(said.String(), "bad command line") {
			return usagef("%s", said.String())
		}
	}
	if _, err := host.plan(nil); err != nil {
		return err
	}
	if _, err := guest.config("", nil); err != nil {
		return err
	}
	_, _, err = guest.addresses()
	return err
}

// TestUnderstood makes sure that the test of the pages can fail.
func TestUnderstood(t *testing.T) {
	for line, want := range map[string]bool{
		"hvnet run -- true":                    true,
		"hvnet run --quues 2":                  false,
		"hvnet run --uplink eth0":              false,
		"hvnet up /tmp/hv --addr 198.18.0.2":   false,
		"hvnet dmeo":                           false,
		"hvnet ethtool -L eth0 combined 2":     true,
		"hvnet ethtool -L eth0 combied 2":      false,
		"hvnet run -- sh -c 'hvnet host ctl'":  false,
		"hvnet host ctl /tmp/hv ports | wc -l": true,
	} {
		all := hvnetIn(line)
		if len(all) == 0 {
			t.Errorf("%s: no command found", line)
		}
		got := !slices.ContainsFunc(all, func(args []string) bool { return understood(t, args) != nil })
		if got != want {
			t.Errorf("%s: understood %t, want %t", line, got, want)
		}
	}
}

// TestDocsGo makes sure that the README's Go is code that is compiled and run: the
// example of package guest.
func TestDocsGo(t *testing.T) {
	example, err := os.ReadFile(filepath.Join("..", "..", "guest", "example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	snippets := blocks(pagesOf(t)["README.md"], "go")
	if len(snippets) == 0 {
		t.Error("README.md has no Go")
	}
	flat := strings.ReplaceAll(string(example), "\n\t", "\n")
	for _, s := range snippets {
		if !strings.Contains(flat, s) {
			t.Errorf("README.md: not in guest/example_test.go:\n%s", s)
		}
	}
}

// TestOverview makes sure that the help of hvnet names all commands.
func TestOverview(t *testing.T) {
	for _, c := range []string{"demo", "run", "host --listen", "host ctl PATH ports", "up", "ethtool", "exec", "explain", "doctor", "channels", "capture", "top", "suspend", "vf timeline", "bench udp-fragments"} {
		if !strings.Contains(overview, "hvnet "+c+" ") {
			t.Errorf("the help does not name hvnet %s", c)
		}
	}
	for line := range strings.Lines(overview) {
		if len(line) > 81 {
			t.Errorf("longer than 80: %s", line)
		}
	}
}

// TestDocsDependencies makes sure that docs/dependencies.md has a line for each
// module that go.mod requires for the project itself, and for no other.
func TestDocsDependencies(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var required, documented []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(string(mod), -1) {
		required = append(required, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` ").FindAllStringSubmatch(pagesOf(t)["dependencies.md"], -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(required)
	slices.Sort(documented)
	if len(required) == 0 || !slices.Equal(required, documented) {
		t.Errorf("docs/dependencies.md has\n%q, go.mod requires\n%q", documented, required)
	}
}
