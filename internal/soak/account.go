package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A usage is what a process has taken of the machine.
type usage struct {
	goroutines, files, shared int // shared: mappings of guest memory
	heap, private             int // bytes; private: resident memory that is not guest memory
}

// used measures this process.
func used() (u usage, err error) {
	runtime.GC()
	if u, err = usedBy("self"); err != nil {
		return u, err
	}
	u.files-- // the directory that was read
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.heap, u.goroutines = int(m.HeapAlloc), runtime.NumGoroutine()
	return u, nil
}

// usedBy measures any process, as far as that can be seen from outside.
func usedBy(pid string) (u usage, err error) {
	dir := filepath.Join("/proc", pid)
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return u, err
	}
	u.files = len(files)
	maps, err := os.ReadFile(filepath.Join(dir, "maps"))
	if err != nil {
		return u, err
	}
	u.shared = strings.Count(string(maps), "memfd:")
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u, err
	}
	// Not RSS: how much of the guests' memory a process has looked at is chance.
	_, private, _ := strings.Cut(string(status), "RssAnon:")
	if _, err := fmt.Sscan(private, &u.private); err != nil {
		return u, fmt.Errorf("read RssAnon of %s/status: %w", dir, err)
	}
	u.private <<= 10
	return u, nil
}

// add sums up what several processes have taken.
func (u *usage) add(v usage) {
	u.goroutines += v.goroutines
	u.files += v.files
	u.shared += v.shared
	u.heap += v.heap
	u.private += v.private
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d mappings, heap %.1f MiB, private %.1f MiB",
		u.goroutines, u.files, u.shared, mib(u.heap), mib(u.private))
}

func mib(n int) float64 { return float64(n) / (1 << 20) }

// heapSlack is how much more heap may be in use at the end than before: what pools
// and the runtime keep.
const heapSlack = 8 << 20

// returned checks that everything that was taken since before is given back. What
// runs out by itself gets a moment.
func returned(before usage) error {
	var after usage
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if after, err = used(); err != nil {
			return err
		}
		if after.goroutines <= before.goroutines && after.files <= before.files && after.shared <= before.shared && after.heap <= before.heap+heapSlack {
			return nil
		}
		if time.Now().After(deadline) {
			break
		}
	}
	err := fmt.Errorf("not everything came back: before %v; after %v", before, after)
	if after.goroutines > before.goroutines {
		buf := make([]byte, 1<<20)
		err = fmt.Errorf("%w\n%s", err, buf[:runtime.Stack(buf, true)])
	}
	if after.files > before.files {
		links, _ := filepath.Glob("/proc/self/fd/*")
		for _, l := range links {
			target, _ := os.Readlink(l)
			err = fmt.Errorf("%w\n%s %s", err, filepath.Base(l), target)
		}
	}
	return err
}

// wakeRuntime has the runtime open the files that it keeps for itself once there
// is something to wait for.
func wakeRuntime() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	return errors.Join(r.Close(), w.Close())
}

// flat checks that memory, files and mappings have not grown over a long run: the mean of
// the last quarter against that of the second, each of at least four samples.
func flat(samples []usage) error {
	q := len(samples) / 4
	if q < 4 {
		return nil
	}
	mean := func(list []usage, of func(usage) int) (sum int) {
		for _, u := range list {
			sum += of(u)
		}
		return sum / len(list)
	}
	for _, x := range []struct {
		what  string
		of    func(usage) int
		part  int // of what there was may come to it
		slack int // and so many more
	}{
		{"bytes of heap memory", func(u usage) int { return u.heap }, 4, heapSlack},
		{"bytes of private memory", func(u usage) int { return u.private }, 4, heapSlack},
		{"files", func(u usage) int { return u.files }, 20, 12},
		{"mappings", func(u usage) int { return u.shared }, 20, 12},
	} {
		early, late := mean(samples[q:2*q], x.of), mean(samples[len(samples)-q:], x.of)
		if late > early+early/x.part+x.slack {
			return fmt.Errorf("%d %s have become %d", early, x.what, late)
		}
	}
	return nil
}
