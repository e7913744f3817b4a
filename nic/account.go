package nic

import "fmt"

// An Account says where the equal parts of a piece of memory are that driver and
// device pass to and fro: the sections of a buffer, runs of pages.
type Account struct {
	What     string // "send sections"
	Total    int    // how many there are
	Free     int    // nobody has them
	InFlight int    // the other side has them and owes them
}

// Held returns how many parts are neither free nor in flight: whoever moves frames is
// working with them. Where nobody is, they are lost.
func (a Account) Held() int { return a.Total - a.Free - a.InFlight }

// AtRest returns an error if a part is anywhere but free.
func (a Account) AtRest() error {
	if a.Free == a.Total && a.InFlight == 0 {
		return nil
	}
	return fmt.Errorf("%s: of %d, %d are free, %d in flight and %d held", a.What, a.Total, a.Free, a.InFlight, a.Held())
}
