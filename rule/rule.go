// Package rule is the one table of what a guest has to keep to, and of where that
// is written. A host that finds a message or a packet wrong says so with an error of
// this package; a log, a trace and a check of conformance all read the rule from it.
package rule

import (
	"errors"
	"fmt"
	"slices"
)

// A Rule is one thing that a guest has to keep to.
type Rule struct {
	Name   string // short and lasting, such as "open-offset"
	Text   string // what the guest has to do
	Source string // where it is written
}

// Broken returns an error that says how the rule was broken.
func (r *Rule) Broken(format string, args ...any) error {
	return &Fault{r, r.Source, fmt.Errorf(format, args...)}
}

// Err returns err as the way in which the rule was broken; nil if err is nil.
func (r *Rule) Err(err error) error { return r.In(r.Source, err) }

// In is Err for a rule that is written in many places, one for each structure:
// source is the place that counts here.
func (r *Rule) In(source string, err error) error {
	if err == nil {
		return nil
	}
	return &Fault{r, source, err}
}

// A Fault is a rule that was broken, as an error. Its text is how.
type Fault struct {
	Rule   *Rule
	Source string // where it is written
	how    error
}

// Error says what was wrong, without the rule.
func (f *Fault) Error() string { return f.how.Error() }

// Unwrap returns what was wrong as the parser or the bus found it.
func (f *Fault) Unwrap() error { return f.how }

// Explain says what is wrong in one line, and, if it is a fault, which rule that breaks
// and where it is written.
func Explain(err error) string {
	f := Of(err)
	if f == nil {
		return err.Error()
	}
	return fmt.Sprintf("%v; rule %s: %s (%s)", err, f.Rule.Name, f.Rule.Text, f.Source)
}

// Of returns the fault in a chain of errors, nil if there is none.
func Of(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return nil
}

// All returns the rules in the order of the table.
func All() []*Rule { return slices.Clone(all) }

var all []*Rule // complete once the package is initialized

// add makes a row of the table.
func add(name, text, source string) *Rule {
	r := &Rule{name, text, source}
	all = append(all, r)
	return r
}
