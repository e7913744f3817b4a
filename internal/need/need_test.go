package need

import (
	"fmt"
	"runtime"
	"testing"
)

// recorder notes how a test ended instead of ending it.
type recorder struct {
	testing.TB
	end string
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(format string, args ...any) {
	r.end = "skip: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.end = "fatal: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestTool(t *testing.T) {
	for _, x := range []struct{ require, tool, want string }{
		{"", "go", ""},
		{"1", "go", ""},
		{"", "no-such-tool", "skip: this test needs the program no-such-tool"},
		{"1", "no-such-tool", "fatal: this test needs the program no-such-tool, and HVNET_REQUIRE_TOOLS=1 forbids to skip it"},
	} {
		t.Setenv("HVNET_REQUIRE_TOOLS", x.require)
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			Tool(r, x.tool)
		}()
		<-done
		if r.end != x.want {
			t.Errorf("%q with %q: %q, want %q", x.tool, x.require, r.end, x.want)
		}
	}
}

func TestLongAndFile(t *testing.T) {
	for _, x := range []struct{ long, require, want string }{
		{"", "", "skip: this test takes minutes: make long runs it"},
		{"1", "", ""},
		{"", "1", ""},
	} {
		t.Setenv("HVNET_LONG", x.long)
		t.Setenv("HVNET_REQUIRE_TOOLS", x.require)
		if end := endOf(t, func(r *recorder) { Long(r, "make long") }); end != x.want {
			t.Errorf("Long with %+v: %q", x, end)
		}
	}
	t.Setenv("HVNET_REQUIRE_TOOLS", "")
	if end := endOf(t, func(r *recorder) { File(r, "need.go", "nobody") }); end != "" {
		t.Errorf("a file that is there: %q", end)
	}
	if end := endOf(t, func(r *recorder) { File(r, "no-such-file", "make it") }); end != "skip: this test needs no-such-file, which make it makes" {
		t.Errorf("a file that is not: %q", end)
	}
}

// endOf returns how a test ends.
func endOf(t *testing.T, f func(*recorder)) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r.end
}
