package main

import (
	"strings"
	"testing"
)

func TestParseVM(t *testing.T) {
	env := map[string]string{"LGV_RAM": "/ram", "LGV_VPS": "2"}
	for _, x := range []struct {
		flag string
		env  map[string]string
		want string // path ram vps name, or what the error says
	}{
		{"s", env, "s /ram 2 "},
		{"s,ram=r,vps=4,name=linux", nil, "s r 4 linux"},
		{"s,vps=4", env, "s /ram 4 "},
		{"s,ram=r", nil, "not 1 to 64"},
		{"s,vps=1", nil, "ram=FILE is missing"},
		{"s,ram=r,vps=65", nil, "not 1 to 64"},
		{"s,ram=r,vps=x", nil, "not 1 to 64"},
		{"", env, "path of the socket"},
		{"s,", env, "want SOCK"},
		{"s,ram=", env, "want SOCK"},
		{"s,cpus=2", env, `no option "cpus"`},
	} {
		p, err := parseVM(x.flag, func(k string) string { return x.env[k] })
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = strings.Join([]string{p.path, p.cfg.RAM, string(rune('0' + p.cfg.VPs)), p.want.Name}, " ")
		}
		if err == nil && got != x.want || err != nil && !strings.Contains(got, x.want) {
			t.Errorf("--ivshmem %s: %q, want %q", x.flag, got, x.want)
		}
	}
}
