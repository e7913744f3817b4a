package golden_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/ethtool"
	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/internal/golden"
	"hvnet/netvsc"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// TestOurs runs on our own driver what Linux was asked, as far as we have the command,
// and compares with what Linux said by ioctl. What "nobody" asked is left out: who may ask
// our driver is up to its control socket, which lets nobody in.
func TestOurs(t *testing.T) {
	known := knownCommands(t)
	usage, err := golden.Usage()
	if err != nil {
		t.Fatal(err)
	}
	needed, ran := make([]bool, len(exceptions)), 0
	for _, of := range golden.Subjects() {
		t.Run(of.String(), func(t *testing.T) {
			session, err := of.Session(golden.Ioctl)
			if err != nil {
				t.Fatal(err)
			}
			ran++
			n := attach(t, of)
			asNetlink := jsonTexts(t, of)
			texts, enough := session.Texts, len(session.Texts)-5 // all but what "ip" and "nobody" do
			if of.Channels == 0 {
				texts, enough = slices.Concat(usage.Texts, texts), 180
			}
			done, before := 0, ""
			for i, want := range texts {
				words, err := golden.Words(want.Command)
				if err != nil {
					t.Fatal(err)
				}
				has := slices.ContainsFunc(words, func(w string) bool { return slices.Contains(known, w) })
				switch {
				case words[0] == "ip":
					link(t, n, words)
				case words[0] == "ethtool" && (has || of.Channels == 0 && i < len(usage.Texts)):
					got := ours(t, n, want.Command, words[1:])
					done++
					except(&want, &got, before, needed)
					if diff := cmp.Diff(want.String(), got.String()); diff != "" {
						t.Errorf("after %s: %s\n-Linux +ours:\n%s", before, want.Command, diff)
					}
				}
				if netlink, ok := asNetlink[want.Command]; ok {
					got := ours(t, n, want.Command, words[1:])
					if diff := cmp.Diff(netlink.String(), got.String()); diff != "" {
						t.Errorf("%s by netlink: -Linux +ours:\n%s", want.Command, diff)
					}
				}
				before = want.Command
			}
			t.Logf("%d commands of %d are ours", done, len(texts))
			if done < enough {
				t.Error("these are too few")
			}
		})
	}
	for i, e := range exceptions {
		if !needed[i] && ran == len(golden.Subjects()) {
			t.Errorf("no exception is needed for %v any more, because %s", e.command, e.reason)
		}
	}
}

// An exception is why ours differs.
type exception struct {
	command *regexp.Regexp
	after   string // only directly after this command, unless empty
	reason  string
	// same makes equal what may differ.
	same func(linux, ours *golden.Text)
}

// exceptions are all; the first two are about our program, the others about our driver.
var exceptions = []exception{
	{
		command: regexp.MustCompile(` --json `),
		reason:  "ours writes JSON, which ethtool 6.1 has for few commands and by netlink alone",
		same: func(linux, ours *golden.Text) {
			if ours.Status == 0 && ours.Stderr == "" && json.Valid([]byte(ours.Stdout)) {
				*linux = *ours
			}
		},
	},
	{
		command: regexp.MustCompile(` (-L|--set-channels) `),
		reason:  "without effect it is an error, as with the releases of ethtool before 5.7, on purpose",
		same: func(linux, _ *golden.Text) {
			said := strings.Replace(linux.Stderr, "no channel parameters changed.", "no channel parameters changed, aborting", 1)
			if said == linux.Stderr {
				return
			}
			linux.Stderr = strings.Replace(said, "current values: rx 0 tx 0 ", "current values: tx 0 rx 0 ", 1)
			linux.Status = 1
		},
	},
	{
		command: regexp.MustCompile(` (-i|--driver) `),
		reason:  "the version is ours, not a kernel's",
		same:    func(linux, ours *golden.Text) { hide(linux, ours, "version: .*") },
	},
	{
		command: regexp.MustCompile(` (-S|--statistics) `),
		reason:  "counters of our own come behind those of hv_netvsc",
		same: func(linux, ours *golden.Text) {
			if strings.HasPrefix(ours.Stdout, linux.Stdout) {
				linux.Stdout = ours.Stdout
			}
		},
	},
	{
		command: regexp.MustCompile(` -x `),
		reason:  "hv_netvsc has no key before it has had two channels, and has lost it once it has had one, which leaves all flows on one queue",
		same: func(linux, ours *golden.Text) {
			if strings.Contains(linux.Stdout, noKey) {
				hide(linux, ours, key)
			}
		},
	},
	{
		command: regexp.MustCompile(` -x `),
		after:   "ethtool -l eth0",
		reason:  "hv_netvsc has lost the user's table once it has changed its channels, which leaves all flows on one queue",
		same: func(linux, ours *golden.Text) {
			if !tableOfOthers.MatchString(linux.Stdout) {
				hide(linux, ours, tableLine)
			}
		},
	},
}

