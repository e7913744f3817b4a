// Package e2e tests the halves against each other: the driver of netvsc and the
// device of netvsp over a whole bus in one process.
package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"hvnet/hv"
	"hvnet/netvsc"
	"hvnet/netvsp"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vmbus"
	"hvnet/vmbus/guest"
	"hvnet/vmbus/host"
	"hvnet/vswitch"
)

const devicePatience = time.Minute

// A deviceSink keeps copies of frames.
type deviceSink struct {
	mu      sync.Mutex
	frames  map[string]int
	total   int
	perChan map[uint16]int
	arrived chan struct{}
}

func newDeviceSink() *deviceSink {
	return &deviceSink{frames: map[string]int{}, perChan: map[uint16]int{}, arrived: make(chan struct{}, 1)}
}

func (s *deviceSink) WriteFrames(frames []nic.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		s.frames[string(b)]++
		s.total++
		s.perChan[frames[i].Channel]++
	}
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// wait waits for n frames in all.
func (s *deviceSink) wait(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(devicePatience)
	for {
		s.mu.Lock()
		total := s.total
		s.mu.Unlock()
		if total >= n {
			return
		}
		select {
		case <-s.arrived:
		case <-deadline:
			t.Fatalf("waiting for %d frames: got %d", n, total)
		}
	}
}

// A deviceGuest is a guest with its NIC up.
type deviceGuest struct {
	dev  *netvsp.Device
	nic  *netvsc.NIC
	sink *deviceSink
	mac  nic.MAC
}

// newDeviceGuest attaches a guest with a NIC to a port of the switch.
func newDeviceGuest(t *testing.T, ctx context.Context, sw *vswitch.Switch, prof profile.Profile, n byte, cfg netvsc.Config) *deviceGuest {
	t.Helper()
	cfg.Timeout = devicePatience
	part, hg, err := hv.Pipe(4)
	if err != nil {
		t.Fatal(err)
	}
	g := &deviceGuest{mac: nic.MAC{0x00, 0x15, 0x5d, 0, 0, n}, sink: newDeviceSink()}
	name := fmt.Sprint("g", n)
	g.dev = netvsp.New(netvsp.Config{Name: name, MAC: g.mac, Profile: prof}, func(sink nic.Sink) (netvsp.Port, error) {
		return sw.Connect(name, sink, vswitch.PortOptions{MAC: g.mac})
	})
	srv := host.New(hg, host.Config{Versions: prof.VMBus})
	if _, err := srv.Offer(vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{n}}, g.dev.Backend); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve() }()
	bus, err := guest.Connect(ctx, part, guest.Config{Versions: prof.VMBus})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := bus.Device(ctx, vmbus.ClassNIC)
	if err != nil {
		t.Fatal(err)
	}
	if g.nic, err = netvsc.Open(ctx, dev, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end, cancel := context.WithTimeout(context.Background(), devicePatience)
		defer cancel()
		if err := g.nic.Close(end); err != nil {
			t.Errorf("close NIC: %v", err)
		}
		for _, a := range g.nic.Accounts() {
			if err := a.AtRest(); err != nil {
				t.Error(err)
			}
		}
		if info := g.dev.Info(); info.Stage != netvsp.StageClosed || info.Faults != 0 {
			t.Errorf("device after the NIC was closed: %+v", info)
		}
		bus.Close()
		<-served
	})
	if err := g.nic.Up(ctx, g.sink); err != nil {
		t.Fatal(err)
	}
	return g
}

// deviceFrame is a TCP frame of n bytes of flow f, number i.
func deviceFrame(dst, src nic.MAC, n, f, i int) []byte {
	b := make([]byte, n)
	copy(b, dst[:])
	copy(b[6:], src[:])
	copy(b[12:], []byte{0x08, 0x00, 0x45})
	binary.BigEndian.PutUint16(b[16:], uint16(n-14))
	b[23] = 6
	copy(b[26:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(b[34:], uint16(1000+f))
	binary.BigEndian.PutUint16(b[36:], 80)
	for k := 54; k < n; k++ {
		b[k] = byte(k * (i + 3))
	}
	binary.BigEndian.PutUint32(b[38:], uint32(i))
	return b
}

func deviceFrames(list ...[]byte) (out []nic.Frame) {
	for _, b := range list {
		h := min(len(b), nic.HeadLen)
		f := nic.Frame{Head: b[:h]}
		if h < len(b) {
			f.Body = [][]byte{b[h:]}
		}
		out = append(out, f)
	}
	return out
}

// TestDeviceProfiles lets two guests exchange frames over a switch, on every host
// release, and compares each byte.
func TestDeviceProfiles(t *testing.T) {
	for _, name := range profile.Names() {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
			defer cancel()
			prof, err := profile.Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			sw := vswitch.New(vswitch.Config{})
			a := newDeviceGuest(t, ctx, sw, prof, 1, netvsc.Config{})
			b := newDeviceGuest(t, ctx, sw, prof, 2, netvsc.Config{})
			want := map[string]int{}
			const rounds = 50
			for i := range rounds {
				var list [][]byte
				for f := range 8 {
					list = append(list, deviceFrame(b.mac, a.mac, []int{60, 61, 127, 128, 129, 700, 1513, 1514}[f], f, i))
				}
				for _, m := range list {
					want[string(m)]++
				}
				for left := deviceFrames(list...); len(left) > 0; {
					left = left[a.nic.Send(-1, left):]
				}
				b.sink.wait(t, 8*(i+1)) // in flight at most 8: none may be lost
			}
			b.sink.mu.Lock()
			defer b.sink.mu.Unlock()
			for m, n := range want {
				if b.sink.frames[m] != n {
					t.Fatalf("frame of %d bytes came %d times, want %d:\n%x", len(m), b.sink.frames[m], n, m[:60])
				}
			}
			ia, ib := a.dev.Info(), b.dev.Info()
			if ia.Stats.TxFrames != 8*rounds || ib.Stats.RxFrames != 8*rounds || len(ib.RxDropped)+len(ia.TxDropped) != 0 {
				t.Errorf("counters:\n%+v\n%+v", ia, ib)
			}
			channels := a.nic.Channels()
			if ia.Channels != channels.Combined {
				t.Errorf("the device has %d channels, the driver %d", ia.Channels, channels.Combined)
			}
			if ib.RSS && len(b.sink.perChan) < 2 {
				t.Errorf("RSS is on, but all frames came on one channel: %v", b.sink.perChan)
			}
		})
	}
}

