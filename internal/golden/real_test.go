package golden_test

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hvnet/internal/golden"
	"hvnet/internal/need"
)

//go:embed odd.cmd
var oddCommands string

// askEnv has the test binary ask ethtool instead of testing, in the namespace of `hvnet
// run`: its value is the profile of the host.
const askEnv = "HVNET_GOLDEN_ASK"

func TestMain(m *testing.M) {
	if profile := os.Getenv(askEnv); profile != "" {
		os.Unsetenv(askEnv)
		if err := ask(profile); err != nil {
			fmt.Fprintln(os.Stderr, "ask ethtool:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ask runs all commands and prints the answers as JSON.
func ask(profile string) error {
	linux, err := golden.Device(profile, golden.Ioctl)
	if err != nil {
		return err
	}
	texts := linux.Texts
	for _, l := range strings.Split(oddCommands, "\n") {
		if strings.HasPrefix(l, "ethtool") {
			texts = append(texts, golden.Text{Command: l, Status: -1})
		}
	}
	out := json.NewEncoder(os.Stdout)
	before := ""
	for _, want := range texts {
		got, err := golden.Ask(want.Command)
		// What `ip` does to the interface reaches the driver a moment later.
		for until := time.Now().Add(golden.Patience); err == nil && strings.HasPrefix(before, "ip ") && shows(want.Command) &&
			got.Normal() != want && time.Now().Before(until); {
			got, err = golden.Ask(want.Command)
		}
		if err != nil {
			return err
		}
		before = want.Command
		if err := out.Encode(got.Normal()); err != nil {
			return err
		}
	}
	return nil
}

// shows reports whether a command changes nothing.
func shows(command string) bool {
	words := strings.Fields(command)
	return words[0] == "ethtool" && !slices.Contains([]string{"-L", "-G", "--set-ring", "--set-channels"}, words[1])
}

// TestReal has the real ethtool ask our driver, in `hvnet run`, all that Linux's driver was
// asked by ioctl, and compares; and has our own ethtool, by that name, asked the same.
func TestReal(t *testing.T) {
	if testing.Short() {
		t.Skip("it asks some thousand times")
	}
	need.Root(t)
	need.Tool(t, "ethtool")
	need.Tool(t, "ip")
	dir, err := os.MkdirTemp("", "golden") // not t.TempDir, which is for one user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	hvnet := filepath.Join(dir, "hvnet")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", hvnet, "hvnet/cmd/hvnet")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ours := filepath.Join(dir, "bin")
	if err := errors.Join(os.Mkdir(ours, 0o755), os.Symlink(hvnet, filepath.Join(ours, "ethtool"))); err != nil {
		t.Fatal(err)
	}
	profiles := []string{"ws2022", "ws2016", "ws2012"}
	if !need.All() {
		profiles = profiles[:1]
	}
	for _, profile := range profiles {
		t.Run(profile, func(t *testing.T) {
			linux, err := golden.Device(profile, golden.Ioctl)
			if err != nil {
				t.Fatal(err)
			}
			real := session(t, hvnet, profile, os.Getenv("PATH"))
			own := session(t, hvnet, profile, ours+":"+os.Getenv("PATH"))
			if len(real) != len(own) || len(real) < len(linux.Texts)+150 {
				t.Fatalf("%d answers of the real ethtool, %d of ours", len(real), len(own))
			}
			before := ""
			for i := range real {
				if i < len(linux.Texts) {
					compare(t, "Linux", linux.Texts[i], "real ethtool on ours", real[i], before, realExceptions)
				}
				compare(t, "real ethtool", real[i], "our ethtool", own[i], before, ownExceptions)
				before = real[i].Command
			}
		})
	}
}

// session returns the answers in an `hvnet run`, with ethtool found in path.
func session(t *testing.T, hvnet, profile, path string) (texts []golden.Text) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	linux, err := golden.Device(profile, golden.Ioctl)
	if err != nil {
		t.Fatal(err)
	}
	mac := "02:15:5d:00:00:01"
	for _, text := range linux.Texts {
		if text.Command == "ethtool -P eth0" {
			mac = strings.TrimSpace(strings.TrimPrefix(text.Stdout, "Permanent address: "))
		}
	}
	c := exec.CommandContext(t.Context(), hvnet, "run", "--profile", profile, "--vcpus", "4", "--mac", mac, "--", self)
	c.Env = append(os.Environ(), askEnv+"="+profile, "PATH="+path)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = golden.Patience
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, &stderr)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var text golden.Text
		if err := d.Decode(&text); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	return texts
}

// compare compares two answers, with the exceptions that hold for them.
func compare(t *testing.T, wantName string, want golden.Text, gotName string, got golden.Text, before string, exceptions []exception) {
	t.Helper()
	for _, e := range exceptions {
		if e.command.MatchString(want.Command) && (e.after == "" || e.after == before) && want != got {
			e.same(&want, &got)
		}
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("after %s: %s\n-%s +%s:\n%s", before, want.Command, wantName, gotName, diff)
	}
}
