// Package boundary tests that a partition boundary is what package hv says,
// whatever carries it.
package boundary

import (
	"testing"
	"time"

	"hvnet/hv"
)

// An Opener makes a boundary for a guest of a number of VPs and ends it with the test.
type Opener func(t *testing.T, vps int) (hv.Partition, hv.Guest)

// Patience is how long a test waits for what must happen.
const Patience = 20 * time.Second

// Test runs all tests on boundaries made by open.
func Test(t *testing.T, open Opener) {
	t.Run("memory", func(t *testing.T) { testMemory(t, open) })
	t.Run("memory comes and goes in use", func(t *testing.T) { testMemoryInUse(t, open) })
	TestFixed(t, open)
}

// TestFixed runs those tests that don't need memory to come and go: a guest that is a
// machine has what it has.
func TestFixed(t *testing.T, open Opener) {
	for _, x := range []struct {
		name string
		run  func(*testing.T, Opener)
	}{
		{"guest posts", testGuestPosts},
		{"host posts", testHostPosts},
		{"host posts more than the guest takes", testBackPressure},
		{"events of the host", testHostEvents},
		{"events of the guest", testGuestEvents},
		{"every event is seen", testEventStress},
		{"bad numbers", testRange},
		{"guest leaves", testGuestLeaves},
		{"host leaves", testHostLeaves},
		{"guest deserts", testGuestDeserts},
		{"hot paths do not allocate", testAllocations},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(t, open) })
	}
}

// Funcs is a handler of two functions, of which either may be nil.
type Funcs struct {
	OnMessage func(conn uint32, m *hv.Message) hv.Status // for each, and the last status counts
	OnSignal  func(conn uint32)
}

// Messages calls OnMessage.
func (f Funcs) Messages(conn uint32, m []hv.Message) (s hv.Status) {
	if f.OnMessage == nil {
		return hv.StatusInvalidConnectionID
	}
	for i := range m {
		s = f.OnMessage(conn, &m[i])
	}
	return s
}

// Signal calls OnSignal.
func (f Funcs) Signal(conn uint32) {
	if f.OnSignal != nil {
		f.OnSignal(conn)
	}
}

// Serve serves a guest until the test ends.
func Serve(t *testing.T, g hv.Guest, h hv.Handler) {
	served := make(chan struct{})
	go func() {
		defer close(served)
		g.Serve(h)
	}()
	t.Cleanup(func() {
		g.Close()
		Await(t, served, "Serve to return")
	})
}

// Await waits for a channel and fails the test in the end.
func Await[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(Patience):
		t.Fatalf("waited %v for %s", Patience, what)
	}
	return v
}
