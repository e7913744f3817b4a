package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"hvnet/internal/lab"
	"hvnet/link/tap"
)

// copierVariable makes the test binary be a copier: the least that can lie between
// two kernel interfaces, one read and one write a frame. Its value is the names of
// the two namespaces, and "tso" or "plain".
const copierVariable = "HVNET_BENCH_COPIER"

// copierProcess makes eth0 in two namespaces and copies frames between the two
// until one is gone.
func copierProcess(spec string) error {
	var names [2]string
	var kind string
	if n, err := fmt.Sscan(spec, &names[0], &names[1], &kind); n != 3 {
		return fmt.Errorf("copier %q: %w", spec, err)
	}
	cfg := tap.Config{Name: "eth0"}
	if kind == "tso" {
		cfg.Offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
	}
	var files [2]*os.File
	for i, name := range names {
		queues, ctl, err := openIn(name, cfg)
		if err != nil {
			return err
		}
		ctl.Close()
		files[i] = queues[0]
	}
	fmt.Println("copying")
	var eg errgroup.Group
	for i := range files {
		eg.Go(func() error { return copyFrames(files[i], files[1-i]) })
	}
	return eg.Wait()
}

// openIn makes a TAP in a named namespace.
func openIn(name string, cfg tap.Config) (queues []*os.File, ctl *os.File, err error) {
	runtime.LockOSThread() // for good: the thread is not to be used for anything else
	ns, err := netns.GetFromName(name)
	if err != nil {
		return nil, nil, err
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return nil, nil, err
	}
	return tap.OpenFiles(cfg)
}

// copyFrames copies frames with their virtio-net headers.
func copyFrames(from, to *os.File) error {
	buf := make([]byte, 12+14+4+65535)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		if _, err := to.Write(buf[:n]); err != nil && !strings.Contains(err.Error(), "input/output error") {
			return err // an interface that is down refuses with EIO
		}
	}
}

// startCopier starts a copier between two new namespaces.
func startCopier(b *testing.B, kind string) (ns [2]*lab.Netns) {
	ns = lab.Namespaces(b)
	p, err := lab.Spawn("copier", "", append(os.Environ(), fmt.Sprintf("%s=%s %s %s", copierVariable, ns[0].Name, ns[1].Name, kind)), []string{os.Args[0]})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Kill)
	lab.Await(b, p, "^copying")
	return ns
}
