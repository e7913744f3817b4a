package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"hvnet/guest"
	"hvnet/link/tap"
	"hvnet/nic"
	"hvnet/sandbox"
)

// kernelStation is a guest with eth0 in a network namespace of its own. What it
// does it does by running this program inside, with stationCmd.
type kernelStation struct {
	box   *sandbox.Sandbox
	tap   *tap.TAP
	leave func(context.Context) error
}

// newKernelStation gives a guest a namespace and eth0 in it.
func newKernelStation(ctx context.Context, g *guest.Guest) (_ station, err error) {
	s := &kernelStation{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.box, err = sandbox.New(ctx, sandbox.Config{}); err != nil {
		return nil, err
	}
	s.tap, err = s.box.OpenTAP(ctx, tap.Config{
		Name: "eth0", Queues: g.NIC.Channels().Max, MAC: g.NIC.MAC(), MTU: g.NIC.MTU(), Offloads: tap.Offloads, Largest: g.NIC.LargeSend(),
	})
	if err != nil {
		return nil, err
	}
	s.leave, err = g.Join(ctx, s.tap, nil)
	return s, err
}

func (s *kernelStation) Configure(ctx context.Context, addrs []netip.Prefix) error {
	return s.box.Configure(ctx, sandbox.Interface{Name: "eth0", Up: true, Addrs: addrs})
}

// inside runs this program in the namespace and hands out what it prints.
func (s *kernelStation) inside(ctx context.Context, args ...string) (io.ReadCloser, <-chan error, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() {
		status, err := s.box.Run(ctx, sandbox.Command{Args: append([]string{self, "station"}, args...), Stdout: w})
		w.Close()
		if err == nil && status != 0 {
			err = fmt.Errorf("exit status %d", status)
		}
		ended <- err
	}()
	return r, ended, nil
}

// ask runs this program in the namespace and decodes the one value that it prints.
func (s *kernelStation) ask(ctx context.Context, answer any, args ...string) error {
	out, ended, err := s.inside(ctx, args...)
	if err != nil {
		return err
	}
	defer out.Close()
	if answer != nil {
		err = json.NewDecoder(out).Decode(answer)
	}
	return errors.Join(<-ended, err)
}

func (s *kernelStation) Ping(ctx context.Context, to netip.Addr, count int) ([]time.Duration, error) {
	var rtts []time.Duration
	err := s.ask(ctx, &rtts, "ping", to.String(), fmt.Sprint(count))
	return rtts, err
}

func (s *kernelStation) Receive(ctx context.Context, port uint16) (<-chan received, error) {
	out, ended, err := s.inside(ctx, "receive", fmt.Sprint(port))
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(out)
	var ready bool
	if err := dec.Decode(&ready); err != nil {
		return nil, errors.Join(err, <-ended)
	}
	got := make(chan received, 1)
	go func() {
		var r received
		r.err = dec.Decode(&r.bytes)
		r.err = errors.Join(<-ended, r.err)
		out.Close()
		got <- r
	}()
	return got, nil
}

func (s *kernelStation) Send(ctx context.Context, to netip.AddrPort, streams int, d time.Duration) error {
	return s.ask(ctx, nil, "send", to.String(), fmt.Sprint(streams), d.String())
}

func (s *kernelStation) Lost() []nic.Stat { return s.tap.Stats() }

func (s *kernelStation) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	if s.leave != nil {
		errs = append(errs, s.leave(ctx))
	}
	if s.tap != nil {
		errs = append(errs, s.tap.Close())
	}
	if s.box != nil {
		errs = append(errs, s.box.Close())
	}
	return errors.Join(errs...)
}
