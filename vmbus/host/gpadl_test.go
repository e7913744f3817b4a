package host

import (
	"fmt"
	"testing"

	"hvnet/vmbus"
)

func TestGPADLOfManyMessages(t *testing.T) {
	b := newBench(t)
	b.in("closed")
	b.gpadl(1, 11, 4096) // 16 MiB
	b.want("share dev 1 gpadl 11 pages 4096", "vp1 GPADL_CREATED relid 1 gpadl 11 status 0")
	if b.m.pages != 4097+5 || b.m.partial != 0 {
		t.Errorf("%d words, %d incomplete", b.m.pages, b.m.partial)
	}
	b.post(vmbus.GPADLBody{ID: 11, Data: words(firstPage)}.Append(nil))
	b.want("drop GPADL_BODY: no GPADL waits for it")
	b.post(vmbus.GPADLTeardown{Relid: 1, ID: 11}.Append(nil))
	b.want("revoke dev 1 gpadl 11")
	b.post(vmbus.GPADLTeardown{Relid: 1, ID: 11}.Append(nil))
	b.want("drop GPADL_TEARDOWN: the GPADL is not complete, or is being torn down")
	b.m.revoked(11)
	b.want("vp1 GPADL_TORNDOWN gpadl 11")
	b.m.revoked(11)
	b.want()
	if b.m.pages != 5 {
		t.Errorf("%d words left", b.m.pages)
	}
}

func TestGPADLsMayInterleave(t *testing.T) {
	b := newBench(t)
	b.in("closed")
	pfn := func(i int) uint64 { return uint64(firstPage + i) }
	one, _ := vmbus.AppendGPADL(nil, 1, 11, 80, pfn)
	two, _ := vmbus.AppendGPADL(nil, 1, 12, 80, pfn)
	for i := range one {
		b.post(one[i])
		b.post(two[i])
	}
	b.want("share dev 1 gpadl 11 pages 80", "vp1 GPADL_CREATED relid 1 gpadl 11 status 0",
		"share dev 1 gpadl 12 pages 80", "vp1 GPADL_CREATED relid 1 gpadl 12 status 0")
}

func TestBadGPADL(t *testing.T) {
	header := func(ranges, length uint16, ws ...uint64) []byte {
		return vmbus.GPADLHeader{Relid: 1, ID: 11, Ranges: ranges, RangeLen: length, Data: words(ws...)}.Append(nil)
	}
	const offset = 1 << 32
	for name, message := range map[string][]byte{
		"no ranges":            header(0, 16, 0x1000, firstPage),
		"length 0":             header(1, 0),
		"odd length":           header(1, 15, 0x1000, firstPage),
		"too many ranges":      header(2, 16, 0x1000, firstPage),
		"65535 ranges":         header(65535, 65528, 0x1000, firstPage),
		"no bytes":             header(1, 16, 0, firstPage),
		"no bytes, offset":     header(1, 16, 8*offset, firstPage),
		"offset of a page":     header(1, 16, 0x1000*offset+8, firstPage),
		"more bytes than list": header(1, 16, 0x2000, firstPage),
		"4 GiB":                header(1, 16, 0xffffffff, firstPage),
		"more list than bytes": header(1, 24, 0x1000, firstPage, firstPage),
		"page below memory":    header(1, 16, 0x1000, firstPage-1),
		"page above memory":    header(1, 24, 0x2000, lastPage, lastPage+1),
		"page that overflows":  header(1, 16, 0x1000, 1<<63),
		"duplicate": vmbus.GPADLHeader{Relid: 1, ID: 10, Ranges: 1, RangeLen: 16,
			Data: words(0x1000, firstPage)}.Append(nil),
		"id 0": vmbus.GPADLHeader{Relid: 1, Ranges: 1, RangeLen: 16, Data: words(0x1000, firstPage)}.Append(nil),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.in("closed")
			pages := b.m.pages
			b.post(message)
			h, _ := vmbus.ParseGPADLHeader(message)
			actions := b.got()
			if want := fmt.Sprintf("vp1 GPADL_CREATED relid 1 gpadl %d status 8000ffff", h.ID); len(actions) != 2 || actions[1] != want {
				t.Errorf("got %q, want %q", actions, want)
			}
			if b.m.pages != pages || b.m.partial != 0 || len(b.m.gpadls) != 1 {
				t.Error("something is left")
			}
		})
	}
}

func TestGPADLQuotas(t *testing.T) {
	t.Run("incomplete", func(t *testing.T) {
		b := newBench(t)
		b.in("closed")
		for id := uint32(100); id < 100+maxPartial; id++ {
			b.post(vmbus.GPADLHeader{Relid: 1, ID: id, Ranges: 1, RangeLen: 800, Data: words(0x1000)}.Append(nil))
		}
		b.want()
		b.post(gpadlMessage(1, 99))
		b.want("drop GPADL_HEADER: the guest has too many GPADLs", "vp1 GPADL_CREATED relid 1 gpadl 99 status 8000ffff")
	})
	t.Run("pages", func(t *testing.T) {
		b := newBench(t)
		b.in("closed")
		n := uint32(0)
		for ; b.m.pages+8001 <= maxPages; n++ {
			b.gpadl(1, 100+n, 8000)
		}
		if n != 40 {
			t.Errorf("%d GPADLs of 8000 pages", n)
		}
		b.skip()
		b.post(vmbus.GPADLHeader{Relid: 1, ID: 99, Ranges: 1, RangeLen: 65528, Data: words(0x1000)}.Append(nil))
		b.want("drop GPADL_HEADER: the guest has too many GPADLs", "vp1 GPADL_CREATED relid 1 gpadl 99 status 8000ffff")
	})
	t.Run("number", func(t *testing.T) {
		b := newBench(t)
		b.in("closed")
		for id := uint32(100); len(b.m.gpadls) < maxGPADLs; id++ {
			b.post(gpadlMessage(1, id))
		}
		b.skip()
		b.post(gpadlMessage(1, 99))
		b.want("drop GPADL_HEADER: the guest has too many GPADLs", "vp1 GPADL_CREATED relid 1 gpadl 99 status 8000ffff")
	})
}

// Firmware posts whole messages always; what is behind the list is no part of it.
func TestPaddedGPADL(t *testing.T) {
	b := newBench(t)
	b.in("closed")
	msgs, _ := vmbus.AppendGPADL(nil, 1, 11, 30, func(i int) uint64 { return firstPage })
	for _, m := range msgs {
		b.post(append(m, make([]byte, vmbus.MaxMessage-len(m))...))
	}
	b.want("share dev 1 gpadl 11 pages 30", "vp1 GPADL_CREATED relid 1 gpadl 11 status 0")
}
