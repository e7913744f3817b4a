// Package need says what a test needs of the machine besides Go. What is missing
// skips the test, or fails it where the environment variable
// HVNET_REQUIRE_TOOLS is 1, as in continuous integration.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "needs root")
	}
}

// Tool skips the test unless the program is installed, and returns its path.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "needs the program "+name)
	}
	return path
}

func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("HVNET_REQUIRE_TOOLS") == "1" {
		t.Fatal(why + ", and HVNET_REQUIRE_TOOLS=1")
	}
	t.Skip(why)
}
