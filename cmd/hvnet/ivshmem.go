package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"hvnet/host"
	"hvnet/hv"
	"hvnet/hv/ivshmem"
)

// ivshmemFlags say on which sockets kernels in QEMU attach.
type ivshmemFlags struct {
	Ivshmem []string `sep:"none" placeholder:"SOCK[,ram=FILE,vps=N,name=PORT]" help:"Also make a socket for the ivshmem device of a QEMU whose memory is FILE, with N processors; without ram and vps they are $LGV_RAM and $LGV_VPS. PORT is the name of its port. May be given several times."`
}

// A vmPlan is one socket for QEMU.
type vmPlan struct {
	path string
	cfg  ivshmem.Config
	want host.PortConfig
}

// vms checks the flags.
func (f *ivshmemFlags) vms(log *slog.Logger) (plans []vmPlan, err error) {
	for _, s := range f.Ivshmem {
		p, err := parseVM(s, os.Getenv)
		if err != nil {
			return nil, usagef("--ivshmem %s: %w", s, err)
		}
		p.cfg.Log = log
		plans = append(plans, p)
	}
	return plans, nil
}

// parseVM reads SOCK[,ram=FILE,vps=N,name=PORT].
func parseVM(s string, getenv func(string) string) (p vmPlan, err error) {
	path, options, more := strings.Cut(s, ",")
	p.path = path
	p.cfg.RAM = getenv("LGV_RAM")
	vps := getenv("LGV_VPS")
	for o := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case !more:
		case value == "":
			return p, errors.New("want SOCK, or SOCK with ram=FILE, vps=N, name=PORT behind it")
		case key == "ram":
			p.cfg.RAM = value
		case key == "vps":
			vps = value
		case key == "name":
			p.want.Name = value
		default:
			return p, errors.New("there is no option " + strconv.Quote(key) + ": want ram, vps or name")
		}
	}
	if p.path == "" {
		return p, errors.New("want the path of the socket to make")
	}
	if p.cfg.RAM == "" {
		return p, errors.New("ram=FILE is missing, and $LGV_RAM is not set")
	}
	if p.cfg.VPs, err = strconv.Atoi(vps); err != nil || p.cfg.VPs < 1 || p.cfg.VPs > hv.MaxVPs {
		return p, errors.New("vps=N, or $LGV_VPS, is not 1 to " + strconv.Itoa(hv.MaxVPs))
	}
	return p, nil
}

// listen makes the sockets and serves who comes to them. close ends that, but not the
// guests.
func listenVMs(ctx context.Context, h *host.Host, plans []vmPlan) (close func(), err error) {
	var listeners []*ivshmem.Listener
	close = func() {
		for _, l := range listeners {
			l.Close()
		}
	}
	for _, p := range plans {
		l, err := ivshmem.Listen(p.path, p.cfg)
		if err != nil {
			close()
			return nil, err
		}
		listeners = append(listeners, l)
		go h.AcceptVM(ctx, l, p.want)
	}
	return close, nil
}
