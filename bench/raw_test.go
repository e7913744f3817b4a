package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv/attach"
	"hvnet/nic"
	"hvnet/sandbox"
)

// hostVariable makes the test binary be the host process of a benchmark; its value
// is the socket.
const hostVariable = "HVNET_BENCH_HOST"

var reflectorMAC = nic.MAC{0x00, 0x15, 0x5d, 0xff, 0xff, 0x01}

func TestMain(m *testing.M) {
	sandbox.MaybeHelper()
	if spec := os.Getenv(copierVariable); spec != "" {
		fmt.Fprintln(os.Stderr, copierProcess(spec))
		os.Exit(1)
	}
	if path := os.Getenv(hostVariable); path != "" {
		if err := hostProcess(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// hostProcess is a host with a reflector until standard input ends.
func hostProcess(path string) error {
	h := host.New(host.Config{})
	if _, err := NewReflector(h.Switch(), reflectorMAC); err != nil {
		return err
	}
	l, err := h.Listen(path, attach.ListenConfig{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
		l.Close()
	}()
	fmt.Println("ready")
	return h.Accept(ctx, l)
}

// startHost starts a host process that ends with the benchmark.
func startHost(tb testing.TB) (path string) {
	tb.Helper()
	path, _ = startHostProcess(tb)
	return path
}

func startHostProcess(tb testing.TB) (path string, pid int) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "host")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), hostVariable+"="+path)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		tb.Fatalf("host process: %q, %v", line, err)
	}
	return path, cmd.Process.Pid
}

// counter is a sink that counts, and wakes who waits for frames.
type counter struct {
	frames atomic.Uint64
	wake   chan struct{} // capacity 1
}

func (c *counter) WriteFrames(frames []nic.Frame) {
	c.frames.Add(uint64(len(frames)))
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// BenchmarkRaw sends raw frames from the driver to the host in another process,
// where a reflector sends them back: one channel, closed loop. An operation is one
// frame there and back; Mpps is each way.
func BenchmarkRaw(b *testing.B) {
	for _, size := range []int{64, 1500} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) { benchmarkRaw(b, size) })
	}
}

func benchmarkRaw(b *testing.B, size int) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	g, err := guest.Dial(ctx, startHost(b), guest.Config{VPs: 1, Queues: 1}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close(ctx)
	back := &counter{wake: make(chan struct{}, 1)}
	if err := g.NIC.Up(ctx, back); err != nil {
		b.Fatal(err)
	}
	const batch, window = 64, 2048
	head := make([]byte, size)
	copy(head, reflectorMAC[:])
	mac := g.NIC.MAC()
	copy(head[6:], mac[:])
	head[12], head[13] = 0x88, 0xb5 // local experimental
	frames := make([]nic.Frame, batch)
	for i := range frames {
		frames[i] = nic.Frame{Head: head}
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	sent := uint64(0)
	for n := uint64(b.N); back.frames.Load() < n; {
		if room := window - (sent - back.frames.Load()); sent < n && room >= batch {
			if took := g.NIC.Send(0, frames[:min(batch, n-sent)]); took > 0 {
				sent += uint64(took)
				continue
			}
		}
		select {
		case <-back.wake:
		case <-ctx.Done():
			b.Fatalf("%d of %d frames came back", back.frames.Load(), sent)
		}
	}
	b.StopTimer()
	got := back.frames.Load()
	b.ReportMetric(float64(got)/b.Elapsed().Seconds()/1e6, "Mpps")
}
