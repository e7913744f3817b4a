package xdp

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// A program is attached to an interface, and gives each frame that comes in to the socket
// of the queue that it came in on. It ends with its descriptors, however the process ends.
type program struct {
	sockets *ebpf.Map // queue → socket
	code    *ebpf.Program
	link    link.Link
	generic bool
}

// What a program says of a frame, and where it finds the queue (struct xdp_md).
const (
	xdpDrop        = 1
	rxQueueIndexAt = 16
)

// attach attaches a program for the sockets of queues 0 to n-1 to an interface of the
// calling thread's network namespace: in its driver or, if that has no XDP or can't with
// the interface's MTU, behind it. What comes in before there are sockets is dropped.
func attach(index int32, n int) (p *program, err error) {
	if p, err = load(n); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
			p = nil
		}
	}()
	for _, mode := range []link.XDPAttachFlags{link.XDPDriverMode, link.XDPGenericMode} {
		p.link, err = link.AttachXDP(link.XDPOptions{Program: p.code, Interface: int(index), Flags: mode})
		switch {
		case err == nil:
			p.generic = mode == link.XDPGenericMode
			return p, nil
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
			return p, fmt.Errorf("%w: it has an XDP program already", ErrBusy)
		}
	}
	return p, fmt.Errorf("attach the XDP program: %w", err)
}

// add has the frames of a queue go to a socket.
func (p *program) add(queue, fd int) error {
	if err := p.sockets.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("give the frames of queue %d to its socket: %w", queue, err)
	}
	return nil
}

func (p *program) close() error {
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close())
	}
	if p.code != nil {
		errs = append(errs, p.code.Close())
	}
	if p.sockets != nil {
		errs = append(errs, p.sockets.Close())
	}
	return errors.Join(errs...)
}

// load has the kernel take a program for the sockets of queues 0 to n-1.
func load(n int) (p *program, err error) {
	p = new(program)
	defer func() {
		if err != nil {
			p.close()
			p = nil
		}
	}()
	if p.sockets, err = ebpf.NewMap(&ebpf.MapSpec{Name: "hvnet_sockets", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(n)}); err != nil {
		return p, fmt.Errorf("make the map of sockets: %w", err)
	}
	p.code, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "hvnet_receive",
		Type: ebpf.XDP,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, rxQueueIndexAt, asm.Word),
			asm.LoadMapPtr(asm.R1, p.sockets.FD()),
			asm.Mov.Imm(asm.R3, xdpDrop), // if there is no socket
			asm.FnRedirectMap.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		return p, fmt.Errorf("load the XDP program: %w", err)
	}
	return p, nil
}
