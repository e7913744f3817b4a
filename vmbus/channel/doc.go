// Package channel is an open VMBus channel as everyone above the bus sees it: two
// rings, a doorbell, an event, and the interfaces by which a driver asks for
// channels ([Device]) and an emulated device is given them ([Backend]).
//
// Who made the channel doesn't show. In a guest of our own it is the control
// plane of vmbus/guest, in the host that of vmbus/host, below a Linux kernel that
// owns the bus it is the files of uio_hv_generic, and in a test it is [Pair].
package channel
