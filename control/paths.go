package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// runtimeEnv names the runtime directory, over the rule. A command in a user
// namespace sees another user than who started it, so the rule would lead it
// elsewhere: who starts it hands it this (see [Environment]).
const runtimeEnv = "HVNET_RUNTIME_DIR"

// RuntimeDir returns the directory below which drivers have their sockets:
// $HVNET_RUNTIME_DIR if that is set, else /run/hvnet for root,
// $XDG_RUNTIME_DIR/hvnet for others, and /tmp/hvnet-UID for those without one. It
// need not exist.
func RuntimeDir() string { return runtimeDir(os.Getenv, os.Geteuid()) }

func runtimeDir(getenv func(string) string, uid int) string {
	if d := getenv(runtimeEnv); d != "" {
		return d
	}
	if uid == 0 {
		return "/run/hvnet"
	}
	if d := getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "hvnet")
	}
	return "/tmp/hvnet-" + strconv.Itoa(uid)
}

// Environment returns the environment variables, NAME=value, by which a command in
// another user namespace finds the drivers of this user.
func Environment() []string { return []string{runtimeEnv + "=" + RuntimeDir()} }

// NetNSInode returns the inode number of this process' network namespace, the
// number in net:[…].
func NetNSInode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("find network namespace: %w", err)
	}
	return st.Ino, nil
}

// Interfaces returns the names of the interfaces of a network namespace that have a
// driver running, sorted.
func Interfaces(netns uint64) ([]string, error) {
	dir := namespaceDir(netns)
	if err := checkDir(RuntimeDir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list drivers: %w", err)
	}
	var names []string
	for _, e := range entries {
		if checkName(e.Name()) == nil && alive(filepath.Join(dir, e.Name())) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func namespaceDir(netns uint64) string {
	return filepath.Join(RuntimeDir(), "net-"+strconv.FormatUint(netns, 10))
}

// socketPath returns the path of a driver's socket.
func socketPath(netns uint64, iface string) string {
	return filepath.Join(namespaceDir(netns), iface)
}

// checkName refuses what is not the name of an interface and so could lead out of
// the directory. No driver has such an interface.
func checkName(iface string) error {
	if iface == "" || len(iface) >= unix.IFNAMSIZ || iface[0] == '.' || strings.ContainsAny(iface, "/\x00") {
		return fmt.Errorf("interface name %q: %w", iface, nic.ErrNoDevice)
	}
	return nil
}

// makeDirs makes the directory of a namespace's sockets, for the user alone.
func makeDirs(netns uint64) error {
	top := RuntimeDir()
	sweep(top, time.Now())
	for _, d := range []string{top, namespaceDir(netns)} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make runtime directory: %w", err)
		}
		if err := checkDir(d); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what killed drivers left. It leaves alone a socket of less than a
// minute: its server may be about to listen.
func sweep(top string, now time.Time) {
	if checkDir(top) != nil {
		return
	}
	sockets, _ := filepath.Glob(filepath.Join(top, "net-*", "*"))
	for _, path := range sockets {
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode().Type() != fs.ModeSocket || now.Sub(fi.ModTime()) < time.Minute || alive(path) {
			continue
		}
		os.Remove(path)
		os.Remove(filepath.Dir(path)) // if that was the last
	}
}

// checkDir refuses a directory in which others could put sockets of their own: in
// /tmp anybody may make it first.
func checkDir(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("look at runtime directory %s: %w", dir, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("runtime directory %s: not a directory", dir)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("runtime directory %s: belongs to user %d, not %d: %w", dir, st.Uid, os.Geteuid(), fs.ErrPermission)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("runtime directory %s: others may write to it: %w", dir, fs.ErrPermission)
	}
	return nil
}
