package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// WriteText writes what was looked at and what was found, for people.
func WriteText(w io.Writer, f *Facts, findings []Finding) {
	fmt.Fprintf(w, "machine: %s\n", f.machine())
	writeFindings(w, findings, "")
	for i := range f.Interfaces {
		fmt.Fprintf(w, "\n%s: %s\n", f.Interfaces[i].Name, f.about(&f.Interfaces[i]))
		writeFindings(w, findings, f.Interfaces[i].Name)
	}
	var count [len(severityNames)]int
	for _, x := range findings {
		count[x.Severity]++
	}
	fmt.Fprintf(w, "\n%s, %s, %d advice, %s\n", plural(count[Fault], "fault"), plural(count[Warning], "warning"), count[Advice], plural(count[Note], "note"))
}

// writeFindings writes those of an interface, or with no name those of the machine.
func writeFindings(w io.Writer, findings []Finding, name string) {
	for _, x := range findings {
		if x.Interface != name {
			continue
		}
		fmt.Fprintf(w, "  %-8s %s [%s]\n", x.Severity, x.Text, x.Rule)
		if x.Mend != "" {
			fmt.Fprintf(w, "           %s\n", x.Mend)
		}
	}
}

// machine returns the facts that people ask for first.
func (f *Facts) machine() string {
	m := &f.Machine
	parts := []string{"kernel " + m.Kernel, plural(m.CPUs, "processor")}
	if m.Release != "" && !strings.HasPrefix(m.Kernel, m.Release) {
		parts[0] += " (" + m.Release + ")"
	}
	if m.Azure {
		parts = append(parts, "on Azure")
	}
	if m.Build != "" {
		parts = append(parts, "host build "+m.Build)
	}
	if m.Forward {
		parts = append(parts, "a router")
	}
	return strings.Join(parts, ", ")
}

func (f *Facts) about(i *Interface) string {
	driver := i.Driver
	if i.Ours {
		driver += " of hvnet"
	}
	parts := []string{driver + " " + i.Version}
	for _, name := range []string{"VMBus", "NVSP", "NDIS"} {
		if v := f.version(i, name); v != "" {
			parts = append(parts, name+" "+v)
		}
	}
	vf := "off"
	if i.HasVF() {
		vf = "on (" + i.VF.Name + ")"
	}
	parts = append(parts, fmt.Sprintf("%d of %s", i.Channels, plural(i.MaxChannels, "channel")), fmt.Sprintf("MTU %d", i.MTU), "accelerated networking "+vf)
	return strings.Join(parts, ", ")
}

// WriteJSON writes the same for programs: an object with facts and findings.
func WriteJSON(w io.Writer, f *Facts, findings []Finding) error {
	if findings == nil {
		findings = []Finding{}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Severity Severity  `json:"severity"` // of the worst
		Findings []Finding `json:"findings"`
		Facts    *Facts    `json:"facts"`
	}{Worst(findings), findings, f})
}
