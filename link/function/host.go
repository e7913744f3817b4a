package function

import (
	"context"
	"errors"
	"os"

	"hvnet/link/packet"
	"hvnet/nic"
)

// HostFiles are the descriptors of the host's end of a function, which last as long as
// one of them is open. They may be passed to another process.
type HostFiles struct {
	packet.Files
	Settings *os.File // an rtnetlink socket for settings
}

// Make makes a function for the guest in a network namespace, given by an open file such as
// /proc/PID/ns/net, in whose user namespace the caller needs CAP_NET_ADMIN, and CAP_SYS_ADMIN
// in its own. The host's end is in a new namespace, which has no other name than the files
// that are returned. The guest's interface is down, as a new device is.
//
// It fails with an error that is ErrPermission or ErrExists where that is the reason.
func Make(guest *os.File, cfg Config) (HostFiles, error) {
	return HostFiles{}, errors.New("not yet")
}

// List returns the files in the order that [ListedHostFiles] wants.
func (f *HostFiles) List() []*os.File {
	return []*os.File{f.Receive, f.Send, f.Control, f.Settings}
}

// ListedHostFiles returns the files that were passed in the order of [HostFiles.List]. It
// closes them if they are not such.
func ListedHostFiles(list []*os.File) (HostFiles, error) {
	return HostFiles{}, errors.New("not yet")
}

// Close closes the files that are open. If no other process has them the function goes.
func (f *HostFiles) Close() error { return nil }

// A Host is the host's end of a function: what is written to it comes to the guest's
// interface, what the guest sends by that goes to the sink of Start. All methods may be
// called from any goroutine. It implements host.VF.
type Host struct {
	link *packet.Link
}

var _ nic.Taker = (*Host)(nil)

// NewHost returns the host's end of a function. It owns the files from now on, also if it
// fails.
func NewHost(files HostFiles) (*Host, error) { return nil, errors.New("not yet") }

// Takes implements nic.Taker: checksums and super-frames stay as they are.
func (h *Host) Takes() nic.Offloads { return 0 }

// WriteFrames has the frames come to the guest's interface. What it does not take, because
// it is down for instance, is dropped and counted.
func (h *Host) WriteFrames(frames []nic.Frame) {}

// Start has what the guest sends passed on to a sink until Close. It is called once.
func (h *Host) Start(to nic.Sink) {}

// Drain returns when all frames that were written before have come to whoever receives from
// the guest's interface, and all that this has sent before has been passed on; or with the
// error of ctx and what it waited for.
func (h *Host) Drain(ctx context.Context) error { return nil }

// Gone is closed when the function is no longer there: after Close, or because somebody has
// removed the guest's interface.
func (h *Host) Gone() <-chan struct{} { return nil }

// Stats returns what was lost at this end, by reason.
func (h *Host) Stats() []nic.Stat { return nil }

// Close removes the function, as if it was pulled out. When it returns, the guest's interface
// is no longer there and nothing is passed on any more.
func (h *Host) Close() error { return nil }
