package lab

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"hvnet/internal/need"
)

func TestProcess(t *testing.T) {
	need.Tool(t, "sh")
	p := start(t, "shell", nil, []string{"sh", "-c", `echo ready; echo told >&2; read x`})
	Await(t, p, "^ready")
	Await(t, p, "^told$")
	if status, err := p.End(t.Context()); status != 1 || err != nil { // of read: no input
		t.Errorf("status %d, %v, want 1", status, err)
	}
	if err := p.Await(t.Context(), "never"); err == nil || !strings.Contains(err.Error(), "ended without") {
		t.Errorf("after the end: %v", err)
	}

	p = start(t, "shell", nil, []string{"sh", "-c", `echo ready; sleep 60 & wait`})
	Await(t, p, "ready")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.End(ctx); err == nil {
		t.Error("it ended, which it does not do by itself")
	}
	p.Signal(syscall.SIGTERM)
	if status, err := p.End(t.Context()); status != 128+15 || err != nil {
		t.Errorf("status %d, %v, want 143", status, err)
	}
}

func TestParseStream(t *testing.T) {
	r, err := parseStream([]byte(`{
		"intervals":[{"sum":{"start":0,"end":1.5,"bytes":7}}],
		"end":{"sum_sent":{"retransmits":3,"seconds":2},"sum_received":{"bytes":9,"bits_per_second":2e9},
			"cpu_utilization_percent":{"host_total":30,"remote_total":20}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if r.Gbps != 2 || r.Bytes != 9 || r.Retransmits != 3 || len(r.Intervals) != 1 || r.Intervals[0].End.Seconds() != 1.5 || r.CPU != time.Second {
		t.Errorf("got %+v", r)
	}
	if _, err := parseStream([]byte(`{"error":"unable to connect"}`)); err == nil {
		t.Error("an error of iperf3 is lost")
	}
}

func TestNetns(t *testing.T) {
	need.Root(t)
	need.Tool(t, "ip")
	ns, err := NewNetns()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "sleep", nil, ns.In("sleep", "60"))
	if !strings.Contains(string(Run(t, "ip", "netns", "list")), ns.Name) {
		t.Error("it is not there")
	}
	if err := ns.Close(); err != nil {
		t.Error(err)
	}
	if status, err := p.End(t.Context()); status != 128+9 || err != nil {
		t.Errorf("program in a removed namespace: status %d, %v", status, err)
	}
	if strings.Contains(string(Run(t, "ip", "netns", "list")), ns.Name) {
		t.Error("it is still there")
	}
}
