// Package arch checks the rules on what may import what. The rules are the
// package table of docs/architecture.md.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	module = "hvnet"
	root   = "../.."
)

// lowLevel lists the packages that may use unsafe and make system calls. A name
// that ends in / stands for all below it.
var lowLevel = []string{"hv", "hv/", "ring", "link/", "sandbox", "control", "ethtool/kernel", "doctor/gather"}

// free lists what stands above the table: commands, and helpers of tests.
var free = []string{"cmd/", "internal/", "hv/internal/", "examples/"}

var tableRow = regexp.MustCompile("^\\| `([^`]+)` \\|[^|]*\\|([^|]*)\\|$")

// table reads the package table: package → what it may import. nil means all.
func table(t *testing.T) map[string][]string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string][]string{}
	for line := range strings.Lines(string(doc)) {
		m := tableRow.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		rules[m[1]] = []string{}
		if strings.TrimSpace(m[2]) == "*all*" {
			rules[m[1]] = nil
			continue
		}
		for _, name := range strings.Fields(m[2]) {
			rules[m[1]] = append(rules[m[1]], strings.Trim(name, "`"))
		}
	}
	if len(rules) < 10 {
		t.Fatalf("docs/architecture.md: found %d rows of the package table, want at least 10", len(rules))
	}
	return rules
}

// imports returns, for each package of the module, what its non-test files import.
func imports(t *testing.T) map[string]map[string]bool {
	t.Helper()
	found := map[string]map[string]bool{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		if found[rel] == nil {
			found[rel] = map[string]bool{}
		}
		for _, spec := range f.Imports {
			found[rel][strings.Trim(spec.Path.Value, `"`)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func matches(name string, list []string) bool {
	return slices.ContainsFunc(list, func(l string) bool {
		return name == l || strings.HasSuffix(l, "/") && strings.HasPrefix(name, l)
	})
}

func TestImportsFollowTheTable(t *testing.T) {
	rules := table(t)
	found := imports(t)
	for _, pkg := range slices.Sorted(maps.Keys(found)) {
		if matches(pkg, free) {
			continue
		}
		allowed, ok := rules[pkg]
		if !ok {
			t.Errorf("package %s is not in the package table of docs/architecture.md", pkg)
			continue
		}
		for imp := range found[pkg] {
			inner, ours := strings.CutPrefix(imp, module+"/")
			if !ours || inner == "internal/need" {
				continue
			}
			if !slices.Contains(allowed, inner) {
				t.Errorf("%s imports %s: the package table of docs/architecture.md does not allow it", pkg, inner)
			}
		}
	}
	for pkg := range rules {
		if found[pkg] == nil {
			t.Errorf("docs/architecture.md lists package %s, which does not exist", pkg)
		}
	}
}

func TestSystemCallsStayLow(t *testing.T) {
	for pkg, imps := range imports(t) {
		if matches(pkg, lowLevel) {
			continue
		}
		for _, low := range []string{"unsafe", "golang.org/x/sys/unix", "C"} {
			if imps[low] && !strings.HasPrefix(pkg, "internal/") {
				t.Errorf("%s imports %s: only %s may", pkg, low, strings.Join(lowLevel, ", "))
			}
		}
		if imps["syscall"] && !matches(pkg, free) {
			t.Errorf("%s imports syscall: only %s may", pkg, strings.Join(lowLevel, ", "))
		}
	}
}
