package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// A Pair is a host and two guests of it, each an hvnet process of its own, the
// guests in network namespaces of their own. The guests' addresses are Addr[0] and
// Addr[1], their interfaces eth0.
type Pair struct {
	Hvnet  string // the program
	Socket string // of the host
	Addr   [2]string
	Host   *Process
	Up     [2]*Process
	NS     [2]*Netns
	env    []string
}

// NewPair starts a pair with the program hvnet and further flags of hvnet up. All
// of it ends with the test.
func NewPair(tb testing.TB, hvnet string, flags ...string) *Pair {
	tb.Helper()
	return NewPairOn(tb, hvnet, nil, flags...)
}

// NewPairOn is NewPair with further flags of hvnet host; there is no gateway unless they
// have one.
func NewPairOn(tb testing.TB, hvnet string, host []string, flags ...string) *Pair {
	tb.Helper()
	dir, err := os.MkdirTemp("", "hv") // a socket's path must be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	p := &Pair{
		Hvnet:  hvnet,
		Socket: filepath.Join(dir, "s"),
		Addr:   [2]string{"198.18.2.1", "198.18.2.2"},
		env:    append(os.Environ(), "HVNET_RUNTIME_DIR="+dir),
	}
	p.NS = Namespaces(tb)
	if !slices.Contains(host, "--gateway") {
		host = append([]string{"--gateway", "none"}, host...)
	}
	p.Host = p.Start(tb, "host", append([]string{hvnet, "host", "--listen", p.Socket}, host...)...)
	Await(tb, p.Host, "^listening")
	for i, ns := range p.NS {
		argv := append([]string{hvnet, "up", p.Socket, "--addr", p.Addr[i] + "/24"}, flags...)
		p.Up[i] = p.Start(tb, fmt.Sprintf("up %d", i+1), ns.In(argv...)...)
		Await(tb, p.Up[i], "^eth0 up")
	}
	return p
}

// Start starts a program that ends with the test. hvnet finds the pair's drivers
// in it.
func (p *Pair) Start(tb testing.TB, name string, argv ...string) *Process {
	tb.Helper()
	return start(tb, name, p.env, argv)
}

// Run runs a program of which the exit status has to be 0, and returns what it
// prints.
func (p *Pair) Run(tb testing.TB, argv ...string) []byte {
	tb.Helper()
	return finish(tb, p.Start(tb, argv[0], argv...))
}

// Stop ends the pair as its user would, and checks that all ends well.
func (p *Pair) Stop(tb testing.TB) {
	tb.Helper()
	for _, q := range []*Process{p.Up[0], p.Up[1], p.Host} {
		q.Signal(syscall.SIGTERM)
		finish(tb, q)
	}
}

// Namespaces makes two network namespaces that go with the test.
func Namespaces(tb testing.TB) (pair [2]*Netns) {
	tb.Helper()
	for i := range pair {
		ns, err := NewNetns()
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := ns.Close(); err != nil {
				tb.Error(err)
			}
		})
		pair[i] = ns
	}
	return pair
}

// Await waits until a program has printed what matches.
func Await(tb testing.TB, p *Process, pattern string) {
	tb.Helper()
	if err := p.Await(context.Background(), pattern); err != nil {
		tb.Fatal(err)
	}
}

// start starts a program that ends with the test.
func start(tb testing.TB, name string, env, argv []string) *Process {
	tb.Helper()
	p, err := Spawn(name, "", env, argv)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Kill)
	return p
}

// finish waits for the end of a program, of which the exit status has to be 0.
func finish(tb testing.TB, p *Process) []byte {
	tb.Helper()
	status, err := p.End(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	if status != 0 {
		tb.Fatalf("%s ended with status %d: %v", p.name, status, p.Said())
	}
	out, _ := p.Output()
	return out
}

// Run runs a program of which the exit status has to be 0, and returns what it
// prints.
func Run(tb testing.TB, argv ...string) []byte {
	tb.Helper()
	return finish(tb, start(tb, argv[0], nil, argv))
}
