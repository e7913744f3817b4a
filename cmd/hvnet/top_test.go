package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/control"
	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/internal/lab"
	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/top"
)

// blackHole takes frames.
type blackHole struct{}

func (blackHole) WriteFrames([]nic.Frame) {}

// runningNIC runs a driver for this process's network namespace, without an interface, and
// returns its guest and its server.
func runningNIC(t *testing.T) (*guest.Guest, *control.Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("HVNET_RUNTIME_DIR", dir)
	part, far, err := hv.Pipe(4)
	if err != nil {
		t.Fatal(err)
	}
	h := host.New(host.Config{})
	served := make(chan error, 1)
	go func() { served <- h.Serve(far, host.PortConfig{}) }()
	g, err := guest.Start(t.Context(), part, guest.Config{VPs: 4})
	if err != nil {
		t.Fatal(err)
	}
	inode, err := control.NetNSInode()
	if err != nil {
		t.Fatal(err)
	}
	s, err := control.ServeDevice(inode, "eth0", g.NIC)
	if err == nil {
		err = g.NIC.Up(t.Context(), blackHole{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
		defer cancel()
		if err := errors.Join(s.Close(), g.Close(ctx), h.Close(ctx)); err != nil {
			t.Error(err)
		}
		<-served
	})
	return g, s
}

// send has a guest send until ctx ends.
func send(ctx context.Context, g *guest.Guest) {
	out := guest.Sender{Guest: g}
	for ctx.Err() == nil {
		for i := range 8 {
			b := packets.Shape{UDP: true}.Frame(make([]byte, 1000))
			mac := g.NIC.MAC()
			copy(b[6:], mac[:])
			b[14+20] = byte(i) // the source port
			out.WriteFrames([]nic.Frame{packets.Split(b)})
		}
		pause(ctx, time.Millisecond)
	}
}

// A terminal draws what a program writes on it, as far as xterm's ways are used here.
type terminal struct {
	rows     [][]byte
	row, col int
}

func newTerminal(width, height int) *terminal {
	v := &terminal{rows: make([][]byte, height)}
	for i := range v.rows {
		v.rows[i] = []byte(strings.Repeat(" ", width))
	}
	return v
}

// escape matches what is at the beginning of the bytes and is not text.
var escape = regexp.MustCompile("^\x1b(?:\\[([0-9;?<=>]*)[ !]*([@-~])|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[()][0-9A-Z]|[ -/]*[0-~])")

// write draws as much as is whole, and returns the rest.
func (v *terminal) write(b []byte) (rest []byte) {
	for len(b) > 0 {
		if b[0] == 0x1b {
			m := escape.FindSubmatch(b)
			if m == nil {
				return b
			}
			v.control(string(m[1]), string(m[2]))
			b = b[len(m[0]):]
			continue
		}
		switch c := b[0]; {
		case c == '\r':
			v.col = 0
		case c == '\n':
			v.row++
		case c == '\b':
			v.col--
		case c >= ' ' && v.row >= 0 && v.row < len(v.rows) && v.col >= 0 && v.col < len(v.rows[v.row]):
			v.rows[v.row][v.col] = c
			v.col++
		}
		b = b[1:]
	}
	return nil
}

// control does what a control sequence says.
func (v *terminal) control(args, what string) {
	n := []int{1, 1}
	for i, a := range strings.Split(args, ";") {
		if k, err := strconv.Atoi(a); err == nil && i < len(n) {
			n[i] = k
		}
	}
	switch what {
	case "H":
		v.row, v.col = n[0]-1, n[1]-1
	case "J":
		for _, r := range v.rows {
			copy(r, strings.Repeat(" ", len(r)))
		}
	case "K":
		copy(v.rows[v.row][v.col:], strings.Repeat(" ", len(v.rows[v.row])))
	}
}

func (v *terminal) String() string {
	var text strings.Builder
	for _, r := range v.rows {
		fmt.Fprintln(&text, strings.TrimRight(string(r), " "))
	}
	return text.String()
}

// openPTY returns both ends of a terminal of 100 × 30.
func openPTY(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	fd := int(ours.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100})); err != nil {
		t.Fatal(err)
	}
	if theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// A watcher is `hvnet top` on a terminal.
type watcher struct {
	cmd  *exec.Cmd
	tty  *os.File
	text chan []byte
	rest []byte
	vt   *terminal
}

// startTop starts it.
func startTop(t *testing.T) *watcher {
	t.Helper()
	ours, theirs := openPTY(t)
	w := &watcher{cmd: exec.Command("hvnet", "top", "--interval", "100ms"), tty: ours, text: make(chan []byte), vt: newTerminal(100, 30)}
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = theirs, theirs, theirs
	w.cmd.Env = append(os.Environ(), "TERM=xterm", "LC_ALL=C")
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err := w.cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.text)
		for {
			b := make([]byte, 4096)
			n, err := ours.Read(b)
			if n > 0 {
				w.text <- b[:n]
			}
			if err != nil { // EIO: nobody has the other end
				return
			}
		}
	}()
	t.Cleanup(func() {
		w.cmd.Process.Kill()
		for range w.text {
		}
		w.cmd.Wait() // an error if it was waited for
	})
	return w
}

