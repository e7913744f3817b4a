// Package abi answers the requests of Linux's SIOCETHTOOL system call: the structures
// that programs hand to the kernel, on an ethtool.Device in place of a kernel's driver.
//
// Sizes, checks and errors are those of Linux 6.1 (net/ethtool/ioctl.c) with hv_netvsc
// below it. The asking process is as hostile as any peer: of its memory each byte is read
// once, what was read is checked and used, and nothing is written but what the structure
// of the request has room for.
package abi

import (
	"context"
	"errors"
	"io/fs"

	"hvnet/ethtool"
	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// A Memory is that of the asking process, from the request's structure on; offsets are in
// bytes. An error means that there is no such memory, and the answer is EFAULT.
type Memory interface {
	Read(offset uint64, b []byte) error
	Write(offset uint64, b []byte) error
}

// An op is how one command is answered.
type op struct {
	size  int  // of the structure that is read, in bytes, command word included
	reply bool // the structure is written back, as run left it
	free  bool // needs no CAP_NET_ADMIN
	run   func(*request) (int, error)
}

// A request is one that is being answered.
type request struct {
	ctx context.Context
	d   ethtool.Device
	mem Memory
	b   []byte // the structure, command word included; run may make it longer
}

// Serve answers the request whose structure is at offset 0 of mem, and returns what the
// system call does: 0 or, for some commands, a positive number; or the negative errno.
// admin says whether the caller has CAP_NET_ADMIN over the network namespace; it is asked
// for commands that take it only. ctx bounds a setting.
func Serve(ctx context.Context, d ethtool.Device, mem Memory, admin func() bool) int {
	n, err := serve(ctx, d, mem, admin)
	if err != nil {
		return -errno(err)
	}
	return n
}

func serve(ctx context.Context, d ethtool.Device, mem Memory, admin func() bool) (int, error) {
	var word [4]byte
	if err := mem.Read(0, word[:]); err != nil {
		return 0, errFault
	}
	command := order.Uint32(word[:])
	o, known := ops[command]
	if !o.free && !free[command] && !admin() {
		return 0, fs.ErrPermission
	}
	if !known {
		return 0, nic.ErrNotSupported
	}
	r := &request{ctx: ctx, d: d, mem: mem, b: append(make([]byte, 0, o.size), word[:]...)}
	if err := r.more(o.size - len(word)); err != nil {
		return 0, err
	}
	n, err := o.run(r)
	if err != nil || !o.reply {
		return n, err
	}
	return n, r.write(0, r.b)
}

// more reads n more bytes behind those that the request has.
func (r *request) more(n int) error {
	b, err := r.read(uint64(len(r.b)), n)
	r.b = append(r.b, b...)
	return err
}

func (r *request) read(offset uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	if err := r.mem.Read(offset, b); err != nil {
		return nil, errFault
	}
	return b, nil
}

func (r *request) write(offset uint64, b []byte) error {
	if err := r.mem.Write(offset, b); err != nil {
		return errFault
	}
	return nil
}

var order = layout.Order

func (r *request) u32(at int) uint32      { return order.Uint32(r.b[at:]) }
func (r *request) u64(at int) uint64      { return order.Uint64(r.b[at:]) }
func (r *request) set32(at int, v uint32) { order.PutUint32(r.b[at:], v) }
func (r *request) set64(at int, v uint64) { order.PutUint64(r.b[at:], v) }
func (r *request) name(at int, s string)  { layout.PutText(r.b[at:at+layout.NameLen], s) }
func (r *request) zero(from, to int) bool { return allZero(r.b[from:to]) }
func (r *request) append32(v uint32)      { r.b = order.AppendUint32(r.b, v) }
func (r *request) appendName(s string) {
	r.b = append(r.b, make([]byte, layout.NameLen)...)
	r.name(len(r.b)-layout.NameLen, s)
}
func clamp32(n int) uint32 { return uint32(max(0, min(n, 1<<31-1))) }

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

var (
	errFault    = errors.New("bad address")
	errTooSmall = errors.New("buffer or request is too small")
)

// errnos are the numbers of errors on Linux, the same on all its architectures that Go
// knows but mips.
var errnos = []struct {
	err error
	n   int
}{
	{errFault, 14},                  // EFAULT
	{errTooSmall, 525},              // ETOOSMALL
	{fs.ErrPermission, 1},           // EPERM
	{nic.ErrTimeout, 110},           // ETIMEDOUT
	{nic.ErrInvalid, 22},            // EINVAL
	{nic.ErrNotSupported, 95},       // EOPNOTSUPP
	{nic.ErrNoDevice, 19},           // ENODEV
	{nic.ErrBusy, 16},               // EBUSY
	{context.DeadlineExceeded, 110}, // ETIMEDOUT
	{context.Canceled, 4},           // EINTR
}

// errno returns the number of an error, EIO's for one of no kind.
func errno(err error) int {
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.n
		}
	}
	return 5
}
