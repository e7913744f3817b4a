package kernel_test

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"hvnet/ethtool"
	"hvnet/ethtool/kernel"
	"hvnet/ethtool/layout"
	"hvnet/internal/need"
	"hvnet/nic"
	"hvnet/sandbox"
)

//go:embed testdata/setup
var setup string

//go:embed testdata/commands
var commands string

// modeEnv has the test binary be one of those that the test compares: "ours", or "real",
// which is the parent of "asks". Each is in a network namespace of its own.
const modeEnv = "HVNET_KERNEL_TEST"

func TestMain(m *testing.M) {
	sandbox.MaybeHelper()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or each helper takes a second to end
	var err error
	switch os.Getenv(modeEnv) {
	case "":
		os.Exit(m.Run())
	case "ours":
		if err = makeInterfaces(); err == nil {
			err = ask(ours)
		}
	case "real":
		if err = makeInterfaces(); err == nil {
			_, err = sandbox.Exec(context.Background(), sandbox.Command{
				Args: []string{"/proc/self/exe"}, Env: []string{modeEnv + "=asks"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
				Devices: func(context.Context, uint64, string) (ethtool.Device, error) { return nil, nic.ErrNoDevice },
			})
		}
	case "asks":
		err = ask(real)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// makeInterfaces makes one of each kind that this kernel has.
func makeInterfaces() error {
	for l := range strings.Lines(setup) {
		args := strings.Fields(l)
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "Unknown device type") && !strings.Contains(string(out), "Cannot find device") {
			return fmt.Errorf("ip %s: %w: %s", strings.TrimSpace(l), err, out)
		}
	}
	return nil
}

// An answer is what a command had to say.
type answer struct {
	Command, Stdout, Stderr string
	Status                  int
}

// ask runs all commands on all interfaces, and prints the answers.
func ask(run func(args []string, stdout, stderr *bytes.Buffer) int) error {
	out := json.NewEncoder(os.Stdout)
	for l := range strings.Lines(commands) {
		if l = strings.TrimSpace(l); l == "" || l[0] == '#' {
			continue
		}
		for _, name := range []string{"lo", "veth", "queues", "bridge", "tap", "tun", "ifb", "dummy", "nosuch"} {
			var stdout, stderr bytes.Buffer
			args := strings.Fields(strings.ReplaceAll(l, "DEV", name))
			status := run(args, &stdout, &stderr)
			if err := out.Encode(answer{strings.Join(args, " "), stdout.String(), stderr.String(), status}); err != nil {
				return err
			}
		}
	}
	return nil
}

func ours(args []string, stdout, stderr *bytes.Buffer) int {
	return ethtool.Run(context.Background(), args, func(name string) (ethtool.Device, error) { return kernel.Device(name) }, stdout, stderr)
}

func real(args []string, stdout, stderr *bytes.Buffer) int {
	c := exec.Command("ethtool", args...)
	c.Stdout, c.Stderr = stdout, stderr
	c.Run()
	return c.ProcessState.ExitCode()
}

// TestAlike: on each kind of interface without hardware, each command has the text and the
// exit status of the real program where that speaks ioctl.
func TestAlike(t *testing.T) {
	need.Root(t)
	need.Tool(t, "ethtool")
	need.Tool(t, "ip")
	want, got := answers(t, "real"), answers(t, "ours")
	if len(want) != len(got) || len(want) < 500 {
		t.Fatalf("%d answers of the real ethtool, %d of ours", len(want), len(got))
	}
	good := 0
	for i := range want {
		if want[i].Status == 0 {
			good++
		}
		if d := cmp.Diff(want[i], got[i]); d != "" {
			t.Errorf("ethtool %s: -real +ours:\n%s", want[i].Command, d)
		}
	}
	if good < 100 {
		t.Errorf("only %d of %d commands had success", good, len(want))
	}
}

// answers runs this program in a mode.
func answers(t *testing.T, mode string) (list []answer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(os.Environ(), modeEnv+"="+mode, "LC_ALL=C")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%s: %v\n%s", mode, err, &stderr)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var a answer
		if err := d.Decode(&a); err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

// TestDevice: what needs neither rights nor an interface besides lo.
func TestDevice(t *testing.T) {
	for _, name := range []string{"", "nosuch", strings.Repeat("x", 16), "a\x00b"} {
		if _, err := kernel.Device(name); !errors.Is(err, nic.ErrNoDevice) {
			t.Errorf("%q: %v", name, err)
		}
	}
	lo, err := kernel.Device("lo")
	if err != nil {
		t.Fatal(err)
	}
	names, err := lo.FeatureNames()
	if f := lo.Features(); err != nil || len(names) < 40 || f.Active == 0 {
		t.Errorf("features %+v, %d names, %v", f, len(names), err)
	}
	word := func(command uint32, size int) []byte {
		b := make([]byte, size)
		layout.Order.PutUint32(b, command)
		return b
	}
	if _, err := lo.Ask(word(layout.GCHANNELS, 36)); !errors.Is(err, nic.ErrNotSupported) {
		t.Errorf("channels of lo: %v", err)
	}
	if _, err := lo.Ask(nil); !errors.Is(err, nic.ErrInvalid) {
		t.Errorf("nothing asked: %v", err)
	}
	// A structure that ends too soon: nothing behind it may be written.
	if _, err := lo.Ask(word(layout.GETTSINFO, 4)); !errors.Is(err, unix.EFAULT) || err.Error() != "Bad address" {
		t.Errorf("half a structure: %v", err)
	}
	if os.Geteuid() != 0 {
		if _, err := lo.Ask(word(layout.SFEATURES, 8)); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a setting by a user: %v", err)
		}
	}
}
