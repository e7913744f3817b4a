package xdp

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
)

// clean fails unless an interface is as if there had been no link.
func clean(t testing.TB, name string) {
	t.Helper()
	a := iface(t, name).Attrs()
	if a.Xdp != nil && a.Xdp.Attached {
		t.Errorf("%s has still the program %d", name, a.Xdp.ProgId)
	}
	if a.Promisc != 0 {
		t.Errorf("%s is still promiscuous", name)
	}
}

// TestCloseUnderLoad closes links that send and receive, several times over: nothing is
// left, and the next link has frames.
func TestCloseUnderLoad(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 2)
	list := make([]nic.Frame, batch)
	for i := range list {
		list[i] = packets.Split(packets.Shape{}.Frame(packets.Random(100)), 60)
		list[i].Channel = uint16(i / 32)
	}
	for range 5 {
		a, b := open(t, "v0"), open(t, "v1")
		if p := iface(t, "v0").Attrs(); p.Promisc != 1 || p.Xdp == nil || !p.Xdp.Attached {
			t.Errorf("promiscuity %d, %+v", p.Promisc, p.Xdp)
		}
		var in counter
		in.reached = make(chan struct{})
		var all sync.WaitGroup
		stop := make(chan struct{})
		all.Go(func() { b.Receive(&in) })
		for range 2 {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						a.WriteFrames(list)
					}
				}
			})
		}
		<-in.reached
		check(t, b.Close())
		check(t, a.Close())
		close(stop)
		all.Wait()
		clean(t, "v0")
		clean(t, "v1")
		for _, q := range append(a.queues, b.queues...) {
			if q.mem != nil || q.rx.mem != nil {
				t.Error("memory is left")
			}
		}
	}
}

// A counter closes reached at the thousandth frame.
type counter struct {
	mu      sync.Mutex
	n       int
	reached chan struct{}
}

func (c *counter) WriteFrames(frames []nic.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n < 1000 && c.n+len(frames) >= 1000 {
		close(c.reached)
	}
	c.n += len(frames)
}

// TestCrash kills a process that has a link: nothing of it is left.
func TestCrash(t *testing.T) {
	if name := os.Getenv("HVNET_TEST_CRASH"); name != "" {
		open(t, name)
		fmt.Println("open")
		io.Copy(io.Discard, os.Stdin) // until it is killed
		fmt.Println("not killed")
	}
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	c := exec.Command(os.Args[0], "-test.run=^TestCrash$")
	c.Env = append(os.Environ(), "HVNET_TEST_CRASH=v0")
	in, err := c.StdinPipe()
	check(t, err)
	defer in.Close()
	out, err := c.StdoutPipe()
	check(t, err)
	check(t, c.Start()) // in the namespace of this thread
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "open\n" {
		t.Errorf("the process says %q, %v", line, err)
	}
	if p := iface(t, "v0").Attrs(); p.Promisc != 1 || p.Xdp == nil || !p.Xdp.Attached {
		t.Errorf("promiscuity %d, %+v", p.Promisc, p.Xdp)
	}
	check(t, c.Process.Kill())
	if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the process ended with %v", err)
	}
	clean(t, "v0")
	open(t, "v0")
}
