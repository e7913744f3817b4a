// Package attach carries a partition boundary from one process to another over a
// Unix socket: the guest calls [Dial] and holds an hv.Partition, the host calls
// [Listen] and [Listener.Accept] and holds an hv.Guest.
//
// The guest hands over its memory as descriptors, and the addresses of its SynIC
// pages in it. The host hands back doorbells. Messages of the guest and changes of
// its memory are records on the socket, each answered by a record; all else
// happens in the shared memory and by doorbells. docs/attach.md describes every
// byte of it, so that a guest can be written in any language.
//
// The host trusts nothing that a guest sends, and a guest can't make it wait: it
// has a goroutine of its own for each guest, doorbells are rung without waiting,
// and who does not read its replies is detached. Who may attach is the kernel's
// business: the socket has mode 0600 from its birth, and only root and the host's
// own user pass.
package attach

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode"
	"unicode/utf8"

	"hvnet/hv"
	"hvnet/hv/internal/socket"
)

// Version is the version of the attach protocol that this package speaks.
const Version = 1

// helloTimeout is how long either side waits for the other to say its part of the
// hello.
const helloTimeout = 5 * time.Second

// ErrInUse is returned by [Listen] if a live host listens on the path.
var ErrInUse = socket.ErrInUse

// ErrNoHost is returned by [Dial] if there is a socket on which nobody listens: what
// a host leaves that was killed.
var ErrNoHost = errors.New("nobody listens there any more")

// ErrRefused is returned by [Dial] if the host does not want the guest; the error
// has the host's reason.
var ErrRefused = errors.New("the host refused")

// ErrProtocol is returned by Serve for a guest that broke the attach protocol in a
// way that can't be answered.
var ErrProtocol = errors.New("attach protocol broken")

// Hello is what a guest says of itself when it attaches.
type Hello struct {
	// Name is for people and for the host's bookkeeping: at most 64 bytes of
	// printable UTF-8, may be empty.
	Name string
	// VPs is the number of virtual processors, 1 to hv.MaxVPs.
	VPs int
	// Options go to the host as they are: at most 8 KiB in all.
	Options map[string]string
}

// Bounds of a Hello.
const (
	maxName    = 64
	maxOptions = 8192
	maxRegions = 16 // in the hello; more come one by one
)

// Check returns an error for what a guest can't say of itself: [Dial] fails with it.
func (h Hello) Check() error {
	if h.VPs < 1 || h.VPs > hv.MaxVPs {
		return fmt.Errorf("%d virtual processors, not 1 to %d", h.VPs, hv.MaxVPs)
	}
	if len(h.Name) > maxName || !utf8.ValidString(h.Name) {
		return fmt.Errorf("the name is not UTF-8 of at most %d bytes", maxName)
	}
	for _, r := range h.Name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("the name has an unprintable character %U", r)
		}
	}
	n := 0
	for k, v := range h.Options {
		if k == "" {
			return errors.New("an option without a name")
		}
		n += optionHeader + len(k) + len(v)
	}
	if n > maxOptions {
		return fmt.Errorf("%d bytes of options, more than %d", n, maxOptions)
	}
	return nil
}

// ListenConfig says how a host takes guests. The zero value is a good one.
type ListenConfig struct {
	// TrustMemory accepts any regular file as guest memory, where only a memfd
	// that is sealed against shrinking can be relied on never to fault. With
	// it every goroutine that touches guest memory must run inside hv.Guard.
	TrustMemory bool
	// Limits bound what one guest can make the host hold.
	Limits hv.Limits
	// Admit, if not nil, is asked last before a guest is let in. Its error
	// refuses the guest, who is told the text. It may be called from several
	// goroutines, and should only look: a guest that was let in may be gone
	// before Accept returns it.
	Admit func(Hello) error
	// HelloTimeout is how long a guest that has connected may say nothing;
	// 0 means 5 seconds. It is 250 ms at most once others wait for its
	// place, of which there are 16.
	HelloTimeout time.Duration
	// Log, if not nil, is told of guests that were refused.
	Log *slog.Logger
}
