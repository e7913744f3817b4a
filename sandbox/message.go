package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"hvnet/link/function"
	"hvnet/link/tap"
)

// maxMessage is the largest message in bytes; the socket's default buffer holds
// more than one. maxFiles is the most descriptors that one may carry
// (SCM_MAX_FD of Linux).
const (
	maxMessage = 64 << 10
	maxFiles   = 253
)

// A message is one packet on the socket between the sandbox's owner and its
// helper, as JSON. A request has one of the pointers set; its answer has the same
// ID and comes once the request is done, for a command at its end. The helper's
// first message has ID 0 and Hello.
type message struct {
	ID uint64

	TAP       *tap.Config      `json:",omitempty"` // answered with descriptors
	Functions bool             `json:",omitempty"` // answered with descriptors
	Function  *function.Config `json:",omitempty"` // answered with descriptors
	Socket    *socketRequest   `json:",omitempty"` // answered with a descriptor
	Interface *Interface       `json:",omitempty"`
	Resolver  []netip.Addr     `json:",omitempty"`
	Exec      *execRequest     `json:",omitempty"` // comes with stdin, stdout, stderr
	Signal    *signalRequest   `json:",omitempty"`

	Hello hello      `json:",omitzero"`
	Exit  int        `json:",omitempty"` // of the command
	Error *wireError `json:",omitempty"`
}

// hello is what the helper says of itself when it is ready.
type hello struct {
	NetNS uint64 // inode number of the network namespace
}

// execRequest starts a command.
type execRequest struct {
	Args []string
	Env  []string // over the helper's own
	Dir  string
}

// signalRequest sends a signal to the command that the message ID started. It is
// not answered.
type signalRequest struct {
	Command uint64
	Signal  syscall.Signal
}

// A wireError is an error on its way from the helper: its text, and what it is.
type wireError struct {
	Text  string
	Kinds []int         // indices of kinds
	Errno syscall.Errno // or 0
}

// kinds are the errors that keep their identity on the socket. Both ends are the
// same program.
var kinds = [...]error{tap.ErrNoTun, tap.ErrPermission, tap.ErrExists, function.ErrPermission, function.ErrExists, ErrNoInterface, os.ErrNotExist}

// A textError has a text of its own and is also other errors: a wireError at its
// receiver is one.
type textError struct {
	text  string
	kinds []error
}

func (e *textError) Error() string   { return e.text }
func (e *textError) Unwrap() []error { return e.kinds }

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Text: err.Error()}
	for i, k := range kinds {
		if errors.Is(err, k) {
			w.Kinds = append(w.Kinds, i)
		}
	}
	errors.As(err, &w.Errno)
	return w
}

// err returns the error that the message reports, nil if none.
func (m *message) err() error {
	if m.Error == nil {
		return nil
	}
	e := &textError{text: m.Error.Text}
	for _, i := range m.Error.Kinds {
		if i >= 0 && i < len(kinds) {
			e.kinds = append(e.kinds, kinds[i])
		}
	}
	if m.Error.Errno != 0 {
		e.kinds = append(e.kinds, m.Error.Errno)
	}
	return e
}

// A conn carries messages. One goroutine may receive; any may send.
type conn struct {
	*net.UnixConn
	sending sync.Mutex
}

func (c *conn) send(m message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(b) > maxMessage || len(files) > maxFiles {
		return fmt.Errorf("message of %d bytes and %d descriptors is too big: at most %d and %d", len(b), len(files), maxMessage, maxFiles)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			// Not f.Fd(), which would make the descriptor blocking for
			// whoever else uses it.
			rc, err := f.SyscallConn()
			if err != nil {
				return err
			}
			if err := rc.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
				return err
			}
		}
		oob = unix.UnixRights(fds...)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if _, _, err := c.WriteMsgUnix(b, oob, nil); err != nil {
		if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			return ErrClosed
		}
		return fmt.Errorf("send to the other end of the sandbox: %w", err)
	}
	return nil
}

// receive returns the next message; io.EOF when the other end is closed.
func (c *conn) receive() (message, []*os.File, error) {
	var m message
	buf := make([]byte, maxMessage+1)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return m, nil, err
	}
	files, err := parseRights(oob[:oobn])
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil {
		err = json.Unmarshal(buf[:n], &m)
	}
	if err != nil {
		closeFiles(files)
		return m, nil, err
	}
	return m, files, nil
}

// parseRights returns the descriptors of a control message.
func parseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range cmsgs {
		fds, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
