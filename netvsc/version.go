package netvsc

import "runtime/debug"

// Version returns the version of this module as the build recorded it, "(devel)"
// for one that was not released.
func Version() string {
	const module = "hvnet"
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	for _, m := range append(bi.Deps, &bi.Main) {
		if m.Path == module && m.Version != "" {
			return m.Version
		}
	}
	return "(devel)"
}
