package netvsp

// scatter is the RNDIS bytes of one ring packet where the guest has them: the used
// part of a send section, then the page ranges. All of it is shared memory.
type scatter struct {
	pieces [][]byte
	total  int
	first  int // how many bytes the first page range has, if they come first
}

func (s *scatter) reset() { s.pieces, s.total, s.first = s.pieces[:0], 0, 0 }

func (s *scatter) add(b []byte) {
	s.pieces = append(s.pieces, b)
	s.total += len(b)
}

// run returns the bytes from pos on that lie in one piece.
func (s *scatter) run(pos int) []byte {
	for _, p := range s.pieces {
		if pos < len(p) {
			return p[pos:]
		}
		pos -= len(p)
	}
	return nil
}

// head copies bytes from pos on to dst, as many as lie in one piece, or else in the
// first page range, whose pages need not follow each other.
func (s *scatter) head(dst []byte, pos int) (n int) {
	n = copy(dst, s.run(pos))
	if k := min(len(dst), s.first-pos); n < k {
		s.copy(dst[n:k], pos+n)
		n = k
	}
	return n
}

// copy copies the bytes from pos on to dst. They are all there.
func (s *scatter) copy(dst []byte, pos int) {
	for _, p := range s.pieces {
		if pos >= len(p) {
			pos -= len(p)
			continue
		}
		n := copy(dst, p[pos:])
		if dst = dst[n:]; len(dst) == 0 {
			return
		}
		pos = 0
	}
}

// slice appends the n bytes from pos on to dst, in place. They are all there.
func (s *scatter) slice(dst [][]byte, pos, n int) [][]byte {
	for _, p := range s.pieces {
		if pos >= len(p) {
			pos -= len(p)
			continue
		}
		if p = p[pos:]; len(p) >= n {
			return append(dst, p[:n:n])
		}
		dst = append(dst, p)
		n -= len(p)
		pos = 0
	}
	return dst
}
