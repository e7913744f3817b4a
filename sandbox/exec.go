package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit statuses: of a failure that is not the command's, of a command that could not be
// started, and the base of those of a command that was killed, as shells have them.
const (
	exitFailure       = 1
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128
)

// commands are the processes that the helper started. As the init process it also
// inherits, and must reap, all orphans of the sandbox.
type commands struct {
	conn *conn
	mu   sync.Mutex
	pids map[uint64]int // by request
}

// startCommands returns an empty table and reaps processes from now on.
func startCommands(c *conn) *commands {
	cs := &commands{conn: c, pids: make(map[uint64]int)}
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for range died {
			cs.reap()
		}
	}()
	return cs
}

// start starts a command with the first three files as its standard ones. With a fourth
// it is filtered, and that is where the listener goes. If it cannot be started, start
// returns the exit status that says so, and why.
func (cs *commands) start(id uint64, req execRequest, files []*os.File) (started bool, exit int, err error) {
	if len(req.Args) == 0 || len(files) < 3 || len(files) > 4 {
		return false, exitNotExecutable, fmt.Errorf("start command: %d words and %d files: want at least 1, and 3 or 4", len(req.Args), len(files))
	}
	env := mergeEnv(os.Environ(), req.Env)
	path, err := lookPath(req.Args[0], req.Dir, env)
	if err == nil {
		attr := &syscall.ProcAttr{Dir: req.Dir, Env: env, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
		for _, f := range files {
			attr.Files = append(attr.Files, f.Fd())
		}
		// Under the lock, so that a process that ends at once is in the table
		// before it is reaped.
		cs.mu.Lock()
		defer cs.mu.Unlock()
		var pid int
		file, args := path, req.Args
		if len(files) == 4 {
			file, args = "/proc/self/exe", append([]string{filterName, path}, req.Args...)
		}
		if pid, err = syscall.ForkExec(file, args, attr); err == nil {
			cs.pids[id] = pid
			return true, 0, nil
		}
		err = fmt.Errorf("start %s: %w", req.Args[0], err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, exitNotFound, err
	}
	return false, exitNotExecutable, err
}

// signal passes on a signal, if the command is still there.
func (cs *commands) signal(req signalRequest) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if pid, ok := cs.pids[req.Command]; ok {
		syscall.Kill(pid, req.Signal)
	}
}

// reap collects all processes that have ended and reports those of the table.
func (cs *commands) reap() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			return
		}
		for id, p := range cs.pids {
			if p == pid {
				delete(cs.pids, id)
				// If it cannot be sent the owner is gone, and so is all
				// this in a moment.
				cs.conn.send(message{ID: id, Exit: exitStatus(ws)})
			}
		}
	}
}

func exitStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return exitSignal + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// mergeEnv returns base with the variables of over put in or replaced.
func mergeEnv(base, over []string) []string {
	env := slices.Clone(base)
	for _, v := range over {
		name, _, _ := strings.Cut(v, "=")
		env = slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") })
		env = append(env, v)
	}
	return env
}

// lookPath finds the program as a shell does: a name with a slash is a path, any
// other is sought in the command's own PATH.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(resolve(dir, name))
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			path = p
		}
	}
	denied := false
	for _, d := range filepath.SplitList(path) {
		file := filepath.Join(resolve(dir, d), name)
		if _, err := os.Stat(file); err != nil {
			continue // a directory that we may not search has nothing for us
		}
		if executable(file) == nil {
			return file, nil
		}
		denied = true
	}
	if denied {
		return "", fmt.Errorf("start %s: %w", name, fs.ErrPermission)
	}
	return "", &textError{"start " + name + ": command not found", []error{fs.ErrNotExist}}
}

// resolve returns path as seen from dir, the empty dir being the current one.
func resolve(dir, path string) string {
	if path == "" {
		path = "."
	}
	if filepath.IsAbs(path) || dir == "" {
		return path
	}
	return filepath.Join(dir, path)
}

// executable reports why file cannot be executed.
func executable(file string) error {
	fi, err := os.Stat(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &textError{"start " + file + ": no such file", []error{err}}
		}
		return fmt.Errorf("start command: %w", err)
	}
	if fi.IsDir() {
		return &textError{"start " + file + ": is a directory", []error{fs.ErrPermission}}
	}
	if err := unix.Access(file, unix.X_OK); err != nil {
		return fmt.Errorf("start %s: %w", file, fs.ErrPermission)
	}
	return nil
}
