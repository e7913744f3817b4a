package attach

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/hv"
)

// FuzzRequest handles any record of an attached guest, with a good descriptor or
// none, and checks that memory and descriptors stay what they should be.
func FuzzRequest(f *testing.F) {
	for _, x := range golden {
		f.Add(unhex(x.want), true)
		f.Add(unhex(x.want), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, withFD bool) {
		head, err := parseHeader(b)
		if err != nil {
			return
		}
		g := &guest{memory: hv.NewMemory(hv.Limits{}), synic: hv.NewHostSynIC(1, func(int) {})}
		defer g.memory.Close()
		defer g.synic.Close()
		x := received{data: b}
		defer x.close()
		if withFD {
			fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			if err != nil {
				t.Fatal(err)
			}
			x.fds = []int{fd}
			unix.Ftruncate(fd, 0x10000)
			unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
		}
		h := new(accepting)
		status, err := g.request(h, head.typ, &x)
		if status == hv.StatusSuccess != (err == nil) && status != hv.StatusInvalidParameter {
			t.Errorf("status %v with error %v", status, err)
		}
		if status != hv.StatusSuccess {
			return
		}
		switch head.typ {
		case typePost, typePosts:
			if n := h.messages.Load(); n < 1 || n > 1 && head.typ == typePost || withFD {
				t.Error("a post went astray")
			}
		case typeAdd:
			r, err := parseAdd(b)
			if err != nil || !withFD || r.offset+r.size > 0x10000 {
				t.Fatalf("accepted %+v, %v", r, err)
			}
			g.memory.RLock()
			defer g.memory.RUnlock()
			p, err := g.memory.Bytes(r.gpa, int(r.size))
			if err != nil {
				t.Fatal(err)
			}
			p[0], p[r.size-1] = 1, 1
			if _, err := g.memory.Bytes(r.gpa, int(r.size)+1); !errors.Is(err, hv.ErrBounds) {
				t.Errorf("a byte too many: %v", err)
			}
		default:
			t.Errorf("type %d succeeded", head.typ)
		}
	})
}
