package offload

import (
	"sync"
	"sync/atomic"

	"hvnet/nic"
)

// A Sink takes frames with any metadata and passes them on to another sink that
// takes fewer: what that does not take is completed and cut on the way. Frames that
// need nothing pass as they are, in their batch. It may be used from any goroutine.
type Sink struct {
	out   nic.Sink
	takes nic.Offloads

	// Malformed counts frames that could not be cut or completed, because they
	// are not what their metadata say, and were dropped.
	Malformed *atomic.Uint64

	pool sync.Pool // of *work
}

// NewSink returns a sink in front of out, for what that takes: what it says as a
// [nic.Taker], else nothing.
func NewSink(out nic.Sink) *Sink {
	var takes nic.Offloads
	if t, ok := out.(nic.Taker); ok {
		takes = t.Takes()
	}
	return NewSinkFor(out, takes)
}

// NewSinkFor is NewSink for a sink that is to get no more than takes.
func NewSinkFor(out nic.Sink, takes nic.Offloads) *Sink {
	s := &Sink{out: out, takes: takes, Malformed: new(atomic.Uint64)}
	s.pool.New = func() any { return new(work) }
	return s
}

const (
	// workFrames is how many frames go on in one batch.
	workFrames = 64
	// workHead is how far into a frame a checksum field may be: behind the headers
	// of a tunnel too.
	workHead = 2 * nic.HeadLen
)

// work is the working memory of one WriteFrames.
type work struct {
	frames [workFrames]nic.Frame
	heads  [workFrames][workHead]byte
	body   [][]byte
	n      int
	cut    Segmenter
}

// WriteFrames passes frames on.
func (s *Sink) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		if frames[i].Offload.Needs()&^s.takes != 0 {
			s.convert(frames, i)
			return
		}
	}
	s.out.WriteFrames(frames)
}

// convert passes a batch on of which frames[first] is the first that has to change.
func (s *Sink) convert(frames []nic.Frame, first int) {
	if first > 0 {
		s.out.WriteFrames(frames[:first])
	}
	w := s.pool.Get().(*work)
	for i := first; i < len(frames); i++ {
		f := &frames[i]
		switch needs := f.Offload.Needs(); {
		case needs&^s.takes == 0:
			*s.next(w) = *f
		case f.Offload.Segment == nic.SegmentNone:
			s.complete(w, f)
		case w.cut.Begin(f, int(f.Offload.Size), s.takes&nic.TakesChecksum != 0):
			for w.cut.More() {
				out := s.next(w)
				w.body = w.cut.Next(out, w.heads[w.n-1][:nic.HeadLen], w.body)
			}
		default:
			s.Malformed.Add(1)
		}
	}
	s.flush(w)
	w.cut = Segmenter{} // the pool must not keep anyone's memory alive
	s.pool.Put(w)
}

// complete passes a frame on with its checksum. The head is copied, for others may
// get the same frame as it was.
func (s *Sink) complete(w *work, f *nic.Frame) {
	out := s.next(w)
	*out = *f
	head := w.heads[w.n-1][:]
	n := copy(head, f.Head)
	out.Head = head[:n:n]
	if n < len(f.Head) {
		k := len(w.body)
		w.body = append(append(w.body, f.Head[n:]), f.Body...)
		out.Body = w.body[k:len(w.body):len(w.body)]
	}
	if !Complete(out) {
		s.Malformed.Add(1)
		*out = nic.Frame{}
		w.n--
	}
}

// next returns where the next frame goes.
func (s *Sink) next(w *work) *nic.Frame {
	if w.n == workFrames {
		s.flush(w)
	}
	w.n++
	return &w.frames[w.n-1]
}

func (s *Sink) flush(w *work) {
	if w.n > 0 {
		s.out.WriteFrames(w.frames[:w.n])
	}
	clear(w.frames[:w.n])
	clear(w.body)
	w.n, w.body = 0, w.body[:0]
}
