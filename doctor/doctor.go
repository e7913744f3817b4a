package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Severity says how bad a finding is.
type Severity int

// The severities, the worst last.
const (
	Note    Severity = iota // worth knowing; there is nothing to mend
	Advice                  // it works, and could do better
	Warning                 // frames are lost or slow, or will be
	Fault                   // it does not work, or may take the machine down
)

var severityNames = [...]string{"note", "advice", "warning", "fault"}

// String returns its name, "warning".
func (s Severity) String() string { return severityNames[s] }

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ExitStatus returns the exit status of a command that has found nothing worse: 0 for
// notes, 3 for advice, 4 for warnings and 5 for faults. 1 and 2 are left to commands
// that fail.
func (s Severity) ExitStatus() int {
	if s == Note {
		return 0
	}
	return 2 + int(s)
}

// A Finding is what a rule has to say about an interface, or about the machine.
type Finding struct {
	Severity  Severity `json:"severity"`
	Rule      string   `json:"rule"`
	Interface string   `json:"interface,omitempty"` // empty: it is the machine's
	Text      string   `json:"text"`                // one sentence
	Mend      string   `json:"mend,omitempty"`      // the command that mends it, or shows what to mend
}

// A Rule is one thing that is looked at.
type Rule struct {
	Name     string
	Severity Severity // of the worst that it finds
	Text     string   // when it has something to say, and what threshold it has
	Why      string   // what it is about
	machine  bool     // it looks at the machine, not at an interface
	check    func(*examination)
}

// rules is the table.
var rules = slices.Concat(linkRules, settingRules, fragmentRules, trafficRules, vfRules, uioRules)

// Rules returns the table of them.
func Rules() []Rule { return slices.Clone(rules) }

// An examination is one rule at one interface, or at the machine: then the interface is
// nil.
type examination struct {
	*Facts
	*Interface
	rule     *Rule
	findings []Finding
}

// say adds a finding. mend is the command, and may be empty.
func (e *examination) say(s Severity, mend, format string, args ...any) {
	f := Finding{Severity: s, Rule: e.rule.Name, Text: fmt.Sprintf(format, args...), Mend: mend}
	if e.Interface != nil {
		f.Interface = e.Interface.Name
	}
	e.findings = append(e.findings, f)
}

// ethtool returns the command line of ethtool for the interface: the real one for the
// kernel's, ours for our own.
func (e *examination) ethtool(option, rest string) string {
	program := "ethtool"
	if e.Ours {
		program = "hvnet ethtool"
	}
	return fmt.Sprintf("%s %s %s %s", program, option, e.Interface.Name, rest)
}

// Examine applies all rules. Findings of the machine come first, then those of each
// interface, the worst of each first.
func Examine(f *Facts) []Finding {
	var all []Finding
	for i := range rules {
		r := &rules[i]
		if r.machine {
			e := examination{Facts: f, rule: r}
			r.check(&e)
			all = append(all, e.findings...)
			continue
		}
		for j := range f.Interfaces {
			e := examination{Facts: f, Interface: &f.Interfaces[j], rule: r}
			r.check(&e)
			all = append(all, e.findings...)
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Interface, b.Interface), int(b.Severity-a.Severity))
	})
	return all
}

// Worst returns the severity of the worst of several findings: Note if there is none.
func Worst(findings []Finding) (worst Severity) {
	for _, f := range findings {
		worst = max(worst, f.Severity)
	}
	return worst
}
