package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A Netns is a network namespace of a test.
type Netns struct {
	Name string // as ip netns knows it
	shut func() error
}

var count struct {
	sync.Mutex
	n int
}

// NewNetns makes a network namespace with lo up. It is removed, with the processes
// in it, by Close, or when the test process dies in whatever way: a shell waits for that.
func NewNetns() (*Netns, error) {
	count.Lock()
	count.n++
	ns := &Netns{Name: fmt.Sprintf("hvnet-%d-%d", os.Getpid(), count.n)}
	count.Unlock()
	cmd := exec.Command("sh", "-c",
		`ip netns add "$1" && ip -n "$1" link set lo up && echo made; read x
		 ip netns pids "$1" | xargs -r kill -9; ip netns del "$1"`, "sh", ns.Name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ns.shut = func() error {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			said, _ := said.read()
			return fmt.Errorf("remove network namespace %s: %w: %s", ns.Name, err, said)
		}
		return nil
	}
	wait := time.NewTimer(Patience)
	defer wait.Stop()
	for {
		text, more := said.read()
		if string(text) == "made\n" {
			return ns, nil
		}
		if len(text) > 0 {
			return nil, errors.Join(fmt.Errorf("make network namespace %s: %s", ns.Name, text), ns.Close())
		}
		select {
		case <-more:
		case <-wait.C:
			return nil, errors.Join(fmt.Errorf("make network namespace %s: no answer", ns.Name), ns.Close())
		}
	}
}

// Close removes the namespace.
func (ns *Netns) Close() error { return ns.shut() }

// In returns the command line that runs argv in the namespace.
func (ns *Netns) In(argv ...string) []string {
	return append([]string{"ip", "netns", "exec", ns.Name}, argv...)
}
