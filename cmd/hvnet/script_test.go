package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"hvnet/internal/lab"
	"hvnet/internal/need"
	"hvnet/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.MaybeHelper()
	testscript.Main(m, map[string]func(){
		"hvnet":      main,
		"testdns":    testDNS,
		"testecho":   testEcho,
		"testdial":   testDial,
		"testdoomed": testDoomed,
	})
}

// TestScript runs the scripts of testdata/script: the command line as its user
// meets it. Those below root need root, network namespaces and their tools.
func TestScript(t *testing.T) {
	testscript.Run(t, params("testdata/script"))
}

func TestScriptRoot(t *testing.T) {
	need.Root(t)
	for _, tool := range []string{"ip", "ping", "unshare", "setpriv", "getent", "ethtool"} {
		need.Tool(t, tool)
	}
	testscript.Run(t, params("testdata/script/root"))
}

// TestScriptGuest runs the scripts that have the guest of examples/guest, in $GUEST,
// and the job around it, in $JOB.
func TestScriptGuest(t *testing.T) {
	cc := need.Tool(t, "cc")
	guest := filepath.Join(t.TempDir(), "guest")
	if out, err := exec.Command(cc, "-Wall", "-Werror", "-o", guest, "../../examples/guest/guest.c").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	// A copy: an absolute path may lead through folders that only root can enter.
	job := filepath.Join(t.TempDir(), "job.sh")
	text, err := os.ReadFile("../../examples/guest/job.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(job, text, 0o755); err != nil {
		t.Fatal(err)
	}
	p := params("testdata/script/cc")
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("GUEST", guest)
		e.Setenv("JOB", job)
		return setup(e)
	}
	testscript.Run(t, p)
}

// params are the scripts of a directory and the commands that they have beside
// testscript's own:
//
//	start NAME CMD...    starts a program in the background
//	await NAME REGEXP    waits until it has printed what matches
//	signal NAME SIGNAL   sends it HUP, INT, KILL, STOP, CONT or TERM
//	ends NAME STATUS     waits until it has ended, and leaves NAME.out and NAME.err
//	status STATUS CMD... runs a program that has to end with the exit status
//	netns VAR...         makes network namespaces and puts their names into variables
//	poll CMD...          runs a program until it succeeds
//
// What is left in the background at the end of the script is killed.
func params(dir string) testscript.Params {
	return testscript.Params{
		Dir: dir,
		Condition: func(cond string) (bool, error) {
			if cond != "race" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return raceDetector, nil
		},
		Setup: func(e *testscript.Env) error {
			// Sockets have short names, and the test has sockets of its own.
			run, err := os.MkdirTemp("", "hv")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(run) })
			e.Setenv("RUN", run)
			e.Setenv("HVNET_RUNTIME_DIR", run)
			e.Values[runningKey{}] = map[string]*lab.Process{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":  cmdStart,
			"await":  cmdAwait,
			"signal": cmdSignal,
			"ends":   cmdEnds,
			"status": cmdStatus,
			"netns":  cmdNetns,
			"poll":   cmdPoll,
		},
	}
}

// runningKey is where a script's background programs are, by name.
type runningKey struct{}

func running(ts *testscript.TestScript) map[string]*lab.Process {
	return ts.Value(runningKey{}).(map[string]*lab.Process)
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 1, "start name command...")
	p, err := lab.Spawn(args[0], ts.Getenv("WORK"), environ(ts), args[1:])
	ts.Check(err)
	running(ts)[args[0]] = p
	ts.Defer(p.Kill)
}

// environ is what a script's programs find in their environment.
func environ(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, name := range []string{"WORK", "RUN", "HVNET_RUNTIME_DIR"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// find returns a program in the background.
func find(ts *testscript.TestScript, name string) *lab.Process {
	p := running(ts)[name]
	if p == nil {
		ts.Fatalf("no program %s was started", name)
	}
	return p
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "await name regexp")
	ts.Check(find(ts, args[0]).Await(context.Background(), args[1]))
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL,
		"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "TERM": syscall.SIGTERM,
	}
	usage(ts, !neg && len(args) == 2 && signals[args[1]] != 0, "signal name HUP|INT|KILL|STOP|CONT|TERM")
	ts.Check(find(ts, args[0]).Signal(signals[args[1]]))
}

func cmdEnds(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "ends name status")
	p := find(ts, args[0])
	status, err := p.End(context.Background())
	ts.Check(err)
	out, errs := p.Output()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".out"), out, 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".err"), errs, 0o644))
	if strconv.Itoa(status) != args[1] {
		ts.Fatalf("%s ended with status %d, want %s: %v", args[0], status, args[1], p.Said())
	}
}

func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 1, "status number command...")
	status := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		status = exit.ExitCode()
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

func cmdNetns(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 0, "netns variable...")
	for _, name := range args {
		ns, err := lab.NewNetns()
		ts.Check(err)
		ts.Defer(func() { ts.Check(ns.Close()) })
		ts.Setenv(name, ns.Name)
	}
}

func cmdPoll(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 0, "poll command...")
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	for ts.Exec(args[0], args[1:]...) != nil {
		if ctx.Err() != nil {
			ts.Fatalf("it never succeeds")
		}
	}
}
