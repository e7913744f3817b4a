package sandbox

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/ethtool"
	"hvnet/internal/need"
	"hvnet/nic"
)

// probeEnv makes the test program one that does what its words say, one after the other,
// and prints a line for each.
const probeEnv = "HVNET_TEST_PROBE"

func probe(words []string) {
	in := bufio.NewReader(os.Stdin)
	for _, w := range words {
		switch what, name, _ := strings.Cut(w, ":"); what {
		case "driver":
			b := make([]byte, 196)
			b[0] = 3
			err := askEthtool(name, b)
			driver, _, _ := strings.Cut(string(b[4:36]), "\x00")
			fmt.Println(driver, err)
		case "channels":
			b := make([]byte, 36)
			b[0], b[32] = 0x3d, 2
			fmt.Println("set", askEthtool(name, b))
		case "netlink":
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC)
			unix.Close(fd)
			fmt.Println("netlink", err)
		case "nobody":
			runtime.LockOSThread()
			fmt.Println("nobody", syscall.Setresuid(65534, 65534, 65534))
		case "wait":
			fmt.Println("waits")
			in.ReadString('\n')
		case "privileges":
			b, _ := os.ReadFile("/proc/self/status")
			_, rest, _ := strings.Cut(string(b), "NoNewPrivs:\t")
			fmt.Println("gave up", rest[:1])
		case "serve": // and run the rest of the words
			os.Setenv(probeEnv, strings.Join(words[1:], " "))
			exit, err := Exec(context.Background(), Command{Args: []string{self}, Devices: devices})
			fmt.Println("served", exit, err)
			return
		}
	}
}

// askEthtool makes the system call.
func askEthtool(name string, b []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var ifreq [40]byte
	copy(ifreq[:15], name)
	binary.NativeEndian.PutUint64(ifreq[16:], uint64(uintptr(unsafe.Pointer(&b[0]))))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), siocEthtool, uintptr(unsafe.Pointer(&ifreq)))
	runtime.KeepAlive(b)
	if errno != 0 {
		return errno
	}
	return nil
}

// fakeNIC is the device of the interface "mine".
type fakeNIC struct{ ethtool.Device }

func (fakeNIC) DriverInfo() nic.DriverInfo                 { return nic.DriverInfo{Driver: "ours"} }
func (fakeNIC) Channels() nic.Channels                     { return nic.Channels{Max: 4, Combined: 1} }
func (fakeNIC) SetChannels(_ context.Context, _ int) error { return nil }

func devices(_ context.Context, _ uint64, name string) (ethtool.Device, error) {
	if name != "mine" {
		return nil, fmt.Errorf("find %s: %w", name, nic.ErrNoDevice)
	}
	return fakeNIC{}, nil
}

// self is the test program, for whoever may not enter the folder where it is.
const self = "/proc/self/exe"

// probed runs a probe by Exec, under the name of a program if there is one, and returns what it prints.
func probed(t *testing.T, program, words string, prefix ...string) string {
	t.Helper()
	path := self
	if program != "" {
		b, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(t.TempDir(), program)
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	exit, err := Exec(t.Context(), Command{
		Args: append(prefix, path), Env: []string{probeEnv + "=" + words}, Stdout: w, Stderr: w, Devices: devices,
		Unserved: func(err error) { t.Error(err) },
	})
	w.Close()
	out, _ := io.ReadAll(r)
	if exit != 0 || err != nil {
		t.Errorf("%s: status %d, %v", words, exit, err)
	}
	return string(out)
}

func TestExecServes(t *testing.T) {
	for _, x := range []struct{ program, words, want string }{
		{"", "driver:mine driver:lo driver:nosuch channels:mine", "ours <nil>\n operation not supported\n no such device\nset <nil>\n"},
		{"", "netlink", "netlink <nil>\n"},
		{"ethtool", "netlink driver:mine", "netlink protocol not supported\nours <nil>\n"},
		{"", "serve driver:mine", "ours <nil>\nserved 0 <nil>\n"}, // one in another: the outer one serves
	} {
		if x.words == "channels:mine" {
			need.Root(t)
		}
		want := x.want
		if os.Geteuid() != 0 {
			want = strings.Replace(want, "set <nil>", "set operation not permitted", 1)
		}
		if got := probed(t, x.program, x.words); got != want {
			t.Errorf("%s %s: prints %q, want %q", x.program, x.words, got, want)
		}
	}
}

// TestSandboxServes: commands of a sandbox are served too, and whoever made it is root
// there.
func TestSandboxServes(t *testing.T) {
	s := newSandbox(t)
	exit, out, err := run(t, s, Command{
		Args: []string{self}, Env: []string{probeEnv + "=driver:mine driver:lo channels:mine privileges"}, Devices: devices,
		Unserved: func(err error) { t.Error(err) },
	})
	if want := "ours <nil>\n operation not supported\nset <nil>\ngave up 0\n"; exit != 0 || err != nil || out != want {
		t.Errorf("status %d, %v: prints %q, want %q", exit, err, out, want)
	}
}

// TestPrivileges: what the kernel lets only an administrator of the network namespace do
// takes that right here, too. Root keeps the programs that change users.
func TestPrivileges(t *testing.T) {
	need.Root(t)
	need.Tool(t, "unshare")
	if got, want := probed(t, "", "privileges nobody driver:mine channels:mine"), "gave up 0\nnobody <nil>\nours <nil>\nset operation not permitted\n"; got != want {
		t.Errorf("nobody: prints %q, want %q", got, want)
	}
	// Who is root of a user namespace of his own has all capabilities, but not here.
	if got, want := probed(t, "probe", "driver:mine channels:mine", "unshare", "--user", "--map-root-user"), "ours <nil>\nset operation not permitted\n"; got != want {
		t.Errorf("in a user namespace: prints %q, want %q", got, want)
	}
	// With a network namespace of his own he has.
	if got, want := probed(t, "probe", "channels:mine", "unshare", "--user", "--map-root-user", "--net"), "set <nil>\n"; got != want {
		t.Errorf("in namespaces of its own: prints %q, want %q", got, want)
	}
}

// TestDeadSupervisor: when who serves is killed nobody hangs, and what is not ours fails
// too.
func TestDeadSupervisor(t *testing.T) {
	c := exec.Command(self)
	c.Env = append(os.Environ(), probeEnv+"=serve driver:mine wait driver:mine driver:lo wait")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe() // of our own, for it outlives the one who is started
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	out := bufio.NewReader(r)
	line := func(want string) {
		t.Helper()
		if got, err := out.ReadString('\n'); err != nil || got != want+"\n" {
			t.Fatalf("prints %q, %v, want %q", got, err, want)
		}
	}
	line("ours <nil>")
	line("waits")
	c.Process.Kill()
	c.Wait()
	fmt.Fprintln(in)
	line(" function not implemented")
	line(" function not implemented")
	line("waits")
	fmt.Fprintln(in)
	if rest, _ := io.ReadAll(out); len(rest) != 0 {
		t.Errorf("prints %q", rest)
	}
}
