package control

import (
	"context"
	"errors"
	"io/fs"

	"hvnet/nic"
)

// kinds are the errors that keep their identity over the socket, by the names that
// they have there.
var kinds = []struct {
	name string
	err  error
}{
	{"invalid", nic.ErrInvalid},
	{"not-supported", nic.ErrNotSupported},
	{"no-device", nic.ErrNoDevice},
	{"busy", nic.ErrBusy},
	{"timeout", nic.ErrTimeout},
	{"io", nic.ErrIO},
	{"permission", fs.ErrPermission},
	{"not-found", fs.ErrNotExist},
	{"canceled", context.Canceled},
	{"deadline", context.DeadlineExceeded},
	{"unknown-method", ErrUnknownMethod},
	{"malformed", ErrMalformed},
}

// A wireError is an error on the socket.
type wireError struct {
	Text  string   `json:"text"`
	Kinds []string `json:"kinds,omitempty"`
}

func toWire(err error) *wireError {
	w := &wireError{Text: err.Error()}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			w.Kinds = append(w.Kinds, k.name)
		}
	}
	return w
}

// remoteError is an error of the other side.
type remoteError struct {
	text string
	is   []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.is }

func (w *wireError) err() error {
	e := &remoteError{text: w.Text}
	for _, name := range w.Kinds {
		for _, k := range kinds {
			if k.name == name {
				e.is = append(e.is, k.err)
			}
		}
	}
	return e
}
