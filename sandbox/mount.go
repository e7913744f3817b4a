package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const resolvConf = "/etc/resolv.conf"

// privateMounts makes this process' mounts its own, so that none is seen outside,
// and shows its process namespace in /proc.
func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Inside containers that hide parts of /proc the kernel refuses a fresh one.
	// The one that is there still answers for /proc/self; only process numbers
	// are those of outside.
	unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	return nil
}

// A resolver is the sandbox's own /etc/resolv.conf.
type resolver struct{ mounted bool }

// set writes the file, and at first mounts it over the machine's.
func (r *resolver) set(servers []netip.Addr) error {
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if r.mounted {
		return os.WriteFile(resolvConf, []byte(b.String()), 0o644)
	}
	if err := mountFile(resolvConf, []byte(b.String())); err != nil {
		return fmt.Errorf("mount a private %s: %w", resolvConf, err)
	}
	r.mounted = true
	return nil
}

// mountFile mounts a new file in memory over path. Its file system is mounted only
// for a moment, over any directory: nobody else sees these mounts, and nothing is
// left on disk.
func mountFile(path string, content []byte) error {
	const dir = "/tmp"
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if err := unix.Mount("hvnet", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	file := filepath.Join(dir, "file")
	err := os.WriteFile(file, content, 0o644)
	if err == nil {
		err = unix.Mount(file, path, "", unix.MS_BIND, "")
	}
	return errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
}
