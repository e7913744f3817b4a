package main

import (
	"errors"
	"io"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// asTyped lets words that people try do what they mean: help, help CMD, version.
func asTyped(args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"--help"}
	case args[0] == "help":
		return append(args[1:len(args):len(args)], "--help")
	case args[0] == "version" && len(args) == 1:
		return []string{"--version"}
	}
	return args
}

// clearer are the parser's words for what was typed wrong, and ours.
var clearer = []struct {
	theirs *regexp.Regexp
	ours   string
}{
	{regexp.MustCompile(`expected \w+ value but got "EOL" \(<EOL>\)$`), "a value is missing"},
	{regexp.MustCompile(`expected duration (?:value )?but got ("[^"]*").*$`), "$1 is no time: want one such as 3s or 500ms"},
	{regexp.MustCompile(`expected (?:a valid \d+ bit int|int value) but got ("[^"]*").*$`), "$1: want a number from 1 on"},
	{regexp.MustCompile(`^expected "<path>"$`), "missing PATH, the socket of a host"},
	{regexp.MustCompile(`^expected "host ctl <path> <command>"$`), "missing the PATH of a running host, and what to ask it: ports, link STATE PORT, vlan PORT VLAN, vf add PORT, rescind PORT, offer PORT or capture PORT"},
	{regexp.MustCompile(`^expected one of "ports".*$`), "missing what to ask the host: ports, link STATE PORT, vlan PORT VLAN, vf add PORT, rescind PORT, offer PORT or capture PORT"},
	{regexp.MustCompile(`^expected "<port>"$`), "missing PORT, the name of a port"},
	{regexp.MustCompile(`^expected "<state> <port>"$`), "missing what to do to a port's link (up, down, move or MBPS), and the PORT"},
	{regexp.MustCompile(`^expected "<port> <vlan>"$`), "missing PORT, the name of a port, and its VLAN, such as access=10"},
	{regexp.MustCompile(`^expected "<vlan>"$`), "missing the VLAN of the port, such as access=10"},
	{regexp.MustCompile(`^expected "<do> <port>"$`), "missing what to do with a port's virtual function (add, remove, flap or lose), and the PORT"},
	{regexp.MustCompile(`^expected "<cmd> \.\.\."$`), "missing CMD, a program to run, as in: hvnet exec -- ethtool -l eth0"},
	{regexp.MustCompile(`^expected "timeline"$`), "missing what to ask about the virtual function, as in: hvnet vf timeline eth0"},
	{regexp.MustCompile(`^expected one of "udp-fragments".*$`), "missing what to measure: udp-fragments or vf"},
	{regexp.MustCompile(`^missing flags: --listen=PATH$`), "missing --listen PATH, the socket to make"},
}

// explain says what was wrong with a command line, and which help has more.
func explain(err error) string {
	text, cmd := err.Error(), ""
	var parse *kong.ParseError
	if errors.As(err, &parse) {
		if c := selected(parse.Context); c != nil {
			cmd = called(c)
		}
	}
	for _, c := range clearer {
		text = c.theirs.ReplaceAllString(text, c.ours)
	}
	if cmd == "host" && strings.HasPrefix(text, "unexpected argument") && !strings.Contains(text, "did you mean") {
		text += "; a host's socket is given as --listen PATH, and 'hvnet host ctl PATH ports' asks a running one"
	}
	return text + "\nTry '" + strings.TrimSpace("hvnet "+cmd) + " --help'."
}

// selected returns the command that was reached on the command line, nil for none.
func selected(ctx *kong.Context) *kong.Node {
	for i := len(ctx.Path) - 1; i >= 0; i-- {
		if c := ctx.Path[i].Command; c != nil {
			return c
		}
	}
	return nil
}

// called is what the user calls a command.
func called(c *kong.Node) string {
	switch {
	case c.Path() == "host serve":
		return "host"
	case strings.HasPrefix(c.Path(), "host ctl "):
		return "host ctl"
	}
	return c.Path()
}