// The key of RSS and a line of the table as -x shows them; no key, and a table that is
// not all zeros.
const (
	key       = `[0-9a-f]{2}(:[0-9a-f]{2}){39}`
	tableLine = ` +\d+: +(\d+ *)+`
)

var (
	noKey         = "00" + strings.Repeat(":00", 39)
	tableOfOthers = regexp.MustCompile(`(?m)^ +\d+:.* [1-9]`)
)

// hide makes equal the lines of stdout that match a pattern.
func hide(linux, ours *golden.Text, pattern string) {
	line := regexp.MustCompile("(?m)^" + pattern + "$")
	linux.Stdout = line.ReplaceAllString(linux.Stdout, "…")
	ours.Stdout = line.ReplaceAllString(ours.Stdout, "…")
}

// except makes equal what may differ, and notes which exceptions are needed for that.
func except(linux, ours *golden.Text, after string, needed []bool) {
	for i, e := range exceptions {
		if e.command.MatchString(linux.Command) && (e.after == "" || e.after == after) && *linux != *ours {
			was := *linux
			e.same(linux, ours)
			needed[i] = needed[i] || *linux != was
		}
	}
}

// jsonTexts returns the answers by netlink that are JSON.
func jsonTexts(t *testing.T, of golden.Subject) map[string]golden.Text {
	t.Helper()
	session, err := of.Session(golden.Netlink)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]golden.Text{}
	for _, text := range session.Texts {
		if strings.HasPrefix(text.Command, "ethtool --json") && text.Status == 0 && json.Valid([]byte(text.Stdout)) {
			texts[text.Command] = text
		}
	}
	if len(texts) == 0 && of.Channels == 0 {
		t.Fatal("no answer is JSON")
	}
	return texts
}

// knownCommands returns the names of our ethtool's commands: those of its own help.
func knownCommands(t *testing.T) (names []string) {
	t.Helper()
	var help bytes.Buffer
	if status := ethtool.Run(t.Context(), []string{"-h"}, nil, &help, &help); status != 0 {
		t.Fatalf("-h: status %d\n%s", status, &help)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +ethtool \[ FLAGS \] (\S+)`).FindAllStringSubmatch(help.String(), -1) {
		names = append(names, strings.Split(m[1], "|")...)
	}
	if len(names) < 10 {
		t.Fatalf("our commands are %v", names)
	}
	return names
}

// attach returns our driver's NIC in a guest and on a host as those of a subject.
func attach(t *testing.T, of golden.Subject) *netvsc.NIC {
	t.Helper()
	p, err := profile.Lookup(of.Profile)
	if err != nil {
		t.Fatal(err)
	}
	h := host.New(host.Config{Profile: p})
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	part, far, err := hv.Pipe(of.CPUs())
	if err != nil {
		t.Fatal(err)
	}
	go h.Serve(far, host.PortConfig{})
	g, err := guest.Start(t.Context(), part, guest.Config{VPs: of.CPUs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return g.NIC
}

// ours runs a command line on our driver.
func ours(t *testing.T, n *netvsc.NIC, command string, args []string) golden.Text {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := ethtool.Run(t.Context(), args, func(name string) (ethtool.Device, error) {
		if name != "eth0" {
			return nil, fmt.Errorf("find %s: %w", name, nic.ErrNoDevice)
		}
		return n, nil
	}, &stdout, &stderr)
	return golden.Text{Command: command, Stdout: stdout.String(), Stderr: stderr.String(), Status: status}.Normal()
}

// discard is a sink.
type discard struct{}

func (discard) WriteFrames([]nic.Frame) {}

// link does to our NIC what `ip link set` does to a kernel's.
func link(t *testing.T, n *netvsc.NIC, words []string) {
	t.Helper()
	var err error
	var mtu int
	switch what := strings.Join(words[1:], " "); what {
	case "link set eth0 up":
		err = n.Up(t.Context(), discard{})
	case "link set eth0 down":
		err = n.Down(t.Context())
	default:
		if _, err := fmt.Sscanf(what, "link set eth0 mtu %d", &mtu); err != nil {
			t.Fatalf("%s: nobody knows how: %v", what, err)
		}
		err = n.SetMTU(t.Context(), mtu)
	}
	if err != nil {
		t.Errorf("%v: %v", words, err)
	}
}

// realExceptions are why the real ethtool says of our driver another thing than of Linux's,
// and ownExceptions why our ethtool says another than the real one.
var (
	realExceptions = exceptions[2:]
	ownExceptions  = append([]exception{{
		command: regexp.MustCompile(`^nobody `),
		reason:  "our ethtool asks at the driver's control socket, which lets nobody in",
		same:    func(real, own *golden.Text) { *own = *real },
	}}, exceptions[:2]...)
)
