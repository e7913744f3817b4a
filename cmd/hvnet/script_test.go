package main

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hvnet/internal/need"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hvnet": main})
}

// TestScript runs the scripts of testdata/script: the command line as its user
// meets it. Those below root need root, and network namespaces.
func TestScript(t *testing.T) {
	testscript.Run(t, params("testdata/script"))
}

func TestScriptRoot(t *testing.T) {
	need.Root(t)
	need.Tool(t, "ip")
	testscript.Run(t, params("testdata/script/root"))
}

func params(dir string) testscript.Params {
	return testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			// Sockets have short names, and the test has sockets of its own.
			run, err := os.MkdirTemp("", "hv")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(run) })
			e.Setenv("RUN", run)
			e.Setenv("HVNET_RUNTIME_DIR", run)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"waitsocket": waitSocket},
	}
}

// waitSocket waits until something listens on each of the sockets.
func waitSocket(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: waitsocket path...")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, path := range args {
		for {
			if c, err := net.Dial("unixpacket", path); err == nil {
				c.Close()
				break
			}
			if c, err := net.Dial("unix", path); err == nil {
				c.Close()
				break
			}
			select {
			case <-ctx.Done():
				ts.Fatalf("nobody listens on %s", path)
			case <-tick.C:
			}
		}
	}
}
