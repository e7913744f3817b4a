// Package guest is the guest's side of the VMBus control plane: it finds the host's
// offers, shares memory, opens channels, and notices when the host takes something
// away.
//
// It has two halves. The machine is a value without goroutines, clock or memory:
// an event goes in (a message of the host, a wish of a driver), actions come out.
// It alone knows the protocol, matches each answer to somebody who waits for it
// and believes the host nothing. The [Bus] around it owns one goroutine per
// virtual processor, which takes event flags to channels and messages to the
// machine, and lends the drivers' own goroutines for posting and waiting.
//
// The protocol is that of Linux's hyperv.h and vmbus drivers, versions 2.4 to 5.3,
// and 6.0 without any of its features.
package guest