// TestDeviceChannels changes the number of channels while frames flow; afterwards
// nothing is lost.
func TestDeviceChannels(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
	defer cancel()
	prof, err := profile.Lookup(profile.Default)
	if err != nil {
		t.Fatal(err)
	}
	sw := vswitch.New(vswitch.Config{})
	a := newDeviceGuest(t, ctx, sw, prof, 1, netvsc.Config{})
	b := newDeviceGuest(t, ctx, sw, prof, 2, netvsc.Config{})
	stop := make(chan struct{})
	var noise sync.WaitGroup
	noise.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			a.nic.Send(-1, deviceFrames(deviceFrame(b.mac, a.mac, 200, i%16, i)))
			b.nic.Send(-1, deviceFrames(deviceFrame(a.mac, b.mac, 1000, i%16, i)))
		}
	})
	for _, n := range []int{1, 4, 2, 4} {
		for _, g := range []*deviceGuest{a, b} {
			if err := g.nic.SetChannels(ctx, n); err != nil {
				t.Errorf("set %d channels: %v", n, err)
			}
			if info := g.dev.Info(); info.Channels != n || info.Stage != netvsp.StageUp {
				t.Errorf("after setting %d channels: %+v", n, info)
			}
		}
	}
	close(stop)
	noise.Wait()
	for i := range 20 {
		m := deviceFrame(b.mac, a.mac, 300, i, 1<<20+i)
		for a.nic.Send(-1, deviceFrames(m)) == 0 {
		}
		deadline := time.After(devicePatience)
		for {
			b.sink.mu.Lock()
			n := b.sink.frames[string(m)]
			b.sink.mu.Unlock()
			if n == 1 {
				break
			}
			select {
			case <-b.sink.arrived:
			case <-deadline:
				t.Fatalf("frame %d after the changes did not come: %+v", i, b.dev.Info())
			}
		}
	}
	if info := b.dev.Info(); info.Faults != 0 || info.Failures != 0 {
		t.Errorf("%+v", info)
	}
}

// TestDeviceJumbo: long frames go between guests with a large MTU, and not to one
// with a small one.
func TestDeviceJumbo(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
	defer cancel()
	prof, err := profile.Lookup(profile.Default)
	if err != nil {
		t.Fatal(err)
	}
	sw := vswitch.New(vswitch.Config{})
	a := newDeviceGuest(t, ctx, sw, prof, 1, netvsc.Config{MTU: 9000})
	b := newDeviceGuest(t, ctx, sw, prof, 2, netvsc.Config{MTU: 9000})
	c := newDeviceGuest(t, ctx, sw, prof, 3, netvsc.Config{})
	for i, n := range []int{9014, 5000, 6100, 60} {
		m := deviceFrame(b.mac, a.mac, n, 0, i)
		small := deviceFrame(c.mac, a.mac, n, 0, i)
		for left := deviceFrames(m, small); len(left) > 0; {
			left = left[a.nic.Send(-1, left):]
		}
		b.sink.wait(t, i+1)
		b.sink.mu.Lock()
		if b.sink.frames[string(m)] != 1 {
			t.Errorf("a frame of %d bytes came as another", n)
		}
		b.sink.mu.Unlock()
	}
	c.sink.wait(t, 1)
	for c.dev.Info().RxDropped[netvsp.DropTooLong] < 3 && ctx.Err() == nil {
	}
	if n := c.dev.Info().RxDropped[netvsp.DropTooLong]; n != 3 {
		t.Errorf("%d frames were too long for a guest with the usual MTU, want 3", n)
	}
}
