// Package golden is what the real ethtool says of the real hv_netvsc on a host of
// ours: every command with its output, its errors and its exit status, for each
// profile of the host. Whatever of ours prints ethtool's text is compared with it.
//
// The texts are in testdata, one txtar archive for each profile and way to the kernel,
// in which a command line stands where a file's name would. `make golden` has them
// made anew by Linux in QEMU; README.md says more.
package golden

import (
	"cmp"
	"embed"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"hvnet/netvsp/profile"
)

// A Path is one of the two ways on which ethtool speaks with the kernel.
type Path string

// The two ways. Ethtool takes netlink where there is netlink for a command, unless the
// kernel refuses it.
const (
	Ioctl   Path = "ioctl"
	Netlink Path = "netlink"
)

// A Subject is a guest whose NIC is asked.
type Subject struct {
	Profile string // of its host
	// Channels, unless 0, is how many the guest can have: one for each processor. It is
	// asked ChannelCommands then; else it has four processors and is asked DeviceCommands.
	Channels int
}

// Subjects returns all whose answers are kept: one on each profile, and one on the
// default one for each number of channels.
func Subjects() (list []Subject) {
	for _, name := range profile.Names() {
		list = append(list, Subject{Profile: name})
	}
	for _, n := range []int{1, 2, 4, 64} {
		list = append(list, Subject{profile.Default, n})
	}
	return list
}

// String returns the name under which the answers are kept: that of the profile, or
// channels-N.
func (s Subject) String() string {
	if s.Channels > 0 {
		return fmt.Sprintf("channels-%d", s.Channels)
	}
	return s.Profile
}

// CPUs returns how many processors the guest has.
func (s Subject) CPUs() int { return cmp.Or(s.Channels, 4) }

// Commands returns the command lines about eth0, in the order in which they are run.
func (s Subject) Commands() []string {
	if s.Channels > 0 {
		return ChannelCommands(s.Channels)
	}
	return DeviceCommands()
}

// Session returns the answers by one way to the kernel.
func (s Subject) Session(path Path) (Session, error) { return load(s.file(path)) }

func (s Subject) file(path Path) string { return s.String() + "." + string(path) }

// A Text is one command and its answer.
type Text struct {
	Command string // words are separated by blanks, and quoted as in Go where they need it
	Stdout  string
	Stderr  string
	Status  int
}

// A Session is commands that were run one after the other on one driver.
type Session struct {
	Head  string // how it was made
	Texts []Text
}

var (
	//go:embed testdata/*.txt
	testdata embed.FS
	//go:embed usage.cmd
	usageCommands string
	//go:embed device.cmd
	deviceCommands string
	//go:embed channels.cmd
	channelCommands string
)

// UsageCommands returns the command lines whose answer is the same for every device.
func UsageCommands() []string { return lines(usageCommands) }

// DeviceCommands returns the command lines about eth0, in the order in which they are
// run.
func DeviceCommands() []string { return lines(deviceCommands) }

// ChannelCommands returns the command lines about a NIC that can have n channels.
func ChannelCommands(n int) []string {
	number := func(i int) string { return strconv.Itoa(n + i) }
	return lines(strings.NewReplacer("{n-1}", number(-1), "{n}", number(0), "{n+1}", number(1)).Replace(channelCommands))
}

func lines(text string) (commands []string) {
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" && l[0] != '#' {
			commands = append(commands, l)
		}
	}
	return commands
}

// Usage returns the answers that are the same for every device, on the ioctl way.
func Usage() (Session, error) { return load("usage") }

// Device returns the answers about eth0 on a host of a profile.
func Device(profile string, path Path) (Session, error) {
	return Subject{Profile: profile}.Session(path)
}

func load(name string) (Session, error) {
	data, err := testdata.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		return Session{}, fmt.Errorf("golden texts of %s: %w", name, err)
	}
	s, err := Parse(data)
	if err != nil {
		return Session{}, fmt.Errorf("golden texts of %s: %w", name, err)
	}
	return s, nil
}

// Words returns the words of a command line.
func Words(line string) ([]string, error) {
	var words []string
	for line != "" {
		if line[0] != '"' {
			word, rest, _ := strings.Cut(line, " ")
			words, line = append(words, word), rest
			continue
		}
		q, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, fmt.Errorf("command line %s: %w", line, err)
		}
		s, err := strconv.Unquote(q)
		if err != nil {
			return nil, fmt.Errorf("command line %s: %w", line, err)
		}
		words, line = append(words, s), strings.TrimPrefix(line[len(q):], " ")
	}
	return words, nil
}

// String returns the answer as it is kept: lines of stdout behind "| ", lines of
// stderr behind "! ", and the exit status behind "= ". A last line that does not end
// is followed by "\".
func (t Text) String() string {
	var b strings.Builder
	put := func(mark, text string) {
		for l := range strings.Lines(text) {
			l, ended := strings.CutSuffix(l, "\n")
			b.WriteString(mark + l)
			if !ended {
				b.WriteByte('\\')
			}
			b.WriteByte('\n')
		}
	}
	put("| ", t.Stdout)
	put("! ", t.Stderr)
	fmt.Fprintf(&b, "= %d\n", t.Status)
	return b.String()
}

// Format returns a session as it is kept.
func (s Session) Format() []byte {
	b := []byte(s.Head)
	for _, t := range s.Texts {
		b = fmt.Appendf(b, "-- %s --\n%v", t.Command, t)
	}
	return b
}

// Parse reads what Format writes.
func Parse(data []byte) (Session, error) {
	var s Session
	for l := range strings.Lines(string(data)) {
		name, isName := strings.CutPrefix(l, "-- ")
		name, ends := strings.CutSuffix(name, " --\n")
		switch {
		case isName && ends:
			s.Texts = append(s.Texts, Text{Command: name, Status: -1})
		case len(s.Texts) == 0:
			s.Head += l
		default:
			t := &s.Texts[len(s.Texts)-1]
			if err := t.add(l); err != nil {
				return s, fmt.Errorf("%s: %w", t.Command, err)
			}
		}
	}
	for _, t := range s.Texts {
		if t.Status < 0 {
			return s, fmt.Errorf("%s: there is no exit status", t.Command)
		}
	}
	return s, nil
}

// add takes a line of what String returns.
func (t *Text) add(line string) error {
	mark, rest := line[:min(2, len(line))], line[min(2, len(line)):]
	if cut, ok := strings.CutSuffix(rest, "\\\n"); ok {
		rest = cut
	}
	switch status, err := strconv.Atoi(strings.TrimSpace(rest)); {
	case mark == "| ":
		t.Stdout += rest
	case mark == "! ":
		t.Stderr += rest
	case mark == "= " && err == nil:
		t.Status = status
	default:
		return fmt.Errorf("the line %q is none of an answer", line)
	}
	return nil
}

// counter is a line of ethtool -S.
var counter = regexp.MustCompile(`(?m)^(     [a-z0-9_]+): \d+$`)

// Normal returns the text with N for the values of counters, which are never the same
// twice.
func (t Text) Normal() Text {
	if strings.HasPrefix(t.Stdout, "NIC statistics:\n") {
		t.Stdout = counter.ReplaceAllString(t.Stdout, "$1: N")
	}
	return t
}
