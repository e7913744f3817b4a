package arch

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// trapTest is a test as docs/traps.md names it: `package.TestName/case`.
var trapTest = regexp.MustCompile("`([a-z0-9/]+)\\.(Test[A-Za-z0-9]+)(?:/([^`]+))?`")

// TestTrapsAreTested checks that each row of docs/traps.md names tests that exist.
// Of a case it looks for the name in the file that has the test.
func TestTrapsAreTested(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "docs/traps.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := testFiles(t)
	rows := 0
	for line := range strings.Lines(string(doc)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| trap |") {
			continue
		}
		rows++
		named := trapTest.FindAllStringSubmatch(line, -1)
		if want := strings.Count(line, "`") / 2; len(named) == 0 || len(named) != want {
			t.Errorf("%s: %d tests in %d pairs of backquotes", strings.TrimSpace(line), len(named), want)
		}
		for _, n := range named {
			text, ok := tests[n[1]+"."+n[2]]
			switch {
			case !ok:
				t.Errorf("there is no %s in package %s", n[2], n[1])
			case n[3] != "" && !strings.Contains(text, fmt.Sprintf("%q", n[3])):
				t.Errorf("%s.%s has no case %q", n[1], n[2], n[3])
			}
		}
	}
	if rows < 40 {
		t.Errorf("docs/traps.md: found %d rows, want at least 40", rows)
	}
}

var testFunc = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)

// testFiles returns the text of the file of each test, by package.TestName.
func testFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			files[pkg+"."+m[1]] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
