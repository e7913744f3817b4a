// Package need skips tests that need more than Go: a tool or a right that this
// machine may not have. With HVNET_REQUIRE_TOOLS=1 in the environment, as in
// continuous integration where all is installed, such a test fails instead.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Tool returns the path of a program, or skips the test if there is none.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "the program "+name)
	}
	return path
}

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "to run as root")
	}
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("HVNET_REQUIRE_TOOLS") == "1" {
		t.Fatalf("this test needs %s, and HVNET_REQUIRE_TOOLS=1 forbids to skip it", what)
	}
	t.Skipf("this test needs %s", what)
}

// Long skips a test that takes minutes, unless HVNET_LONG=1 asks for such tests. how
// is the command that does.
func Long(t testing.TB, how string) {
	t.Helper()
	if !All() {
		t.Skipf("this test takes minutes: %s runs it", how)
	}
}

// All reports whether a test that has a short form shall try everything: HVNET_LONG=1
// asks for that, or HVNET_REQUIRE_TOOLS=1.
func All() bool {
	return os.Getenv("HVNET_LONG") == "1" || os.Getenv("HVNET_REQUIRE_TOOLS") == "1"
}

// File skips the test if a file is not there. how is the command that makes it.
func File(t testing.TB, path, how string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		missing(t, path+", which "+how+" makes")
	}
}