// await draws until the screen matches.
func (w *watcher) await(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(lab.Patience)
	for !re.MatchString(w.vt.String()) {
		select {
		case b, ok := <-w.text:
			if !ok {
				t.Fatalf("it ended; the screen never matched %s:\n%s", pattern, w.vt)
			}
			w.rest = w.vt.write(append(w.rest, b...))
		case <-late:
			t.Fatalf("the screen does not match %s:\n%s", pattern, w.vt)
		}
	}
}

// end waits until it has ended with status 0, and returns what it wrote meanwhile.
func (w *watcher) end(t *testing.T) string {
	t.Helper()
	text, late := w.rest, time.AfterFunc(lab.Patience, func() { w.cmd.Process.Kill() })
	defer late.Stop()
	for b := range w.text {
		text = append(text, b...)
	}
	if err := w.cmd.Wait(); err != nil {
		t.Fatalf("hvnet top: %v: %q", err, text)
	}
	return string(text)
}

// What is on the terminal is the NIC's traffic; keys work, and the terminal is as it was
// in the end, also when it is the driver that ends.
func TestTopOnATerminal(t *testing.T) {
	g, server := runningNIC(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); send(ctx, g) }()
	defer func() { stop(); <-done }()

	w := startTop(t)
	w.await(t, `(?m)^eth0: 4 of \d+ channels, path synthetic, table of \d+, 0 dropped$`)
	w.await(t, `(?m)^flows by: tcp4 ports, udp4 ports, tcp6 ports, udp6 ports$`)
	w.await(t, `(?m)^QUEUE  PACKETS/S +BITS/S +FLOWS +PACKETS/S +BITS/S +FLOWS +/S$`)
	w.await(t, `(?m)^    0 +0 +0 +0 +\d[^ ]*( k)? +\d[^ ]* [kMG] +\d+ .* 25 %\n    1 `)
	w.await(t, `(?m)^  all +0 +0 +0 +\d[^ ]*( k)? +\d[^ ]* [kMG] +8 `)
	w.await(t, `q quit   s sort, by queue   r reverse   space pause\n$`)
	io.WriteString(w.tty, "r")
	w.await(t, `(?m)^    3 .*\n    2 .*\n    1 .*\n    0 .*\n  all `)
	io.WriteString(w.tty, "s")
	w.await(t, `s sort, by received reversed`)
	io.WriteString(w.tty, "q")
	if text := w.end(t); !strings.Contains(text, "\x1b[?1049l") {
		t.Errorf("the terminal is not as it was: %q", text)
	}

	w = startTop(t)
	w.await(t, `(?m)^  all +0 +0 +0 +\d`)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if text := w.end(t); !strings.HasSuffix(text, "eth0: the driver has ended\r\n") || !strings.Contains(text, "\x1b[?1049l") {
		t.Errorf("it says %q", text)
	}
}

// For scripts there is text and JSON, once and again and again.
func TestTopForScripts(t *testing.T) {
	g, server := runningNIC(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); send(ctx, g) }()
	defer func() { stop(); <-done }()

	out := lab.Run(t, "hvnet", "top", "eth0", "--once", "--interval", "200ms")
	if !regexp.MustCompile(`(?m)^eth0: 4 of .*(\n.*)*\n  all +0 +0 +0 +\d[^ ]*( k)? +\d`).Match(out) {
		t.Errorf("it prints %s", out)
	}
	var v top.View
	for late := time.Now().Add(lab.Patience); v.All.TxPackets == 0 && time.Now().Before(late); {
		v = top.View{} // the machine may have had no time for traffic
		if err := json.Unmarshal(lab.Run(t, "hvnet", "top", "--once", "--json", "--interval", "200ms"), &v); err != nil {
			t.Fatal(err)
		}
	}
	if v.Interface != "eth0" || v.Channels != 4 || len(v.Queues) != 4 || v.All.TxPackets <= 0 || v.All.TxBits < 8*1000*v.All.TxPackets || v.All.RxPackets != 0 || v.Flows == nil || v.Flows.Received != 0 || v.Flows.Sent < 1 || v.Flows.Sent > 8 {
		t.Errorf("it prints %+v", v)
	}
	many, err := lab.Spawn("top", "", os.Environ(), []string{"hvnet", "top", "--json", "--interval", "100ms"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(many.Kill)
	lab.Await(t, many, `^{"interface":"eth0".*}$`)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if status, err := many.End(t.Context()); status != 0 || err != nil {
		t.Errorf("status %d, %v: %v", status, err, many.Said())
	}
	text, said := many.Output()
	if string(said) != "eth0: the driver has ended\n" {
		t.Errorf("it says %q", said)
	}
	for line := range strings.Lines(string(text)) {
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
}
