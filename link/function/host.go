package function

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/link/packet"
	"hvnet/link/rtnl"
	"hvnet/nic"
)

// HostFiles are the descriptors of the host's end of a function, which lasts as long as
// one of them is open. They may be passed to another process.
type HostFiles struct {
	packet.Files
	Settings *os.File // an rtnetlink socket for settings
}

// List returns the files in the order that [ListedHostFiles] wants.
func (f *HostFiles) List() []*os.File {
	return []*os.File{f.Receive, f.Send, f.Control, f.Settings}
}

// ListedHostFiles returns the files that were passed in the order of [HostFiles.List]. If
// there are not as many, it closes them and fails.
func ListedHostFiles(list []*os.File) (HostFiles, error) {
	if err := listed(list, 4); err != nil {
		return HostFiles{}, err
	}
	return HostFiles{packet.Files{Receive: list[0], Send: list[1], Control: list[2]}, list[3]}, nil
}

// listed closes files that are not as many as wanted.
func listed(list []*os.File, want int) error {
	if len(list) == want {
		return nil
	}
	for _, f := range list {
		f.Close()
	}
	return fmt.Errorf("files of a virtual function: got %d, want %d", len(list), want)
}

// Close closes the files that are open. If no other process has them the function goes,
// a moment later.
func (f *HostFiles) Close() error {
	err := f.Files.Close()
	if f.Settings != nil {
		err = errors.Join(err, f.Settings.Close())
	}
	return err
}

// A Host is the host's end of a function: what is written to it comes to the guest's
// interface, what the guest sends by that goes to the sink of Start. All methods may be
// called from any goroutine. It implements host.VF.
type Host struct {
	link     *packet.Link
	wire     bool
	settings *os.File
	client   *rtnl.Client
	index    int32

	stop     context.CancelFunc
	gone     chan struct{}
	left     func()        // closes it, once
	watching chan struct{} // closed when nobody watches the interface any more

	mu        sync.Mutex
	closed    bool
	receiving sync.WaitGroup
}

var _ nic.Taker = (*Host)(nil)

// NewHost returns the host's end of a function that was made for a configuration. It owns the
// files from now on, also if it fails.
func NewHost(files HostFiles, cfg Config) (*Host, error) {
	link, err := packet.FromFiles(hostName, files.Files)
	if err != nil {
		return nil, errors.Join(err, files.Settings.Close())
	}
	h := &Host{link: link, wire: cfg.Wire, settings: files.Settings, client: rtnl.NewClient(files.Settings), index: link.State().Index()}
	h.gone, h.watching = make(chan struct{}), make(chan struct{})
	h.left = sync.OnceFunc(func() { close(h.gone) })
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	go h.watch(ctx, files.Control)
	return h, nil
}

// watch waits for the end of the interface. Nobody else sets it down: the kernel does so
// first when it removes a pair, and takes milliseconds for the rest.
func (h *Host) watch(ctx context.Context, control *os.File) {
	defer close(h.watching)
	end := errors.New("it is gone")
	rtnl.Watch(ctx, control, rtnl.Interface{Index: h.index}, func(s rtnl.State) error {
		if s.Removed || !s.Up {
			h.left()
			return end
		}
		_, err := h.link.Follow(s)
		return err
	})
}

// Takes implements nic.Taker: checksums and super-frames stay as they are, but for
// Config.Wire.
func (h *Host) Takes() nic.Offloads {
	if h.wire {
		return 0
	}
	return h.link.Takes()
}

// WriteFrames has the frames come to the guest's interface. What it does not take, because
// it is down for instance, is dropped and counted.
func (h *Host) WriteFrames(frames []nic.Frame) {
	h.link.WriteFrames(frames)
	if h.link.Down() > 0 { // this end: it is being removed
		h.left()
	}
}

// Start has what the guest sends passed on to a sink until Close. It is called once.
func (h *Host) Start(to nic.Sink) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		// It ends with the link; there is nobody to tell of another end, but the host sees
		// that nothing comes any more: Drain fails.
		h.receiving.Go(func() { h.link.Receive(to) })
	}
}

// Drain returns when all frames that were written before have come to whoever receives from
// the guest's interface, and all that this has sent before has been passed on; or with the
// error of ctx and what it waited for. Frames that a queueing discipline of the guest's users
// holds back are not sent. One that the kernel drops on its way here, as it does with a tag
// that is cut off, is waited for in vain. Of a function that is gone, or goes meanwhile, what
// has come is passed on.
func (h *Host) Drain(ctx context.Context) error {
	err := h.arrived(ctx)
	if err == nil || h.isGone() || errors.Is(err, unix.ENODEV) {
		err = h.link.Flush(ctx)
	}
	if err == nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("drain: %w", err)
}

// arrived waits until all frames have come to the packet socket of the end that they are
// for, or ctx ends, or the function goes.
func (h *Host) arrived(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-h.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := h.link.Sent(ctx); err != nil {
		return err
	}
	// A veth counts what the other end sends. From then on it is under way here.
	n, err := rtnl.Counts(h.client, h.index)
	if err != nil {
		return err
	}
	return h.link.Arrived(ctx, n.Received)
}

// isGone reports whether Gone is closed.
func (h *Host) isGone() bool {
	select {
	case <-h.gone:
		return true
	default:
		return false
	}
}

// Gone is closed when the function is no longer there: somebody has removed the guest's
// interface, or Close has.
func (h *Host) Gone() <-chan struct{} { return h.gone }

// Stats returns what was lost at this end, by reason.
func (h *Host) Stats() []nic.Stat { return h.link.Stats() }

// Close removes the function, as if it was pulled out. When it returns, the guest's interface
// is no longer there and nothing is passed on any more.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	_, err := h.client.Do(rtnl.Link(unix.RTM_DELLINK, h.index, 0, 0))
	if errors.Is(err, unix.ENODEV) {
		err = nil
	}
	if err == nil {
		select {
		case <-h.gone:
		case <-h.watching:
		case <-time.After(time.Second): // the kernel says so before it answers
		}
	} else {
		err = fmt.Errorf("remove a virtual function: %w", err)
	}
	h.stop()
	<-h.watching
	h.left()
	err = errors.Join(err, h.link.Close(), h.settings.Close())
	h.receiving.Wait()
	return err
}
