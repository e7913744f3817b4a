// Package linuxguest boots stock Linux in QEMU for tests and runs commands in it: the
// kernel of a distribution with its own hv_vmbus and hv_netvsc, on a host of ours.
// peers/linux-guest is how that works.
package linuxguest

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hvnet/internal/need"
)

// Patience is how long a command in the guest may take, and the boot.
const Patience = 90 * time.Second

// harness is the folder of run.sh and build.sh, as tests of a package two levels below
// the root see it.
const harness = "../../peers/linux-guest"

// Kernels are those that build.sh makes, and what run.sh calls them.
var Kernels = []string{"6.1", "6.12", "newest"}

// A Machine says what to boot.
type Machine struct {
	Kernel string   // one of Kernels; empty: 6.1
	CPUs   int      // 0: 2. With 1, QEMU emulates two and Linux uses one.
	Nodes  int      // NUMA nodes that they are divided over in equal runs; 0: 1
	Load   string   // what is loaded at first, as run.sh's -d; empty: netvsc
	Args   []string // more kernel arguments
	Files  []string // SRC:DST, put into the guest
}

// VPs returns how many processors the host has to give to the machine.
func (m Machine) VPs() int { return max(cmp.Or(m.CPUs, 2), 2) }

// patchesItself reports whether the kernel is one that now and then falls over its own
// patching while a second processor of QEMU's runs. It boots with one, then.
func (m Machine) patchesItself() bool { return cmp.Or(m.Kernel, "6.1") != "6.1" && m.CPUs != 1 }

// args returns the kernel's arguments.
func (m Machine) args() string {
	args := m.Args
	if m.CPUs == 1 || m.patchesItself() {
		// QEMU makes the guest's locked instructions atomic only with more than
		// one processor, and Linux leaves the lock out on one.
		args = append([]string{"maxcpus=1", "noreplace-smp"}, args...)
	}
	return strings.Join(args, " ")
}

// A Guest is a booted machine.
type Guest struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines chan string
	ended chan struct{}

	mu      sync.Mutex
	console []string
}

// Need skips the test where Linux can't be booted, or is not asked to be.
func Need(t testing.TB, kernel string) {
	t.Helper()
	need.Long(t, "make linux")
	need.Tool(t, "qemu-system-x86_64")
	need.File(t, filepath.Join(buildDir(kernel), "initrd.gz"), "KERNEL="+kernel+" peers/linux-guest/build.sh")
}

// buildDir returns where build.sh has put a kernel.
func buildDir(kernel string) string {
	dir := os.Getenv("BUILD")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "linux-guest-build")
	}
	if kernel == "6.1" {
		return dir
	}
	return filepath.Join(dir, kernel)
}

// Boot starts a machine whose host listens on socket and takes ram for its memory,
// and waits until it takes commands. It goes with the test.
func Boot(t testing.TB, m Machine, socket, ram string) *Guest {
	t.Helper()
	Need(t, cmp.Or(m.Kernel, "6.1"))
	load := cmp.Or(m.Load, "netvsc")
	later := "true"
	if m.patchesItself() {
		later = "for c in /sys/devices/system/cpu/cpu[1-9]*/online; do echo 1 >$c; done"
		if load != "none" {
			later += "; lgv_" + load
		}
		load = "none"
	}
	argv := []string{
		"-i", "-H", "-", "-S", socket, "-R", ram, "-t", "3600",
		"-k", cmp.Or(m.Kernel, "6.1"), "-c", strconv.Itoa(m.VPs()), "-n", strconv.Itoa(max(m.Nodes, 1)), "-d", load, "-a", m.args(),
	}
	for _, f := range m.Files {
		argv = append(argv, "-f", f)
	}
	g := &Guest{lines: make(chan string, 1000), ended: make(chan struct{})}
	g.cmd = exec.Command(filepath.Join(harness, "run.sh"), append(argv, "--", "lgv_shell")...)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.cmd.Stderr = g.cmd.Stdout
	if g.input, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go g.read(out)
	t.Cleanup(g.Kill)
	if _, status, err := g.answer(); err != nil || status != 0 {
		t.Fatalf("boot Linux: %v\n%s", err, g.Console())
	}
	g.Run(t, later)
	return g
}

// read takes what the guest prints until it ends.
func (g *Guest) read(out io.Reader) {
	defer close(g.ended)
	defer g.cmd.Wait()
	defer close(g.lines)
	for s := bufio.NewScanner(out); s.Scan(); {
		g.mu.Lock()
		g.console = append(g.console, s.Text())
		g.mu.Unlock()
		g.lines <- s.Text()
	}
}

// Console returns all that the guest has printed.
func (g *Guest) Console() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.console, "\n")
}

var done = regexp.MustCompile(`LGV-DONE (\d+)`)

var errEnded = errors.New("the guest has ended")

// answer waits for the end of a command, and returns what was printed before.
func (g *Guest) answer() (out string, status int, err error) {
	var said []string
	late := time.NewTimer(Patience)
	defer late.Stop()
	for {
		select {
		case line, ok := <-g.lines:
			if !ok {
				return strings.Join(said, "\n"), -1, errEnded
			}
			if m := done.FindStringSubmatch(line); m != nil {
				status, err = strconv.Atoi(m[1])
				return strings.Join(said, "\n"), status, err
			}
			said = append(said, line)
		case <-late.C:
			return strings.Join(said, "\n"), -1, fmt.Errorf("no answer within %v: %w", Patience, os.ErrDeadlineExceeded)
		}
	}
}

// Try runs a shell command line in the guest and returns what it prints and its exit
// status.
func (g *Guest) Try(t testing.TB, command string) (out string, status int) {
	t.Helper()
	if _, err := io.WriteString(g.input, command+"\n"); err != nil {
		t.Fatalf("run %q in the guest: %v", command, err)
	}
	out, status, err := g.answer()
	if err != nil {
		t.Fatalf("run %q in the guest: %v\n%s", command, err, g.Console())
	}
	return out, status
}

// Run runs a shell command line that has to succeed.
func (g *Guest) Run(t testing.TB, command string) string {
	t.Helper()
	out, status := g.Try(t, command)
	if status != 0 {
		kernel, _ := g.Try(t, "dmesg | tail -30")
		t.Fatalf("run %q in the guest: status %d\n%s\nIts kernel says:\n%s", command, status, out, kernel)
	}
	return out
}

// Poll runs a command until it succeeds.
func (g *Guest) Poll(t testing.TB, command string) {
	t.Helper()
	g.Run(t, fmt.Sprintf("lgv_wait 30 %s", quote(command)))
}

// quote makes one word of the shell out of a text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Stop has the guest end by itself, and checks that it does.
func (g *Guest) Stop(t testing.TB) {
	t.Helper()
	io.WriteString(g.input, "exit\n")
	late := time.NewTimer(Patience)
	defer late.Stop()
	for {
		select {
		case <-g.lines:
		case <-g.ended:
			if status := g.cmd.ProcessState.ExitCode(); status != 0 {
				t.Fatalf("the guest ended with status %d\n%s", status, g.Console())
			}
			return
		case <-late.C:
			t.Fatalf("the guest does not end\n%s", g.Console())
		}
	}
}

// Kill ends QEMU at once.
func (g *Guest) Kill() {
	g.cmd.Process.Signal(syscall.SIGTERM)
	for {
		select {
		case <-g.lines:
		case <-g.ended:
			return
		}
	}
}
