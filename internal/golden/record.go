package golden

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A Report is a line that the program in the guest prints, with some of its fields.
type Report struct {
	Kernel     string `json:",omitempty"` // release and version
	Ethtool    string `json:",omitempty"` // version
	Path       Path   `json:",omitempty"` // of the text; empty: of both
	Text       *Text  `json:",omitempty"`
	Complaints string `json:",omitempty"` // the kernel's messages of a level that is worse than notice
}

// A Recording is what one boot has answered.
type Recording struct {
	Usage      Session
	Device     map[Path]Session
	Complaints string
}

// Record boots Linux and has the commands answered. root is the module's folder.
func Record(ctx context.Context, root string, of Subject) (Recording, error) {
	dir, err := os.MkdirTemp("", "golden")
	if err != nil {
		return Recording{}, fmt.Errorf("record golden texts: %w", err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "guest")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./internal/golden/guest")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return Recording{}, fmt.Errorf("record golden texts: %w\n%s", err, out)
	}
	boot := exec.CommandContext(ctx, filepath.Join(root, "peers/linux-guest/run.sh"), "-q", "-t", "600", "-m", "1024",
		"-c", fmt.Sprint(max(2, of.CPUs())), "-d", "vmbus", "-O", "--profile "+of.Profile, "-f", program+":/golden")
	boot.Env = os.Environ()
	if of.CPUs() == 1 { // QEMU has to have two, and nobody knows of the second
		boot.Args = append(boot.Args, "-a", "nr_cpus=1 noreplace-smp")
		boot.Env = append(boot.Env, "LGV_VPS=1")
	}
	if of.CPUs() > 8 {
		// With a thread for each of them they all wait for each other.
		boot.Env = append(boot.Env, "LGV_ACCEL=tcg,thread=single")
	}
	boot.Args = append(boot.Args, "--", fmt.Sprint("dmesg -n 1; /golden ", of.Channels))
	boot.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	boot.Cancel = func() error { return boot.Process.Signal(syscall.SIGTERM) } // it has to end QEMU
	boot.WaitDelay = 10 * time.Second
	out, err := boot.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s%s", err, out, exit.Stderr)
		}
		return Recording{}, fmt.Errorf("record golden texts of %s: %w", of, err)
	}
	r, err := collect(of, out)
	if err != nil {
		return Recording{}, fmt.Errorf("record golden texts of %s: %w", of, err)
	}
	return r, nil
}

// collect makes sessions of what the program in the guest prints.
func collect(of Subject, out []byte) (Recording, error) {
	r := Recording{Device: map[Path]Session{}}
	var about Report
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var line Report
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			return r, fmt.Errorf("the guest prints %q: %w", s.Text(), err)
		}
		if line.Kernel != "" {
			about = line
		}
		r.Complaints += line.Complaints
		switch t := line.Text; {
		case t == nil:
		case line.Path == "":
			r.Usage.Texts = append(r.Usage.Texts, t.Normal())
		default:
			d := r.Device[line.Path]
			d.Texts = append(d.Texts, t.Normal())
			r.Device[line.Path] = d
		}
	}
	if n, want := len(r.Usage.Texts), len(UsageCommands()); n != want && of.Channels == 0 {
		return r, fmt.Errorf("%d answers of %d", n, want)
	}
	r.Usage.Head = head("What ethtool says without a device, generic netlink denied.", of, about)
	for _, path := range []Path{Ioctl, Netlink} {
		d := r.Device[path]
		if n, want := len(d.Texts), len(of.Commands()); n != want {
			return r, fmt.Errorf("%d answers of %d by %s", n, want, path)
		}
		how := map[Path]string{Ioctl: "with generic netlink denied: by ioctl", Netlink: "with generic netlink, as usual"}[path]
		d.Head = head(fmt.Sprintf("What ethtool says of Linux's hv_netvsc on our host %s, %s.", of.Profile, how), of, about)
		r.Device[path] = d
	}
	return r, nil
}

// head is what stands above the texts.
func head(what string, of Subject, about Report) string {
	return strings.Join([]string{
		what,
		"",
		"kernel:  " + about.Kernel,
		about.Ethtool,
		fmt.Sprintf("guest:   %d processors, in QEMU", of.CPUs()),
		"",
		"Made by `make golden`; README.md says how to read it.",
		"", "",
	}, "\n")
}
