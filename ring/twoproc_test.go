//go:build linux

package ring

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The tests and benchmarks here run this test binary once more, as the peer in
// another process, with a memfd between the two. The peer lives until its standard
// input ends, so it dies with us; when it dies first, the next wait notices.

// peerEnv makes a test binary a peer; its value is what the peer does.
const peerEnv = "HVNET_RING_PEER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(peerEnv); mode != "" {
		bePeer(mode)
	}
	os.Exit(m.Run())
}

// The memory that both processes map.
const (
	ringBytes = HeaderSize + 64*4096

	controlAt = 0 // a page of single words, each in a cache line of its own
	upAt      = controlAt + 4096
	downAt    = upAt + ringBytes
	plainAt   = downAt + ringBytes
	sharedLen = plainAt + 64*plainSlots

	readyAt = 0   // in the control page: the peer is there
	pingAt  = 128 // written by us
	pongAt  = 256 // written by the peer
	headAt  = 384 // of the plain ring, written by us
	tailAt  = 512 // of the plain ring, written by the peer

	plainSlots = 4096 // of 64 bytes
)

func wordAt(mem []byte, at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&mem[at]))
}

// A waiter waits for the other process: it spins a little, then lets others have
// the core, and gives up when the other is gone or has done nothing for long.
type waiter struct {
	gone  *atomic.Bool
	spins int
	since time.Time
}

var errPeer = errors.New("the other process is gone or stuck")

// progress is called when there was something to do.
func (w *waiter) progress() {
	if w.spins != 0 {
		w.spins, w.since = 0, time.Time{}
	}
}

// wait is called when there was nothing to do.
func (w *waiter) wait() error {
	if w.spins++; w.spins%512 != 0 {
		return nil
	}
	unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	switch {
	case w.gone.Load():
		return errPeer
	case w.since.IsZero():
		w.since = time.Now()
	case time.Since(w.since) > 20*time.Second:
		return errPeer
	}
	return nil
}

// until waits for a word to take a value.
func (w *waiter) until(word *atomic.Uint32, value uint32) error {
	for word.Load() != value {
		if err := w.wait(); err != nil {
			return err
		}
	}
	w.progress()
	return nil
}

// startPeer starts a peer and returns the shared memory and a waiter for it.
func startPeer(tb testing.TB, mode string) ([]byte, *waiter) {
	tb.Helper()
	fd, err := unix.MemfdCreate("ring", unix.MFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "ring")
	defer file.Close()
	if err := file.Truncate(sharedLen); err != nil {
		tb.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, sharedLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Munmap(mem) })
	Init(mem[upAt:downAt])
	Init(mem[downAt:plainAt])

	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), peerEnv+"="+mode)
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	gone, exited := new(atomic.Bool), make(chan struct{})
	go func() {
		cmd.Wait()
		gone.Store(true)
		close(exited)
	}()
	tb.Cleanup(func() { // runs before the memory is unmapped
		stdin.Close()
		select {
		case <-exited:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-exited
		}
	})
	return mem, &waiter{gone: gone}
}

// bePeer is the other process. It does not return.
func bePeer(mode string) {
	mem, err := unix.Mmap(3, 0, sharedLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	w := &waiter{gone: new(atomic.Bool)} // its end is the end of standard input
	serve := map[string]func([]byte, *waiter) error{
		"consume": peerConsume, "echo": peerEcho, "plain": peerPlain, "pong": peerPong,
		"die": func([]byte, *waiter) error { os.Exit(0); return nil },
	}[mode]
	wordAt(mem, readyAt).Store(1)
	if err := serve(mem, w); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", mode, err)
		os.Exit(1)
	}
}

// run is how many packets a consumer takes before it gives their memory back. One
// that keeps up with its producer gives back less often still, when it has found
// nothing a few times: the two indices share a cache line, and each store of one
// takes it away from the other side.
const run = 64

// peerConsume takes packets and forgets them.
func peerConsume(mem []byte, w *waiter) error {
	c, err := NewConsumer(mem[upAt:downAt])
	if err != nil {
		return err
	}
	c.Mask()
	buf := make([]byte, 4096)
	for taken := 0; ; {
		_, err := c.Next(buf)
		if err == nil {
			w.progress()
			if taken++; taken%run == 0 {
				c.Release()
			}
			continue
		}
		if err != ErrEmpty {
			return err
		}
		if err := w.wait(); err != nil {
			return err
		}
		if w.spins == run {
			c.Release()
		}
	}
}

// peerEcho sends back what it gets.
func peerEcho(mem []byte, w *waiter) error {
	c, err := NewConsumer(mem[upAt:downAt])
	if err != nil {
		return err
	}
	p, err := NewProducer(mem[downAt:plainAt])
	if err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		b, err := c.Next(buf)
		if err == ErrEmpty {
			if err := w.wait(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		for p.Put(b, nil) == ErrFull {
			if err := w.wait(); err != nil {
				return err
			}
		}
		w.progress()
		p.Publish()
		c.Release()
	}
}

func TestTwoProcesses(t *testing.T) {
	mem, w := startPeer(t, "echo")
	if err := w.until(wordAt(mem, readyAt), 1); err != nil {
		t.Fatal(err)
	}
	p, err := NewProducer(mem[upAt:downAt])
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewConsumer(mem[downAt:plainAt])
	if err != nil {
		t.Fatal(err)
	}
	const packets = 5000
	size := func(i uint64) int { return 16 + int(i*53%3000) }
	for sent, got := uint64(0), uint64(0); got < packets; {
		if sent < packets {
			switch err := p.Put(packet(size(sent), sent)); err {
			case nil:
				sent++
			case ErrFull:
			default:
				t.Fatal(err, p.Err())
			}
			p.Publish()
		}
		if c.Empty() {
			if err := w.wait(); err != nil {
				t.Fatalf("%d of %d packets came back: %v", got, sent, err)
			}
			continue
		}
		w.progress()
		next(t, c, size(got), got)
		c.Release()
		got++
	}
}

func TestPeerThatDies(t *testing.T) {
	mem, w := startPeer(t, "die")
	p, err := NewProducer(mem[upAt:downAt])
	if err != nil {
		t.Fatal(err)
	}
	if err := send(p, w, 100000, 32); err != errPeer {
		t.Errorf("%v, want %v", err, errPeer)
	}
}
