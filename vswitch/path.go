package vswitch

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"hvnet/nic"
	"hvnet/offload"
)

// ErrPathInUse is returned for a port that has a second path already.
var ErrPathInUse = errors.New("the port has a second path")

// A Path is a second way between the switch and the station behind a port, as a virtual
// function is beside a synthetic NIC. It is the same port by another cable: what the
// station sends is taken by either, is in the port's VLANs and teaches the port's
// addresses; what goes to the station leaves by exactly one of the two, a group frame
// too; and nothing that came by one goes back by the other. Its methods may be called
// from any goroutine.
type Path struct {
	p      *Port
	name   string
	out    *offload.Sink
	closed atomic.Bool

	inFrames, inBytes   atomic.Uint64
	outFrames, outBytes atomic.Uint64
	turns               atomic.Uint64
}

// A way is one of the two for as long as it is the one by which frames leave. A port that
// turns to the other, and back, has another way each time.
type way struct {
	out   *offload.Sink
	path  *Path        // nil: the port's own
	users sync.RWMutex // held for reading while frames leave
}

// AddPath adds a second path to the port. Frames leave by it after [Path.Use] only. The
// name is for people. The error is ErrPathInUse if there is one.
func (p *Port) AddPath(name string, out nic.Sink) (*Path, error) {
	x := &Path{p: p, name: name, out: offload.NewSink(out)}
	if !p.second.CompareAndSwap(nil, x) {
		return nil, fmt.Errorf("add path %s to port %s: %w", name, p.name, ErrPathInUse)
	}
	return x, nil
}

// WriteFrames takes frames that the station sends by the path. If the port has a fixed
// address, frames from any other are dropped and counted.
func (x *Path) WriteFrames(frames []nic.Frame) {
	if x.closed.Load() {
		x.p.count.dropped[DropClosed].Add(uint64(len(frames)))
		return
	}
	x.p.take(x, frames)
}

// Use has frames for the port leave by the path from now on. When it returns nothing is
// on its way by the other one. It must not be called by a sink that is being written to,
// and does nothing on a closed path.
func (x *Path) Use() { x.p.turn(x, true) }

// Leave has frames for the port leave by the port's own way again; see Use.
func (x *Path) Leave() { x.p.turn(x, false) }

// Close takes the path away, after Leave if it is in use. No frame goes to its sink after
// that; what is written to it is dropped.
func (x *Path) Close() {
	x.closed.Store(true)
	x.Leave()
	x.p.second.CompareAndSwap(x, nil)
}

// turn makes x the way by which frames leave, or no longer. When it returns, nobody sends
// by the way of before.
func (p *Port) turn(x *Path, use bool) {
	p.turning.Lock()
	defer p.turning.Unlock()
	old := p.way.Load()
	if (old.path == x) == use || use && x.closed.Load() {
		return
	}
	now := &way{out: p.out}
	if use {
		now = &way{out: x.out, path: x}
	}
	p.way.Store(now)
	x.turns.Add(1)
	old.users.Lock()
	//lint:ignore SA2001 taking the lock is the wait
	old.users.Unlock()
}

// enter returns the way by which frames leave now, which lasts until its users are
// unlocked. Nobody waits here: a sink that is being written to may write to its own port,
// and so come here again while turn waits.
func (p *Port) enter() *way {
	for {
		w := p.way.Load()
		if !w.users.TryRLock() {
			continue // the port has turned
		}
		if p.way.Load() == w {
			return w
		}
		w.users.RUnlock()
	}
}

// PathInfo describes the second path of a port.
type PathInfo struct {
	Name  string
	Used  bool   // frames for the port leave by it
	Turns uint64 // times that the port turned to it, or back

	InFrames, InBytes   uint64 // of the port's frames, those that came by the path
	OutFrames, OutBytes uint64 // and those that left by it
}

// path describes the second path, nil if there is none.
func (p *Port) path() *PathInfo {
	x := p.second.Load()
	if x == nil {
		return nil
	}
	return &PathInfo{
		Name: x.name, Used: p.way.Load().path == x, Turns: x.turns.Load(),
		InFrames: x.inFrames.Load(), InBytes: x.inBytes.Load(), OutFrames: x.outFrames.Load(), OutBytes: x.outBytes.Load(),
	}
}
