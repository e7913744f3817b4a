package ivshmem

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hvnet/hv"
)

// guest is a kernel in QEMU as its host sees it.
type guest struct {
	end    ender
	note   string // path of the note about it, removed when QEMU is gone; or empty
	memory *hv.Memory
	synic  *hv.HostSynIC
	window *window

	msrs []msrs // of each VP; the doorbell goroutine's

	door  *doorbell
	bells []bell        // of each VP
	due   atomic.Uint64 // VPs to interrupt, a bit each
	rung  chan struct{} // capacity 1: there are some

	served atomic.Bool // by Serve, or never to be
	once   sync.Once
	err    error // of the one who closed it first
	done   chan struct{}
}

// An ender tells the end of QEMU.
type ender interface {
	await() error // returns when QEMU is gone, or why to be rid of it, or after Close
	Close() error
}

// A socketEnd is the end of the QEMU that has connected.
type socketEnd struct{ *net.UnixConn }

// await returns an error if QEMU says something: only the server speaks.
func (s socketEnd) await() error {
	var b [1]byte
	if n, _ := s.Read(b[:]); n > 0 {
		return fmt.Errorf("%w: QEMU has sent data", ErrProtocol)
	}
	return nil
}

// bareGuest returns a guest without window, doorbell and bells.
func bareGuest(memory *hv.Memory, vps int, end ender) *guest {
	g := &guest{
		end: end, memory: memory, msrs: newMSRs(vps),
		rung: make(chan struct{}, 1), done: make(chan struct{}),
	}
	g.synic = hv.NewHostSynIC(vps, g.interrupt)
	return g
}

// newGuest returns a guest whose SynIC has no pages yet.
func newGuest(conn *net.UnixConn, memory *hv.Memory, vps int, ramBytes int64) (*guest, error) {
	g := bareGuest(memory, vps, socketEnd{conn})
	if err := g.make(vps, ramBytes); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *guest) make(vps int, ramBytes int64) (err error) {
	if g.window, err = newWindow(vps, ramBytes); err != nil {
		return err
	}
	signals, err := g.window.signals()
	if err != nil {
		return err
	}
	g.synic.SetSignals(signals)
	if g.door, err = newDoorbell(); err != nil {
		return err
	}
	for range vps {
		fd, err := newEventFD()
		if err != nil {
			return err
		}
		g.bells = append(g.bells, bell{fd: fd})
	}
	return nil
}

func (g *guest) VPs() int { return len(g.msrs) }

func (g *guest) Memory() *hv.Memory { return g.memory }

func (g *guest) PostMessage(vp int, payload []byte) error { return g.synic.Post(vp, payload) }

func (g *guest) SetFlag(vp, flag int) error { return g.synic.SetFlag(vp, flag) }

func (g *guest) Done() <-chan struct{} { return g.done }

// interrupt has ringBells interrupt a VP.
func (g *guest) interrupt(vp int) {
	g.due.Or(1 << vp)
	select {
	case g.rung <- struct{}{}:
	default:
	}
}

// ringBells interrupts VPs until the guest is closed.
func (g *guest) ringBells() {
	for {
		select {
		case <-g.done:
			return
		case <-g.rung:
		}
		for due := g.due.Swap(0); due != 0; due &= due - 1 {
			g.bells[bits.TrailingZeros64(due)].ring()
		}
	}
}

// Serve listens to the guest's doorbell, and for the end of QEMU on its socket.
// Whichever ends first ends the other by closing the guest.
func (g *guest) Serve(h hv.Handler) error {
	if !g.served.CompareAndSwap(false, true) {
		return hv.ErrGone
	}
	var others sync.WaitGroup
	others.Go(func() { g.leave(g.awaitEnd()) })
	others.Go(g.ringBells)
	var failed error
	fault := hv.Guard(func() { failed = g.listen(h) })
	g.leave(errors.Join(fault, failed))
	others.Wait()
	g.release()
	if g.err != nil {
		return fmt.Errorf("serve a guest in QEMU: %w", g.err)
	}
	return hv.ErrGone
}

// listen serves the doorbell until it is closed.
func (g *guest) listen(h hv.Handler) error {
	for {
		switch err := g.door.wait(); {
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("wait for the doorbell: %w", err)
		}
		g.serveExits(h)
		g.synic.TakeSignals(h.Signal)
	}
}

// awaitEnd returns when QEMU is gone, has broken the protocol, or the guest was closed.
func (g *guest) awaitEnd() error {
	err := g.end.await()
	select {
	case <-g.done: // we go, QEMU stays for the next host
	default:
		if g.note != "" {
			os.Remove(g.note)
		}
	}
	return err
}

// Close detaches the guest.
func (g *guest) Close() error { return g.leave(nil) }

// leave closes everything that Serve waits for, once, and remembers why.
func (g *guest) leave(why error) (err error) {
	g.once.Do(func() {
		g.err = why
		close(g.done)
		g.synic.Close() // from here on no VP is interrupted
		if g.door != nil {
			err = g.door.file.Close()
		}
		err = errors.Join(err, g.end.Close(), g.memory.Close())
		for i := range g.bells {
			new(emptier).take(uintptr(g.bells[i].fd)) // whoever waits in ring goes on
		}
		if g.served.CompareAndSwap(false, true) {
			g.release()
		}
	})
	return err
}

// release frees what the goroutines of Serve use, after their end.
func (g *guest) release() {
	for i := range g.bells {
		unix.Close(g.bells[i].fd)
	}
	if g.window != nil {
		g.window.close()
	}
}
