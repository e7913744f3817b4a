package function

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/internal/need"
)

// TestUser runs tests of this package where an ordinary user may: in a user namespace.
func TestUser(t *testing.T) {
	const inner = "HVNET_TEST_USER"
	if os.Getenv(inner) != "" {
		t.Skip("in it already")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^(TestFrames|TestSilence|TestDrain)$", "-test.short", "-test.v")
	cmd.Env = append(os.Environ(), inner+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		need.Root(t) // who is not may be refused such a namespace
		t.Fatal(err)
	}
	if err != nil {
		t.Errorf("in a user namespace: %v\n%s", err, out)
	}
}
