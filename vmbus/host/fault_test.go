package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hvnet/hv"
	"hvnet/vmbus"
)

// onFile is a guest whose message and event pages are in a file.
type onFile struct {
	hv.Guest
	synic *hv.HostSynIC
}

func (g onFile) PostMessage(vp int, payload []byte) error { return g.synic.Post(vp, payload) }

// A guest truncates its memory, and the host has something to say to it: that guest
// is sent away, and the process lives.
func TestMessagePageThatIsGone(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(3 * hv.PageSize); err != nil {
		t.Fatal(err)
	}
	const gpa = 1 << 30
	memory := hv.NewMemory(hv.Limits{})
	defer memory.Close()
	if err := memory.Add(gpa, int(file.Fd()), 0, 3*hv.PageSize); err != nil {
		t.Fatal(err)
	}
	synic := hv.NewHostSynIC(1, func(int) {})
	defer synic.Close()
	pages := hv.Pages{Signals: gpa, Message: []hv.GPA{gpa + hv.PageSize}, Event: []hv.GPA{gpa + 2*hv.PageSize}}
	if err := synic.MapPages(memory, pages); err != nil {
		t.Fatal(err)
	}
	p, g, err := hv.Pipe(1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	served := make(chan error, 1)
	go func() { served <- New(onFile{g, synic}, Config{}).Serve() }()

	if err := file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	contact := vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT}.Append(nil)
	if err := p.PostMessage(vmbus.ConnContact, contact); err != nil && !errors.Is(err, hv.ErrGone) {
		t.Fatal(err)
	}
	select {
	case err := <-served:
		if !errors.Is(err, hv.ErrFault) {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("waiting for the guest to be sent away")
	}
}
