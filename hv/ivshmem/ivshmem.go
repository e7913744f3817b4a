// Package ivshmem is the partition boundary of a guest that is a whole kernel in
// QEMU: an hv.Guest whose hypercalls, SynIC registers and interrupts travel through
// one ivshmem-doorbell device. The kernel's own drivers are not changed; a module in
// the guest (peers/linux-guest/shim) stands where the hypervisor's CPU interface
// would be.
//
// The host is QEMU's ivshmem server. It hands out a window of shared memory and
// eventfds for doorbells and interrupts, and maps the file that is the guest's RAM.
// In the window each virtual processor has an exit slot, where it posts a hypercall
// or an access to a register and spins until the host has answered, and there is a
// bitmap of signalled connections. Message pages, event pages and monitor pages are
// the guest's own memory, driven by hv.HostSynIC. peers/linux-guest/README.md has
// every byte of it.
//
// The host trusts nothing in the window or in the guest's memory. It does have to
// trust that QEMU's RAM file keeps its size: an access to memory that is gone ends
// as hv.ErrFault in whoever runs inside hv.Guard, and detaches this one guest. A
// guest can't make the host wait: eventfds are read in a way that never blocks, and
// written by a goroutine that serves this guest alone.
package ivshmem

import (
	"errors"
	"fmt"
	"log/slog"

	"hvnet/hv"
	"hvnet/hv/internal/socket"
)

// ErrInUse is returned by [Listen] if a live host listens on the path.
var ErrInUse = socket.ErrInUse

// ErrBusy is why a QEMU is turned away while another one has the socket: both would
// use one RAM file.
var ErrBusy = errors.New("another guest is attached")

// ErrProtocol is returned by Serve for a QEMU that says something on its socket,
// where only the server speaks.
var ErrProtocol = errors.New("ivshmem protocol broken")

// Config says what a guest's machine is like.
type Config struct {
	// RAM is the path of the file that is the guest's memory, mapped shared by
	// QEMU (memory-backend-file with share=on). Guest-physical address 0 is its
	// first byte, so it has at most 2 GiB, where the address space of a PC has
	// its gap. It is opened when QEMU connects.
	RAM string
	// VPs is the number of the machine's processors and of the device's vectors,
	// 1 to hv.MaxVPs.
	VPs int
	// Limits bound what the guest can make the host hold.
	Limits hv.Limits
	// Log, if not nil, is told of guests that were turned away.
	Log *slog.Logger
}

// maxRAM is where the addresses of a PC's memory and the offsets in its file part.
const maxRAM = 2 << 30

func (c Config) check() error {
	if c.RAM == "" {
		return errors.New("no file with the guest's memory")
	}
	if c.VPs < 1 || c.VPs > hv.MaxVPs {
		return fmt.Errorf("%d virtual processors, not 1 to %d", c.VPs, hv.MaxVPs)
	}
	return nil
}