// overview is the help of hvnet without a command.
const overview = `The Hyper-V network driver in user space, and the host it talks to.

  hvnet demo                  The tour: each part once, with real traffic.
                              It needs no rights and ends by itself.
  hvnet run [-- CMD]          A host, a guest, and the guest's eth0 in a network
                              namespace, with CMD or a shell in it.
  hvnet host --listen PATH    An emulated Hyper-V network host for guests to
                              attach to, until Ctrl-C.
  hvnet host ctl PATH ports   What is connected to a running host; link in place
                              of ports: pull and plug a guest's cable.
  hvnet up PATH               A guest of that host, its NIC as a kernel
                              interface here, until Ctrl-C.
  hvnet ethtool ...           ethtool's own command line, for interfaces that
                              run or up made.
  hvnet channels [IF]         Which virtual processor each channel of such an
                              interface interrupts; --move changes it.
  hvnet suspend [IF]          Put such an interface's NIC to sleep; hvnet resume
                              wakes it with the settings that it had.
  hvnet explain [NAME]        What a counter or a feature is that ethtool shows,
                              and what to do about it.
  hvnet exec -- CMD           CMD, such as the real ethtool, with its questions
                              about such interfaces answered by their drivers.
  hvnet capture [flags]       The frames of such an interface in a file for
                              Wireshark.
  hvnet top [IF]              Rates of its channels, and what is lost.
  hvnet vf timeline [IF]      When its data path moved to a virtual function and
                              back, and why.
  hvnet bench udp-fragments   What becomes of fragments of UDP datagrams on a
                              host that loses some, and with the cure; in place
                              of it vf: of UDP and TCP while a virtual function
                              comes and goes.
  hvnet doctor [IF]           What is wrong with such an interface, or with the
                              kernel's hv_netvsc, and how to mend it.
  hvnet --version             The version.

'hvnet CMD --help' has the flags of a command.
`

// usages are the first lines of help, where the parser's would mislead.
var usages = map[string]string{
	"run":                     "hvnet run [flags] [--] [CMD ...]",
	"host serve":              "hvnet host --listen=PATH [flags]",
	"host ctl":                "hvnet host ctl PATH COMMAND ...",
	"host ctl <path> ports":   "hvnet host ctl PATH ports",
	"host ctl <path> rescind": "hvnet host ctl PATH rescind PORT",
	"host ctl <path> offer":   "hvnet host ctl PATH offer PORT",
	"host ctl <path> link":    "hvnet host ctl PATH link up|down|move|MBPS PORT",
	"host ctl <path> vlan":    "hvnet host ctl PATH vlan PORT VLAN",
	"host ctl <path> vf":      "hvnet host ctl PATH vf add|remove|flap|lose PORT",
	"host ctl <path> capture": "hvnet host ctl PATH capture PORT [flags]",
	"up":                      "hvnet up PATH [flags]",
	"exec":                    "hvnet exec [--] CMD ...",
	"top":                     "hvnet top [IF] [flags]",
	"vf":                      "hvnet vf timeline [IF]",
	"vf timeline":             "hvnet vf timeline [IF] [--json]",
	"bench":                   "hvnet bench udp-fragments | vf",
	"doctor":                  "hvnet doctor [--json | --facts] [IF ...]",
	"explain":                 "hvnet explain [COUNTER|FEATURE]",
	"channels":                "hvnet channels [IF] [--move CHANNEL:VP ...]",
	"suspend":                 "hvnet suspend [IF]",
	"resume":                  "hvnet resume [IF]",
}

// help prints the help of a command, or of what the command does by default. That
// it could not be written is no error of the command line; the output remembers it.
func help(opt kong.HelpOptions, ctx *kong.Context) error {
	c := selected(ctx)
	if c == nil {
		io.WriteString(ctx.Stdout, overview)
		return nil
	}
	if c.DefaultCmd != nil {
		ctx.Path = append(ctx.Path, &kong.Path{Parent: c, Command: c.DefaultCmd})
		c = c.DefaultCmd
	}
	var text strings.Builder
	out := ctx.Stdout
	ctx.Stdout = &text
	err := kong.DefaultHelpPrinter(opt, ctx)
	ctx.Stdout = out
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(text.String(), "\n")
	first, ok := usages[c.Path()]
	if !ok {
		first = "hvnet " + c.Path() + " [flags]"
	}
	io.WriteString(out, "Usage: "+first+"\n"+rest)
	return nil
}
