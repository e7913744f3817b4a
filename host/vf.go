package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/link/pcap"
	"hvnet/netvsp"
	"hvnet/nic"
	"hvnet/vswitch"
)

// A VF is the host's end of a virtual function: a sink for what goes to the guest by it,
// never before [Host.AddVF] and never after Close.
type VF interface {
	nic.Sink
	// Start has what the guest sends by the function passed to a sink, until Close. It is
	// called once.
	Start(to nic.Sink)
	// Drain returns when all that was written to the function before has come to the guest's
	// end, and all that the guest has sent by it has been passed on; or with the error of
	// ctx, and a sentence of what it waited for.
	Drain(ctx context.Context) error
	// Close takes the function away, as if it was pulled out. When it returns nothing is
	// passed on any more.
	Close() error
}

// moveTime is how long a guest gets to move its data path off a function that is announced
// to go, and the function to be drained.
const moveTime = 2 * time.Second

// A function is a VF at its place.
type function struct {
	serial uint32
	vf     VF
	from   netvsp.Port // what the guest sends, in view
	line   *badLine    // between function and switch; nil: a good one
}

// A place is where the function of a guest's port is, or would be.
type place struct {
	dev *netvsp.Device

	busy sync.Mutex // held by who adds and removes, for as long as that takes
	fn   *function  // under busy; nil: none
	left bool       // under busy: the guest is gone

	mu   sync.Mutex    // held while the port or the function comes or goes
	port *vswitch.Port // of the switch; nil before the guest has opened its NIC
	out  nic.Sink      // to the function, in view; nil: none

	path atomic.Pointer[vswitch.Path] // nil: no port, or no function
	lost atomic.Uint64                // frames from the function that met no port
}

// plugged has the function's path follow the port to the switch.
func (l *place) plugged(p *vswitch.Port) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.port = p
	l.join()
}

// join makes the path if there are both port and function. The caller holds mu.
func (l *place) join() {
	if l.port == nil || l.out == nil {
		return
	}
	// It can't fail: nobody else adds paths, and Close takes this one away.
	if x, err := l.port.AddPath(pcap.VF, l.out); err == nil {
		l.path.Store(x)
	}
}

// WriteFrames takes what the guest sends by the function.
func (l *place) WriteFrames(frames []nic.Frame) {
	if x := l.path.Load(); x != nil {
		x.WriteFrames(frames)
		return
	}
	l.lost.Add(uint64(len(frames)))
}

// Close takes the path off the port.
func (l *place) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = nil
	if x := l.path.Swap(nil); x != nil {
		x.Close()
	}
}

// use moves what goes to the guest to the function, unless that is being closed, or back.
func (l *place) use(vf bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.path.Load()
	switch {
	case x == nil: // nothing goes to the guest
	case vf && l.out != nil:
		x.Use()
	default:
		x.Leave()
	}
}

// spare has nothing more go to the function. What comes from it is still taken.
func (l *place) spare() {
	l.mu.Lock()
	l.out = nil
	l.mu.Unlock()
	l.use(false)
}

// AddVF gives a guest's port a virtual function beside its NIC, with the number by which
// the guest knows it. A guest that has asked for SR-IOV is told of it, at once and whenever
// it brings its NIC up; what goes to the guest leaves by the function while the guest says
// so, and what it sends by either is taken. The function goes with the guest. If it fails,
// vf is closed; the error is ErrNoGuest, netvsp.ErrNoSRIOV without Config.SRIOV, or
// netvsp.ErrVF.
func (h *Host) AddVF(port string, serial uint32, vf VF) error {
	err := h.vf("add", port, func(l *place) error { return h.addVF(port, l, serial, vf) })
	if err != nil {
		err = errors.Join(err, vf.Close())
	}
	return err
}

