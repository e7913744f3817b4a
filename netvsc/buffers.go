package netvsc

import (
	"context"
	"errors"
	"fmt"

	"hvnet/hv"
	"hvnet/nvsp"
)

// The sections that hv_netvsc reckons with before a host has said how long its own
// are, and how many of them it asks for.
const (
	nominalRxSection  = 1728
	nominalTxSection  = 6144
	defaultRxSections = 9709 // 16 MiB
	defaultTxSections = 170  // 1 MiB
)

// buffers is the guest memory of a session.
type buffers struct {
	rx, tx  shared
	runs    hv.Region
	control hv.Region
}

// shared is a region that the host knows.
type shared struct {
	region  hv.Region
	gpadl   uint32
	shared  bool // the host has the GPADL
	granted bool // and has been told what it is for
}

// bufferBytes returns the size of a buffer for n bytes, in whole pages and at most
// limit.
func bufferBytes(n, limit int) int {
	return min((n+hv.PageSize-1)&^(hv.PageSize-1), limit)
}

// share allocates a buffer and makes it known to the host.
func (s *session) share(ctx context.Context, what string, b *shared, bytes int) error {
	ctx, cancel := s.n.bound(ctx)
	defer cancel()
	var err error
	if b.region, err = s.dev.Alloc(bytes); err != nil {
		return fmt.Errorf("allocate %s of %d bytes: %w", what, bytes, err)
	}
	if b.gpadl, err = s.dev.Share(ctx, b.region); err != nil {
		return fmt.Errorf("share %s: %w", what, err)
	}
	b.shared = true
	return nil
}

// shareReceiveBuffer gives the host the buffer that it puts frames into.
func (s *session) shareReceiveBuffer(ctx context.Context) error {
	b := &s.buffers.rx
	if err := s.share(ctx, "receive buffer", b, bufferBytes(s.want.rxBytes, s.version.MaxReceiveBuffer())); err != nil {
		return err
	}
	m, err := s.ask(ctx, "answer to SEND_RECEIVE_BUFFER",
		nvsp.SendReceiveBuffer{GPADL: b.gpadl, ID: nvsp.ReceiveBufferID}.Append(nil), nvsp.TypeSendReceiveBufferComplete)
	if err != nil {
		return err
	}
	c, err := nvsp.ParseSendReceiveBufferComplete(m)
	if err != nil {
		return err
	}
	if c.Status != nvsp.StatusSuccess {
		return fmt.Errorf("receive buffer of %d bytes: refused by the host: %w", len(b.region.Bytes), c.Status)
	}
	b.granted = true
	section, err := c.Only(len(b.region.Bytes))
	if err != nil {
		return err
	}
	s.rxSectionSize, s.rxSections = int(section.Size), int(section.Count)
	s.receive.Store(&receiveBuffer{b.region.Bytes, s.rxSectionSize, s.rxSections, s.version, s.mtu})
	return nil
}

// shareSendBuffer gives the host the buffer that it takes frames from.
func (s *session) shareSendBuffer(ctx context.Context) error {
	b := &s.buffers.tx
	if err := s.share(ctx, "send buffer", b, bufferBytes(s.want.txBytes, nvsp.MaxSendBuffer)); err != nil {
		return err
	}
	m, err := s.ask(ctx, "answer to SEND_SEND_BUFFER",
		nvsp.SendSendBuffer{GPADL: b.gpadl, ID: nvsp.SendBufferID}.Append(nil), nvsp.TypeSendSendBufferComplete)
	if err != nil {
		return err
	}
	c, err := nvsp.ParseSendSendBufferComplete(m)
	if err != nil {
		return err
	}
	size := len(b.region.Bytes)
	if c.Status != nvsp.StatusSuccess {
		return fmt.Errorf("send buffer of %d bytes: refused by the host: %w", size, c.Status)
	}
	b.granted = true
	if c.SectionSize < nvsp.MinSection || int64(c.SectionSize) > int64(size) {
		return fmt.Errorf("send buffer of %d bytes: host's section size is %d: %w", size, c.SectionSize, nvsp.ErrMalformed)
	}
	s.txSectionSize = int(c.SectionSize)
	s.txSections = size / s.txSectionSize
	s.sections = newPool(b.region.Bytes, s.txSectionSize, s.txSections)
	return nil
}

// pageRuns is how many sends of frames that found no section can be under way.
const pageRuns = 64

// allocateRuns makes the pool of page runs, each for the longest message. The host
// learns of them packet by packet.
func (s *session) allocateRuns() error {
	s.runPages = (headroom + maxLarge + hv.PageSize - 1) / hv.PageSize
	r, err := s.dev.Alloc(pageRuns * s.runPages * hv.PageSize)
	if err != nil {
		return fmt.Errorf("allocate pages to send from: %w", err)
	}
	s.buffers.runs, s.runPFNs = r, pfns(r)
	s.runs = newPool(r.Bytes, s.runPages*hv.PageSize, pageRuns)
	return nil
}

// allocateControl makes the pages for control messages.
func (s *session) allocateControl() error {
	r, err := s.dev.Alloc(controlPages * hv.PageSize)
	if err != nil {
		return fmt.Errorf("allocate pages for control messages: %w", err)
	}
	s.buffers.control, s.pagePFNs = r, pfns(r)
	s.pages = newPool(r.Bytes, hv.PageSize, controlPages)
	return nil
}

// revoke tells the host to let go of a buffer. There is no answer.
func (s *session) revoke(ctx context.Context, b *shared) error {
	if !b.granted || s.broken() {
		return nil
	}
	b.granted = false
	if b == &s.buffers.rx {
		return s.tell(ctx, "REVOKE_RECEIVE_BUFFER", nvsp.RevokeReceiveBuffer{ID: nvsp.ReceiveBufferID}.Append(nil))
	}
	return s.tell(ctx, "REVOKE_SEND_BUFFER", nvsp.RevokeSendBuffer{ID: nvsp.SendBufferID}.Append(nil))
}

// unshare waits until the host has given a buffer up.
func (s *session) unshare(ctx context.Context, b *shared) error {
	if !b.shared {
		return nil
	}
	ctx, cancel := s.n.bound(ctx)
	defer cancel()
	if err := s.dev.Unshare(ctx, b.gpadl); err != nil {
		return fmt.Errorf("take a buffer back: %w", err)
	}
	b.shared = false
	return nil
}

// freeMemory frees everything but what the host may still use: buffers that it has
// not given up, and, unless the channels are closed, pages that packets name.
func (s *session) freeMemory(closed bool) error {
	var errs []error
	free := func(r *hv.Region) {
		if r.Bytes != nil {
			errs = append(errs, s.dev.Free(*r))
			*r = hv.Region{}
		}
	}
	for _, b := range []*shared{&s.buffers.rx, &s.buffers.tx} {
		if !b.shared {
			free(&b.region)
		}
	}
	if closed {
		free(&s.buffers.runs)
		free(&s.buffers.control)
	}
	return errors.Join(errs...)
}
