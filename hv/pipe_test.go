package hv_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hvnet/hv"
	"hvnet/hv/internal/boundary"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openPipe(t *testing.T, vps int) (hv.Partition, hv.Guest) {
	p, g, err := hv.Pipe(vps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Close(), g.Close()); err != nil {
			t.Error(err)
		}
	})
	if p.VPs() != vps || g.VPs() != vps {
		t.Fatalf("%d and %d VPs, want %d", p.VPs(), g.VPs(), vps)
	}
	return p, g
}

func TestPipe(t *testing.T) { boundary.Test(t, openPipe) }

func TestPipeVPs(t *testing.T) {
	for _, n := range []int{-1, 0, hv.MaxVPs + 1} {
		if _, _, err := hv.Pipe(n); !errors.Is(err, hv.ErrRange) {
			t.Errorf("pipe of %d VPs: %v", n, err)
		}
	}
	openPipe(t, hv.MaxVPs)
}

func BenchmarkRoundTrip(b *testing.B) {
	p, g, err := hv.Pipe(1)
	if err != nil {
		b.Fatal(err)
	}
	boundary.BenchmarkRoundTrip(b, p, g)
}

// TestPostTimeout posts to a host that does not serve.
func TestPostTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := openPipe(t, 1)
		start := time.Now()
		if err := p.PostMessage(1, nil); !errors.Is(err, hv.StatusTimeout) || time.Since(start) != hv.PostTimeout {
			t.Errorf("post: %v after %v", err, time.Since(start))
		}
	})
}