func (h *Host) addVF(port string, l *place, serial uint32, vf VF) error {
	switch {
	case !h.cfg.SRIOV:
		return netvsp.ErrNoSRIOV
	case l.fn != nil:
		return netvsp.ErrVF
	}
	from, err := h.see.connect(port, pcap.VF, vf, func(out nic.Sink) (netvsp.Port, error) {
		return h.bad.connect(port, pcap.VF, out, func(out nic.Sink) (netvsp.Port, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.out = out
			l.join()
			return l, nil
		})
	})
	if err != nil {
		return err
	}
	vf.Start(from)
	if err := l.dev.AddVF(netvsp.VF{Serial: serial, Use: l.use}); err != nil {
		from.Close()
		return err
	}
	l.fn = &function{serial: serial, vf: vf, from: from, line: h.bad.line(port, pcap.VF)}
	h.watchVF(port, l)
	return nil
}

// RemoveVF takes the function of a port away as Hyper-V does when somebody asks it to:
// announced. The guest is told, and moves its data path; what is under way by the function
// still arrives, both ways; only then it is closed. A guest that does not move in time is
// moved. The error is ErrNoGuest, netvsp.ErrNoVF or that of a function which was not
// drained in time, and is gone all the same.
func (h *Host) RemoveVF(ctx context.Context, port string) error {
	return h.vf("remove", port, func(l *place) error {
		err := l.leave(ctx)
		if errors.Is(err, netvsp.ErrNoVF) {
			return err
		}
		return errors.Join(err, l.close())
	})
}

// FlapVF takes the function of a port away, announced, and gives it back at once.
func (h *Host) FlapVF(ctx context.Context, port string) error {
	return h.vf("flap", port, func(l *place) error {
		err := l.leave(ctx)
		if errors.Is(err, netvsp.ErrNoVF) {
			return err
		}
		return errors.Join(err, l.dev.AddVF(netvsp.VF{Serial: l.fn.serial, Use: l.use}))
	})
}

// LoseVF has the function of a port vanish without a word, as hardware does; the guest is
// told after the fact. What is under way by it is lost. The error is ErrNoGuest or
// netvsp.ErrNoVF.
func (h *Host) LoseVF(port string) error {
	return h.vf("lose", port, func(l *place) error {
		if l.fn == nil {
			return netvsp.ErrNoVF
		}
		err := l.close()
		return errors.Join(err, l.dev.LoseVF())
	})
}

// leave has the guest leave its function, and the function drained.
func (l *place) leave(ctx context.Context) error {
	if l.fn == nil {
		return netvsp.ErrNoVF
	}
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	if _, err := l.dev.RemoveVF(ctx); err != nil {
		return err
	}
	// The guest may have used up all the time there was.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), moveTime)
	defer cancel()
	return l.fn.line.drain(ctx, l.fn.vf.Drain)
}

// close closes the function: first nothing more goes to it, then nothing more comes.
func (l *place) close() error {
	fn := l.fn
	l.fn = nil
	l.spare()
	fn.line.spare()
	err := fn.vf.Close()
	fn.from.Close()
	return err
}

// gone closes the function of a guest that has gone.
func (l *place) gone() error {
	l.busy.Lock()
	defer l.busy.Unlock()
	l.left = true
	if l.fn == nil {
		return nil
	}
	return l.close()
}

// vf does something to the function of a guest's port, one at a time. It may take long,
// and holds nothing else up.
func (h *Host) vf(what, port string, f func(*place) error) error {
	h.mu.Lock()
	p := h.ports[port]
	h.mu.Unlock()
	if p == nil {
		return fmt.Errorf("%s the VF of port %s: %w", what, port, ErrNoGuest)
	}
	l := &p.vf
	l.busy.Lock()
	defer l.busy.Unlock()
	if l.left {
		return fmt.Errorf("%s the VF of port %s: %w", what, port, ErrNoGuest)
	}
	if err := f(l); err != nil {
		return fmt.Errorf("%s the VF of port %s: %w", what, port, err)
	}
	return nil
}
