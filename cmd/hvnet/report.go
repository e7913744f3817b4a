package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A report prints the tour: numbered headings, aligned rows, and progress that
// disappears where it can.
type report struct {
	w        io.Writer
	terminal bool
	step     int
	width    int // of the progress line that is on the terminal
}

// newReport returns a report to w.
func newReport(w io.Writer) *report {
	r := &report{w: w}
	if f, ok := w.(interface{ Stat() (os.FileInfo, error) }); ok {
		if fi, err := f.Stat(); err == nil {
			r.terminal = fi.Mode()&os.ModeCharDevice != 0
		}
	}
	return r
}

// heading begins the next step of the tour, and says what it proves.
func (r *report) heading(title, proves string) {
	r.clear()
	r.step++
	fmt.Fprintf(r.w, "\n%d  %s\n", r.step, title)
	r.text(proves)
	fmt.Fprintln(r.w)
}

// row prints a label and what belongs to it, in columns of equal width.
func (r *report) row(label string, cells ...string) {
	r.clear()
	var b strings.Builder
	fmt.Fprintf(&b, "   %-25s", label)
	for _, c := range cells {
		fmt.Fprintf(&b, " %-22s", c)
	}
	fmt.Fprintln(r.w, strings.TrimRight(b.String(), " "))
}

// text prints lines as they are, indented.
func (r *report) text(s string) {
	r.clear()
	for line := range strings.Lines(s) {
		fmt.Fprint(r.w, strings.TrimRight("   "+line, " \n"), "\n")
	}
}

// progress says what is going on: in place on a terminal, once elsewhere.
func (r *report) progress(what string, done, all time.Duration) {
	if !r.terminal {
		if done == 0 {
			fmt.Fprintf(r.w, "   %s for %v\n", what, all)
		}
		return
	}
	line := fmt.Sprintf("   %s, %.1f of %v", what, done.Seconds(), all)
	fmt.Fprintf(r.w, "\r%-*s", r.width, line)
	r.width = len(line)
}

// clear removes a progress line from the terminal.
func (r *report) clear() {
	if r.width > 0 {
		fmt.Fprintf(r.w, "\r%*s\r", r.width, "")
		r.width = 0
	}
}
