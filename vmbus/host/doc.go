// Package host is the VMBus server that one guest meets: it answers the control
// messages, keeps offers, GPADLs and channels, and drives the emulated devices
// behind them ([channel.Backend]).
//
// It has two halves. The machine is a value without goroutines, clock or memory:
// an event goes in (a message of the guest, an order of the host, the end of an
// action), actions come out. It alone knows the protocol, and it believes the
// guest nothing. The [Server] around it owns one goroutine that feeds the machine
// and carries its actions out, and routes the guest's doorbells to channels.
//
// The protocol is that of Linux's hyperv.h and vmbus drivers, versions 2.4 to 5.3,
// and 6.0 without any of its features.
package host
