package ethtool

import (
	"context"
	"errors"
	"io/fs"

	"hvnet/nic"
)

// errTexts are the C library's texts of the errors that a NIC or the way to it
// answers with. That the host has stopped is worth more than those, and comes first:
// a device that is lost for it is no such device either.
var errTexts = []struct {
	err  error
	text string
}{
	{nic.ErrTimeout, "Connection timed out (the host does not answer)"}, // ETIMEDOUT
	{nic.ErrInvalid, "Invalid argument"},                                // EINVAL
	{nic.ErrNotSupported, "Operation not supported"},                    // EOPNOTSUPP
	{nic.ErrNoDevice, "No such device"},                                 // ENODEV
	{nic.ErrBusy, "Device or resource busy"},                            // EBUSY
	{nic.ErrIO, "Input/output error"},                                   // EIO
	{fs.ErrPermission, "Operation not permitted"},                       // EPERM
	{fs.ErrNotExist, "No such file or directory"},                       // ENOENT
	{context.DeadlineExceeded, "Connection timed out"},                  // ETIMEDOUT
	{context.Canceled, "Interrupted system call"},                       // EINTR
}

// errText returns the text of an error as ethtool prints it after a colon: the C
// library's, or the error's own if it is none of those.
func errText(err error) string {
	for _, e := range errTexts {
		if errors.Is(err, e.err) {
			return e.text
		}
	}
	return err.Error()
}
