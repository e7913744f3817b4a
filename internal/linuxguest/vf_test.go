package linuxguest_test

import (
	"context"
	"testing"

	"hvnet/host"
	"hvnet/internal/linuxguest"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// noDevice is the host's end of a virtual function that the guest never finds.
type noDevice struct{ t *testing.T }

func (d noDevice) WriteFrames([]nic.Frame) {
	d.t.Error("frames left by a function that the guest does not use")
}
func (noDevice) Start(nic.Sink)              {}
func (noDevice) Drain(context.Context) error { return nil }
func (noDevice) Close() error                { return nil }

// TestVF tells stock Linux of virtual functions that come and go, without a PCI device behind
// any: it asks for SR-IOV by itself, says in its log what it is told, and stays on the
// synthetic path. After its NIC was taken apart, for another MTU, it is told anew.
func TestVF(t *testing.T) {
	r := newRig(t, linuxguest.Machine{}, host.Config{Profile: lookup(t, profile.Default), SRIOV: true})
	r.up(t)
	r.ping(t)
	said := func(times, text string) {
		t.Helper()
		r.Poll(t, "[ $(dmesg | grep -c 'VF slot "+text+"') = "+times+" ]")
		r.ping(t)
	}
	if err := r.host.AddVF("linux", 3, noDevice{t}); err != nil {
		t.Fatal(err)
	}
	said("1", "3 added")
	r.Run(t, "ip link set eth0 mtu 1400")
	said("2", "3 added")
	if err := r.host.RemoveVF(t.Context(), "linux"); err != nil {
		t.Error(err)
	}
	said("1", "3 removed")
	if err := r.host.AddVF("linux", 4, noDevice{t}); err != nil {
		t.Fatal(err)
	}
	said("1", "4 added")
	if err := r.host.LoseVF("linux"); err != nil {
		t.Error(err)
	}
	said("1", "4 removed")
	info := r.port(t)
	if v := info.Guest.VF; !v.Guest || v.Present || v.Switches != 0 || v.Refused != 0 {
		t.Errorf("%+v", v)
	}
	r.content(t)
	r.Stop(t)
}
