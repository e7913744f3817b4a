package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"hvnet/internal/need"
	"hvnet/link/tap"
	"hvnet/nic"
)

// ownerEnv makes the test program an owner that is to be killed.
const ownerEnv = "HVNET_TEST_OWNER"

func TestMain(m *testing.M) {
	MaybeHelper()
	if os.Getenv(ownerEnv) != "" {
		owner()
		return
	}
	if what := os.Getenv(probeEnv); what != "" {
		probe(strings.Fields(what))
		return
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or each helper takes a second to end
	goleak.VerifyTestMain(m)
}

// start makes a sandbox for the test, which is skipped where that is forbidden.
func newSandbox(t *testing.T) *Sandbox {
	t.Helper()
	s, err := New(t.Context(), Config{})
	if errors.Is(err, ErrForbidden) {
		need.Root(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// run runs a shell script and returns its exit status and what it wrote.
func run(t *testing.T, s *Sandbox, cmd Command) (int, string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		out <- string(b)
	}()
	cmd.Stdout, cmd.Stderr = w, w
	exit, err := s.Run(t.Context(), cmd)
	w.Close()
	return exit, <-out, err
}

func shell(script string) Command { return Command{Args: []string{"sh", "-c", script}} }

func TestNamespaces(t *testing.T) {
	s := newSandbox(t)
	exit, out, err := run(t, s, shell("readlink /proc/self/ns/net; echo $$; id -u"))
	if exit != 0 || err != nil {
		t.Fatalf("status %d, %v: %s", exit, err, out)
	}
	lines := strings.Fields(out)
	if want := fmt.Sprintf("net:[%d]", s.NetNSInode()); lines[0] != want {
		t.Errorf("namespace %s, want %s", lines[0], want)
	}
	if own, _ := os.Readlink("/proc/self/ns/net"); lines[0] == own {
		t.Errorf("the command is in our namespace %s", own)
	}
	if lines[2] != "0" {
		t.Errorf("user %s, want 0", lines[2])
	}
}

func TestLoopback(t *testing.T) {
	need.Tool(t, "ping")
	s := newSandbox(t)
	exit, out, err := run(t, s, Command{Args: []string{"ping", "-c", "2", "-i", "0.01", "127.0.0.1"}})
	if exit != 0 || err != nil || !strings.Contains(out, " 0% packet loss") {
		t.Errorf("status %d, %v:\n%s", exit, err, out)
	}
}

func TestExitStatus(t *testing.T) {
	s := newSandbox(t)
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("no program\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte{0x7f, 'E', 'L', 'F', 0}, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cmd  Command
		exit int
		err  error // of the kind
	}{
		{shell("exit 0"), 0, nil},
		{shell("exit 3"), 3, nil},
		{Command{Args: []string{"false"}}, 1, nil},
		{shell("kill -TERM $$"), 128 + 15, nil},
		{shell("kill -KILL $$"), 128 + 9, nil},
		{Command{Args: []string{"no-such-program"}}, 127, fs.ErrNotExist},
		{Command{Args: []string{"/no/such/program"}}, 127, fs.ErrNotExist},
		{Command{Args: []string{plain}}, 126, errAny},
		{Command{Args: []string{broken}}, 126, errAny},
		{Command{Args: []string{dir}}, 126, errAny},
		{Command{Args: []string{"plain"}, Env: []string{"PATH=" + dir}}, 126, errAny},
		{Command{Args: []string{"sh"}, Env: []string{"PATH="}}, 127, fs.ErrNotExist},
		{Command{}, 126, errAny},
	} {
		exit, out, err := run(t, s, c.cmd)
		if exit != c.exit {
			t.Errorf("%q: status %d, want %d: %v %s", c.cmd.Args, exit, c.exit, err, out)
		}
		if (err != nil) != (c.err != nil) || (c.err != nil && c.err != errAny && !errors.Is(err, c.err)) {
			t.Errorf("%q: error %v, want %v", c.cmd.Args, err, c.err)
		}
	}
}

var errAny = errors.New("any error")

func TestCommand(t *testing.T) {
	s := newSandbox(t)
	t.Setenv("HVNET_TEST_LATE", "set after New")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	io.WriteString(w, "from stdin")
	w.Close()
	cmd := shell(`pwd; echo "$A/$HVNET_TEST_LATE/$` + helperEnv + `"; cat`)
	cmd.Env, cmd.Dir, cmd.Stdin = []string{"A=1", "A=2"}, "/", r
	exit, out, err := run(t, s, cmd)
	if want := "/\n2//\nfrom stdin"; exit != 0 || err != nil || out != want {
		t.Errorf("status %d, %v, output %q, want %q", exit, err, out, want)
	}
}

func TestDescriptorsStayOut(t *testing.T) {
	s := newSandbox(t)
	_, out, err := run(t, s, shell("ls -l /proc/self/fd"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "socket:") {
		t.Errorf("the command has a socket of the helper:\n%s", out)
	}
}

func TestResolver(t *testing.T) {
	if _, err := os.Stat(resolvConf); err != nil {
		t.Skip("no " + resolvConf)
	}
	before, _ := os.ReadFile(resolvConf)
	s := newSandbox(t)
	for _, servers := range [][]netip.Addr{
		{netip.MustParseAddr("198.18.0.1")},
		{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("198.18.0.2")},
	} {
		if err := s.SetResolver(t.Context(), servers...); err != nil {
			t.Fatal(err)
		}
		want := ""
		for _, a := range servers {
			want += "nameserver " + a.String() + "\n"
		}
		_, out, err := run(t, s, shell("cat /etc/resolv.conf; ls /tmp >/dev/null"))
		if out != want || err != nil {
			t.Errorf("resolv.conf %q, want %q, %v", out, want, err)
		}
	}
	if err := s.SetResolver(t.Context()); err == nil {
		t.Error("no servers: no error")
	}
	if after, _ := os.ReadFile(resolvConf); !bytes.Equal(before, after) {
		t.Errorf("the machine's file has changed to %q", after)
	}
}

func TestTAP(t *testing.T) {
	s := newSandbox(t)
	eth0, err := s.OpenTAP(t.Context(), tap.Config{Name: "eth0", MAC: nic.MAC{0, 0x15, 0x5d, 1, 2, 3}})
	if os.Geteuid() != 0 && (errors.Is(err, tap.ErrPermission) || errors.Is(err, tap.ErrNoTun)) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer eth0.Close()
	addr := netip.MustParsePrefix("198.18.0.2/24")
	addr6 := netip.MustParsePrefix("fd00::2/64")
	ifc := Interface{
		Name: "eth0", MTU: 1400, Up: true,
		Addrs:     []netip.Prefix{addr, addr6},
		Routes:    []Route{DefaultRoute(netip.MustParseAddr("198.18.0.1")), DefaultRoute(netip.MustParseAddr("fd00::1")), {Dst: netip.MustParsePrefix("203.0.113.0/24")}},
		Neighbors: []Neighbor{{IP: netip.MustParseAddr("198.18.0.1"), MAC: [6]byte{0, 0x15, 0x5d, 0, 0, 1}}},
	}
	for range 2 { // the second changes nothing
		if err := s.Configure(t.Context(), ifc); err != nil {
			t.Fatal(err)
		}
	}
	check := func(script string, want ...string) {
		t.Helper()
		exit, out, err := run(t, s, shell(script))
		if exit != 0 || err != nil {
			t.Fatalf("%s: status %d, %v: %s", script, exit, err, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", script, w, out)
			}
		}
	}
	need.Tool(t, "ip")
	check("ip address show eth0", "mtu 1400", "198.18.0.2/24", "fd00::2/64", "00:15:5d:01:02:03", ",UP")
	check("ip route", "default via 198.18.0.1 dev eth0", "203.0.113.0/24 dev eth0")
	check("ip -6 route", "default via fd00::1 dev eth0")
	// A default route that was there before stays the way out.
	check("ip route add default via 198.18.0.9; ip -6 route add default via fd00::9; ip route get 192.0.2.1; ip -6 route get 2001:db8::1",
		"via 198.18.0.9", "via fd00::9")
	if err := s.Configure(t.Context(), ifc); err != nil {
		t.Fatal(err)
	}
	check("ip route get 192.0.2.1; ip -6 route get 2001:db8::1", "via 198.18.0.9", "via fd00::9")
	check("ip neighbor", "198.18.0.1 dev eth0 lladdr 00:15:5d:00:00:01 PERMANENT")

	// The list of addresses is complete; another part alone leaves it be.
	if err := s.Configure(t.Context(), Interface{Name: "eth0", MTU: 1500}); err != nil {
		t.Fatal(err)
	}
	check("ip address show eth0", "198.18.0.2/24")
	if err := s.Configure(t.Context(), Interface{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("198.18.9.2/24")}}); err != nil {
		t.Fatal(err)
	}
	check("ip address show eth0 | grep -c 'inet.*global'", "1")
	check("ip address show eth0", "198.18.9.2/24")

	// Frames come through the passed descriptors.
	buf := make([]byte, 2000)
	q := eth0.Queue(0)
	for {
		n, _, err := q.ReadFrame(buf, nil)
		if err == nil && n >= nic.MinFrame {
			break // IPv6 announces itself
		}
		if !errors.Is(err, nic.ErrNoFrame) {
			t.Fatal(n, err)
		}
		if err := q.Wait(); err != nil {
			t.Fatal(err)
		}
	}

	// Settings too, from outside the namespaces.
	if err := errors.Join(eth0.SetLink(nic.LinkState{Up: true, Mbps: 40000}), eth0.SetMTU(1280)); err != nil {
		t.Error(err)
	}
	check("ip address show eth0", "mtu 1280", "LOWER_UP")

	// Errors keep what they are.
	if _, err := s.OpenTAP(t.Context(), tap.Config{Name: "eth0"}); !errors.Is(err, tap.ErrExists) {
		t.Errorf("second eth0: %v, want ErrExists", err)
	}
	if err := s.Configure(t.Context(), Interface{Name: "eth7"}); !errors.Is(err, ErrNoInterface) {
		t.Errorf("eth7: %v, want ErrNoInterface", err)
	}
	bad := Interface{Name: "eth0", Routes: []Route{DefaultRoute(netip.MustParseAddr("192.0.2.1"))}}
	if err := s.Configure(t.Context(), bad); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("route by an unreachable gateway: %v, want ENETUNREACH", err)
	}

	eth0.Close()
	check("ip -o link | grep -c .", "1") // lo alone
}

func TestCancel(t *testing.T) {
	s := newSandbox(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		r.Read(make([]byte, 1)) // it has started
		cancel()
	}()
	cmd := shell("trap 'exit 9' TERM; echo; while :; do sleep 0.01; done")
	cmd.Stdout = w
	exit, err := s.Run(ctx, cmd)
	w.Close()
	if exit != 9 || err != nil {
		t.Errorf("status %d, %v, want the trap's 9", exit, err)
	}
}

func TestSignalForwarded(t *testing.T) {
	s := newSandbox(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		r.Read(make([]byte, 1)) // so Run has its handler
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	}()
	cmd := shell("trap 'exit 7' USR1; echo; while :; do sleep 0.01; done")
	cmd.Stdout = w
	exit, err := s.Run(t.Context(), cmd)
	w.Close()
	if exit != 7 || err != nil {
		t.Errorf("status %d, %v, want the trap's 7", exit, err)
	}
}

// TestClose closes a sandbox with a command and a daemon in it: both end, and
// whoever uses the sandbox hears of it.
func TestClose(t *testing.T) {
	s := newSandbox(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	result := make(chan error)
	go func() {
		cmd := shell("setsid sleep 1000 & echo; sleep 1000")
		cmd.Stdout = w
		_, err := s.Run(t.Context(), cmd)
		w.Close()
		result <- err
	}()
	r.Read(make([]byte, 1))
	s.Close()
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("Run: %v, want ErrClosed", err)
	}
	if _, err := io.ReadAll(r); err != nil { // ends with the last process
		t.Error(err)
	}
	<-s.Done()
	if err := s.Configure(t.Context(), Interface{Name: "lo"}); !errors.Is(err, ErrClosed) {
		t.Errorf("Configure: %v, want ErrClosed", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// owner makes a sandbox with a command and a daemon in it, says where, and waits to
// be killed.
func owner() {
	s, err := New(context.Background(), Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.NetNSInode())
	s.Run(context.Background(), shell("setsid sleep 1000 & echo ready; sleep 1000"))
}

func TestOwnerKilled(t *testing.T) {
	newSandbox(t).Close() // or skip
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), ownerEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for b := make([]byte, 100); !bytes.Contains(text, []byte("ready")); {
		n, err := out.Read(b)
		if text = append(text, b[:n]...); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	inode, _, _ := strings.Cut(string(text), "\n")
	if _, err := strconv.ParseUint(inode, 10, 64); err != nil {
		t.Fatalf("owner said %q", text)
	}
	cmd.Process.Kill()
	// Owner, helper and both commands hold the pipe: it ends with the last.
	if _, err := io.ReadAll(out); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, l := range links {
		if name, err := os.Readlink(l); err == nil && name == "net:["+inode+"]" {
			t.Errorf("%s is still in the namespace", l)
		}
	}
}

// TestOrdinaryUser runs the other tests as a user without rights.
func TestOrdinaryUser(t *testing.T) {
	need.Root(t)
	const nobody = 65534
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.skip=^TestOrdinaryUser$", "-test.count=1")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HVNET_REQUIRE_TOOLS=", "TMPDIR=/tmp", "GOCOVERDIR=", "HOME=/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestNamespaces")) {
		t.Errorf("namespaces were not tested:\n%s", out)
	}
	t.Logf("%s", out)
}

// TestNoHelper: a program that does not call MaybeHelper must not start itself over
// and over.
func TestNoHelper(t *testing.T) {
	t.Setenv(helperEnv, "1")
	if _, err := New(t.Context(), Config{}); err == nil || !strings.Contains(err.Error(), "MaybeHelper") {
		t.Errorf("in a helper: %v", err)
	}
}

// TestForbidden asks for a sandbox in a user namespace that may have no further
// namespaces.
func TestForbidden(t *testing.T) {
	need.Root(t) // who else may run the test program where it lies?
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "echo 0 >/proc/sys/user/max_net_namespaces && exec "+program)
	cmd.Env = append(os.Environ(), ownerEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if want := "make sandbox: " + ErrForbidden.Error(); !strings.HasPrefix(string(out), want) {
		t.Errorf("%v: %q, want %q…", err, out, want)
	}

	for _, err := range []error{unix.EPERM, unix.ENOSPC, fmt.Errorf("start: %w", unix.EINVAL)} {
		if !forbidden(err) {
			t.Errorf("%v: not taken as a refusal", err)
		}
	}
	if forbidden(ErrClosed) || forbidden(context.DeadlineExceeded) {
		t.Error("taken as a refusal")
	}
}
