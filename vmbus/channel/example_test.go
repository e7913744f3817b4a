package channel_test

import (
	"fmt"

	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A guest sends two packets in one batch; the host is woken once and reads both.
func Example() {
	guest, host, err := channel.Pair(64 << 10)
	if err != nil {
		fmt.Println(err)
		return
	}
	guest.Lock()
	for tid := range uint64(2) {
		guest.Out.Put(vmbus.AppendInBand(nil, 0, tid), []byte("hello"))
	}
	guest.Flush()
	guest.Unlock()

	<-host.Event()
	buf := make([]byte, 4096)
	for {
		b, err := host.In.Next(buf)
		if err != nil {
			break // ring.ErrEmpty
		}
		p, _ := vmbus.ParsePacket(b)
		fmt.Printf("%d %q\n", p.TID, p.Payload)
	}
	host.Release()
	// Output:
	// 0 "hello\x00\x00\x00"
	// 1 "hello\x00\x00\x00"
}
