package linuxguest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hvnet/host"
	"hvnet/internal/linuxguest"
	"hvnet/netvsp/profile"
)

// TestDoctor has hvnet doctor examine the kernel's own driver.
func TestDoctor(t *testing.T) {
	linuxguest.Need(t, "6.1")
	hvnet := filepath.Join(t.TempDir(), "hvnet")
	build := exec.Command("go", "build", "-o", hvnet, "hvnet/cmd/hvnet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // the guest has no libraries
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build hvnet: %v\n%s", err, out)
	}
	r := newRig(t, linuxguest.Machine{Files: []string{hvnet + ":/bin/hvnet"}}, host.Config{Profile: lookup(t, profile.Default), AllowSpoofing: true})
	r.up(t)
	r.ping(t)
	report := r.Run(t, "hvnet doctor")
	for _, want := range []string{"machine: kernel 6.1.", ", 2 processors", "eth0: hv_netvsc 6.1.", ", VMBus 5.3, 2 of 2 channels, MTU 1500, ", "0 faults, 0 warnings, 0 advice, 0 notes"} {
		if !strings.Contains(report, want) {
			t.Errorf("of a guest in order the report has no %q:\n%s", want, report)
		}
	}
	for _, c := range []struct {
		ill    string
		status int
		said   string
	}{
		{"ip link set eth0 down && ip link set eth0 address 02:00:00:00:00:07 up", 4, "[address-changed]\n           ip link set eth0 address 00:15:5d:"},
		{"ping -q -c 1 -s 4000 -w 20 " + gateway, 4, "this machine has sent 3 fragments and received 3 [udp-hash]\n           ethtool -N eth0 rx-flow-hash udp4 sd"},
	} {
		r.Run(t, c.ill)
		report, status := r.Try(t, "hvnet doctor eth0")
		if status != c.status || !strings.Contains(report, c.said) {
			t.Errorf("%s: status %d, want %d and %q in\n%s", c.ill, status, c.status, c.said, report)
		}
	}
	r.content(t)
	r.Stop(t)
}
