package rtnl

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Find returns the state of the first interface that match says yes to, now or when there
// is one. It fails with the error of ctx, or of the socket. While it waits it costs nothing.
// A socket serves one watch, or search, at a time.
func Find(ctx context.Context, ctl *os.File, match func(*State) bool) (found State, err error) {
	w := &watcher{ctl: ctl, question: all(), mine: func(s *State) bool { return s.Index != 0 && match(s) }, first: true}
	hit := errors.New("found")
	err = w.watch(ctx, func(s State) error {
		found = s
		return hit
	})
	switch {
	case err == hit:
		return found, nil
	case ctx.Err() != nil:
		return found, ctx.Err()
	}
	return found, err
}

// all returns the question for all interfaces.
func all() []byte {
	return NewRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, linkInfoLen)).bytes(0)
}
