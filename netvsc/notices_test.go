package netvsc

import (
	"fmt"
	"testing"

	"hvnet/counter"
	"hvnet/nvsp"
	"hvnet/vmbus"
)

// Whatever a host says against a version but success means "try the next".
func TestTrapInitStatus(t *testing.T) {
	for _, status := range []nvsp.Status{nvsp.StatusNone, nvsp.StatusFail, nvsp.StatusTooNew, nvsp.StatusTooOld,
		nvsp.StatusBusy, nvsp.StatusVersionUnsupported, 99} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			h := newFakeHost()
			refused := 0
			h.onNVSP = func(q *fakeQueue, typ nvsp.MessageType, m []byte, tid uint64) bool {
				if typ != nvsp.TypeInit || refused == 2 {
					return false
				}
				refused++
				q.complete(tid, nvsp.InitComplete{MaxMDL: 34, Status: status}.Append(nil))
				return true
			}
			n := open(t, h, Config{Queues: 1})
			if got := n.Info().NVSP; got != "5" {
				t.Errorf("NVSP %s after 6.1 and 6 were refused", got)
			}
		})
	}
}

// Linux never answers the host's notices, even when their packet asks for it, and no
// host waits for it. Neither do we: the host would take it for the end of a receive.
func TestTrapNoticesAreNotAnswered(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	r := up(t, n)
	for tid, m := range map[uint64][]byte{
		1 << 63:   nvsp.VFAssociation{Allocated: true, Serial: 1}.Append(nil),
		1<<63 | 1: nvsp.SwitchDataPath{Path: nvsp.PathSynthetic}.Append(nil),
	} {
		if err := h.queue(0).send(vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, tid), m); err != nil {
			t.Fatal(err)
		}
	}
	alive(t, h, n, r) // and the host has seen nothing that it does not know
	if got := n.count.Load(counter.HostBadMessage); got != 0 {
		t.Errorf("host_bad_message is %d", got)
	}
}
