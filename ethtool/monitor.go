package ethtool

import (
	"context"
	"io"
	"slices"
	"sync"
)

// A Change is a change of a device's settings, of which ethtool tells as it shows them.
type Change string

// The changes.
const (
	ChangedSettings Change = "settings" // -s
	ChangedFeatures Change = "features" // -K
	ChangedRings    Change = "rings"    // -G
	ChangedChannels Change = "channels" // -L
)

// A Watcher is a device that tells of changes of its settings.
type Watcher interface {
	// Watch calls begun when it hears of every change, and then changed for each. It
	// returns when ctx ends or, without an error, when the device leaves.
	Watch(ctx context.Context, begun func(), changed func(Change)) error
}

// monitored are the options behind --monitor, with what they let through. Those of
// settings that no device of ours has let nothing through.
var monitored = []struct {
	names  []string
	change Change
}{
	{[]string{"-s", "--change"}, ChangedSettings},
	{[]string{"-k", "--show-features", "--show-offload", "-K", "--features", "--offload"}, ChangedFeatures},
	{[]string{"-g", "--show-ring", "-G", "--set-ring"}, ChangedRings},
	{[]string{"-l", "--show-channels", "-L", "--set-channels"}, ChangedChannels},
	{[]string{"--show-priv-flags", "--set-priv-flags", "-c", "--show-coalesce", "-C", "--coalesce", "-a", "--show-pause", "-A", "--pause",
		"--show-eee", "--set-eee", "--cable-test", "--cable-test-tdr", "--show-module", "--set-module"}, ""},
}

// shown are the commands that show what a change is of.
var shown = map[Change]func(*call) int{
	ChangedSettings: (*call).showSettings, ChangedFeatures: (*call).showFeatures,
	ChangedRings: (*call).showRings, ChangedChannels: (*call).showChannels,
}

// Monitor is `ethtool --monitor` with args behind it, for devices that are Watchers: it
// prints what Run shows of a setting, whenever that was changed, until ctx ends or all
// devices have left. names are all devices that there are, for who asks for none in
// particular.
func Monitor(ctx context.Context, args, names []string, lookup func(name string) (Device, error), stdout, stderr io.Writer) int {
	c := &call{ctx: ctx, lookup: lookup, stderr: stderr}
	only := Change("any")
	if len(args) > 0 && args[0] != "" && args[0][0] == '-' {
		i := slices.IndexFunc(monitored, func(m struct {
			names  []string
			change Change
		}) bool {
			return slices.Contains(m.names, args[0])
		})
		switch {
		case i >= 0:
			only = monitored[i].change
		case args[0] != "--all":
			return c.badArgs()
		}
		args = args[1:]
	}
	switch {
	case len(args) > 1:
		return c.badArgs()
	case len(args) == 1 && args[0] != "*":
		names = args
	}
	if len(names) == 0 {
		return c.fail(exitFailure, "Cannot monitor: no interface here is hvnet's; ethtool --monitor tells of the kernel's")
	}
	var watchers []Watcher
	for _, name := range names {
		d, err := lookup(name)
		if err != nil {
			return c.fail(exitFailure, "Cannot monitor %s: %s", name, errText(err))
		}
		w, ok := d.(Watcher)
		if !ok {
			return c.fail(exitFailure, "Cannot monitor %s: it is the kernel's, of whose interfaces ethtool --monitor tells", name)
		}
		watchers = append(watchers, w)
	}
	return c.monitor(names, watchers, only, stdout)
}

func (c *call) monitor(names []string, watchers []Watcher, only Change, stdout io.Writer) int {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	var mu sync.Mutex // one change is printed at a time
	print := func() {
		stdout.Write(c.stdout.Bytes())
		c.stdout.Reset()
	}
	var wg sync.WaitGroup
	listening, failed := len(watchers), false
	for i, w := range watchers {
		wg.Go(func() {
			err := w.Watch(ctx, func() {
				mu.Lock()
				defer mu.Unlock()
				if listening--; listening == 0 {
					c.printf("listening...\n")
					print()
				}
			}, func(change Change) {
				show := shown[change]
				if show == nil || only != "any" && only != change {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				c.printf("\n")
				c.name = names[i]
				show(c)
				print()
			})
			if err != nil && ctx.Err() == nil {
				mu.Lock()
				defer mu.Unlock()
				failed = true
				c.fail(exitFailure, "Cannot monitor %s: %s", names[i], errText(err))
			}
		})
	}
	wg.Wait()
	if failed {
		return exitFailure
	}
	return 0
}
