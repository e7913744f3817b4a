package netstack

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// resolvConf is where the machine names its DNS servers, see resolv.conf(5).
const resolvConf = "/etc/resolv.conf"

// maxServers is how many servers a resolver asks, as resolv.conf(5) has it.
const maxServers = 3

// systemServers are the machine's name servers. The file is read again when it has
// changed, because a machine may change networks while the gateway runs.
type systemServers struct {
	mu      sync.Mutex
	read    bool
	changed time.Time
	servers []string
}

// list returns the servers as "host:port".
func (s *systemServers) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(resolvConf)
	var changed time.Time
	if err == nil {
		changed = info.ModTime()
	}
	if !s.read || !changed.Equal(s.changed) {
		text, _ := os.ReadFile(resolvConf) // missing is the same as empty
		s.servers = parseResolvConf(string(text))
		s.read, s.changed = true, changed
	}
	return slices.Clone(s.servers)
}

// parseResolvConf returns the name servers of a resolv.conf file. Without any, the
// server is the machine itself.
func parseResolvConf(text string) []string {
	var servers []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(servers) == maxServers {
			continue
		}
		if _, err := netip.ParseAddr(f[1]); err == nil {
			servers = append(servers, net.JoinHostPort(f[1], dnsPort))
		}
	}
	if servers == nil {
		servers = []string{net.JoinHostPort("127.0.0.1", dnsPort), net.JoinHostPort("::1", dnsPort)}
	}
	return servers
}
