package netvsc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/hv"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A session is one attachment to the device. What bring-up has found out does not
// change any more once senders see it.
type session struct {
	n        *NIC
	dev      channel.Device
	want     settings
	requests requests

	version       nvsp.Version
	mac           nic.MAC                 // permanent
	address       atomic.Pointer[nic.MAC] // in use; changes with SetMAC
	name          string
	mtu           int
	hostQueues    int // how many channels the host allows
	tableEntries  int // of the receive indirection table; 0: the host takes none
	rxSectionSize int
	rxSections    int
	txSectionSize int
	txSections    int

	// For senders: what fits where, in bytes.
	maxFrame   int    // longest frame, but for those that are cut
	align      int    // of a message behind another, a power of two
	limit      int    // a message must end here in its section
	landing    int    // free bytes worth reading a frame of unknown length into
	needRun    bool   // a section can't take the longest frame
	maxPackets uint32 // in one send

	granted   offloads                 // what the host can do for what is sent
	available nic.FeatureSet           // what of it and of the rest can be switched
	features  atomic.Pointer[features] // what is on; changes with SetFeatures

	// receive is for the queues' goroutines, which run from the beginning: nil
	// until there is a receive buffer.
	receive atomic.Pointer[receiveBuffer]

	sections *pool // of the send buffer
	runs     *pool // of pages, each for a frame of any length
	runPFNs  []uint64
	runPages int
	pages    *pool // for control messages
	pagePFNs []uint64

	queues  []*queue // by channel index; complete before senders see the session
	senders []*sender
	table   atomic.Pointer[[tableSize]uint32] // for sending, as the host gave it
	rss     atomic.Pointer[nic.RSS]           // for receiving; changes with SetRSS

	buffers buffers

	sriov       atomic.Bool                        // it was announced
	association atomic.Pointer[nvsp.VFAssociation] // the host's last word; nil: none

	failed   chan struct{} // closed once the session is of no more use
	failOnce sync.Once
	err      error

	draining atomic.Bool
	drained  chan struct{} // capacity 1: look again
}

// A receiveBuffer is where the host puts what the guest receives.
type receiveBuffer struct {
	mem     []byte
	section int          // bytes of a section
	count   int          // of sections
	version nvsp.Version // negotiated
	mtu     int
}

const tableSize = nvsp.TableEntries

// broken reports whether the session failed.
func (s *session) broken() bool {
	select {
	case <-s.failed:
		return true
	default:
		return false
	}
}

// fail ends a session that can't go on: its device was taken away, the host does
// not answer, or broke the rules of a ring. All waits end, and nothing more is sent.
func (s *session) fail(err error) {
	s.failOnce.Do(func() {
		s.err = fmt.Errorf("netvsc: %w: %w", nic.ErrNoDevice, err)
		close(s.failed)
		s.n.lose(s)
	})
}

// pause waits a moment, for what sends no signal.
func (s *session) pause(ctx context.Context) error {
	t := time.NewTimer(time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.drained:
		return nil
	case <-s.failed:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nudge tells a drain that something was completed.
func (s *session) nudge() {
	if !s.draining.Load() {
		return
	}
	select {
	case s.drained <- struct{}{}:
	default:
	}
}

// drain waits until the host has completed everything that was sent and the rings
// are empty both ways. The caller has stopped senders and told the host to stop.
func (s *session) drain(ctx context.Context) error {
	ctx, cancel := s.n.bound(ctx)
	defer cancel()
	s.draining.Store(true)
	for _, q := range s.queues {
		q.asked.Add(1)
		q.ch.Wake()
	}
	for {
		busy := s.busy()
		if busy == "" {
			return nil
		}
		if err := s.pause(ctx); err != nil {
			return fmt.Errorf("wait for the host to finish %s: %w", busy, err)
		}
	}
}

// busy says what the host has not finished, "" if nothing.
func (s *session) busy() string {
	for i, q := range s.queues {
		q.ch.Lock()
		live, ring := q.txns.live+len(q.waiting), q.ch.Out.Size()-q.ch.Out.Free()
		q.ch.Unlock()
		if live > 0 {
			return fmt.Sprintf("%d sends on channel %d", live, i)
		}
		if q.served.Load() != q.asked.Load() {
			return fmt.Sprintf("what was received on channel %d", i)
		}
		if ring > ringGap {
			return fmt.Sprintf("reading channel %d", i)
		}
	}
	return ""
}

// ringGap is what an empty ring does not offer to packets.
const ringGap = 8

// pageRange returns the first n bytes of page run i as a packet names them.
func (s *session) pageRange(i int32, n int) vmbus.PageRange {
	first := int(i) * s.runPages
	pages := (n + hv.PageSize - 1) / hv.PageSize
	return vmbus.PageRange{Count: uint32(n), PFNs: s.runPFNs[first : first+pages]}
}

// halt ends RNDIS. A host that does not even take that in its time is given up.
func (s *session) halt(ctx context.Context) error {
	err := s.sendControl(ctx, "RNDIS HALT", nil, rndis.Halt{RequestID: s.requests.newID()}.Append(nil))
	if err == nil {
		err = s.drain(ctx)
	}
	if err != nil && ctx.Err() == nil {
		s.fail(fmt.Errorf("%w: %w", ErrSilent, err))
	}
	return err
}

// close takes the session apart, in the order in which a host expects it, whether
// it is up, half up, or broken: halt, give the buffers up, close the channels. When
// the host can't confirm that it no longer uses memory, that memory stays allocated
// and the error says so.
func (s *session) close(ctx context.Context) error {
	var errs []error
	if len(s.queues) > 0 && !s.broken() {
		errs = append(errs, s.halt(ctx))
	}
	// Hosts before VMBus 4.0 want a buffer's GPADL gone while the channel is
	// open, later ones after it is closed.
	early := s.dev.Version() < vmbus.Version4_0
	for _, b := range []*shared{&s.buffers.rx, &s.buffers.tx} {
		errs = append(errs, s.revoke(ctx, b))
		if early {
			errs = append(errs, s.unshare(ctx, b))
		}
	}
	if s.broken() {
		errs = nil // nobody is there to complain of
	}
	for _, q := range s.queues {
		q.end()
	}
	closed := true
	if len(s.queues) > 0 {
		cctx, cancel := s.n.bound(ctx)
		defer cancel()
		if err := s.dev.Close(cctx, s.queues[0].ch); err != nil && !s.broken() {
			errs = append(errs, fmt.Errorf("close channels: %w", err))
			closed = false
		}
		for _, q := range s.queues {
			q.release()
		}
	}
	for _, b := range []*shared{&s.buffers.rx, &s.buffers.tx} {
		errs = append(errs, s.unshare(ctx, b))
	}
	errs = append(errs, s.freeMemory(closed))
	return errors.Join(errs...)
}
