package hv

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
)

// ErrFault is returned by [Guard] for an access to memory that is not there.
var ErrFault = errors.New("hv: guest memory is not there")

// Guard calls f and turns a memory fault in it into an error that is ErrFault.
//
// A memfd that can't shrink never faults. Other files, which a host takes only
// from guests that it was told to trust, can be truncated under our feet, and the
// kernel answers the next access with SIGBUS. Every goroutine that touches guest
// memory therefore runs inside Guard, once for its whole life since that costs
// nothing per access, and closes the guest when it returns ErrFault. Locks must
// be released by defer to survive. Other panics pass through.
func Guard(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		// Only a fault at a known address has this method; a nil pointer or an
		// index out of range does not, and is a bug.
		fault, ok := r.(interface {
			runtime.Error
			Addr() uintptr
		})
		if !ok {
			panic(r)
		}
		err = fmt.Errorf("%w: fault at %#x", ErrFault, fault.Addr())
	}()
	f()
	return nil
}
