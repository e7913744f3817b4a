// Command guest runs in a Linux guest and asks ethtool about the NIC eth0, by ioctl and
// by netlink. It prints a line of JSON for each command. Its argument is how many channels
// the NIC can have, or 0, see golden.Subject.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/internal/golden"
)

// fresh loads the driver anew, so that nothing that was set is left.
const fresh = `. /etc/lgv.sh
if [ -d /sys/module/hv_netvsc ]; then rmmod hv_netvsc || exit; fi
lgv_netvsc && lgv_wait 10 '[ "$(ls -d /sys/class/net/eth0/queues/rx-*)" ]'`

// complaints are the kernel's warnings and worse about the NIC, or about itself.
const complaints = `dmesg -r | grep -E '^<[0-4]>.*(hv_|vmbus|eth0|WARNING|BUG|Oops|hung|blocked)' | grep -v '^<[0-4]>.* lgv_shim: '; true`

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "golden texts:", err)
		os.Exit(1)
	}
}

func run() error {
	channels, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	if len(os.Args) > 2 {
		return session(golden.Path(os.Args[2]), golden.Subject{Channels: channels})
	}
	if err := report(golden.Report{Kernel: first("uname", "-rv"), Ethtool: first("ethtool", "--version")}); err != nil {
		return err
	}
	for _, path := range []golden.Path{golden.Ioctl, golden.Netlink} {
		if out, err := exec.Command("/bin/sh", "-c", fresh).CombinedOutput(); err != nil {
			return fmt.Errorf("load hv_netvsc: %w\n%s", err, out)
		}
		// Denying a system call can't be taken back, so each way has a process.
		c := exec.Command("/proc/self/exe", os.Args[1], string(path))
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("by %s: %w", path, err)
		}
	}
	said, err := exec.Command("/bin/sh", "-c", complaints).Output()
	if err != nil {
		return fmt.Errorf("read the kernel's messages: %w", err)
	}
	return report(golden.Report{Complaints: string(said)})
}

// session runs a subject's commands and reports their answers.
func session(path golden.Path, of golden.Subject) error {
	runtime.LockOSThread() // the filter is this thread's, and its children's
	if path == golden.Ioctl {
		if err := denyGenericNetlink(); err != nil {
			return fmt.Errorf("deny generic netlink: %w", err)
		}
		if of.Channels == 0 {
			for _, c := range golden.UsageCommands() {
				if err := answer("", c); err != nil {
					return err
				}
			}
		}
	}
	for _, c := range of.Commands() {
		if err := answer(path, c); err != nil {
			return err
		}
	}
	return nil
}

func answer(path golden.Path, command string) error {
	text, err := golden.Ask(command)
	if err != nil {
		return err
	}
	return report(golden.Report{Path: path, Text: &text})
}

func report(r golden.Report) error { return json.NewEncoder(os.Stdout).Encode(r) }

// first returns the first line that a program prints.
func first(argv ...string) string {
	out, _ := exec.Command(argv[0], argv[1:]...).Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// denyGenericNetlink lets no program that this thread starts have a socket of generic
// netlink: ethtool then uses ioctl, as on a kernel without. Netlink for addresses and
// links is left.
func denyGenericNetlink() error {
	const (
		number = 0  // struct seccomp_data: the system call,
		arg0   = 16 // and its arguments, the lower half of each first
		arg2   = 32
	)
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: skip}
	}
	end := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_SOCKET, 5),
		load(arg0), unless(unix.AF_NETLINK, 3),
		load(arg2), unless(unix.NETLINK_GENERIC, 1),
		end(unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)),
		end(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
