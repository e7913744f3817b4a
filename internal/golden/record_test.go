package golden

import (
	"cmp"
	"flag"
	"os"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"hvnet/internal/linuxguest"
	"hvnet/netvsp/profile"
)

var (
	update = flag.Bool("update", false, "keep what Linux says, instead of comparing it with what is kept")
	only   = flag.String("profile", "", "host to run Linux on; empty: every one to update, else the default one")
)

// root is the module's folder.
const root = "../.."

// TestLinux has Linux in QEMU say everything anew, on one profile, and compares it with
// what is kept. With -update it keeps what is said, on all.
func TestLinux(t *testing.T) {
	if !*update {
		linuxguest.Need(t, "6.1")
	}
	profiles := []string{cmp.Or(*only, profile.Default)}
	if *update && *only == "" {
		profiles = profile.Names()
	}
	for _, name := range profiles {
		r, err := Record(t.Context(), root, name)
		if err != nil {
			t.Fatal(err)
		}
		if r.Complaints != "" {
			t.Errorf("%s: the kernel complains:\n%s", name, r.Complaints)
		}
		for file, s := range map[string]Session{
			"usage":                      r.Usage,
			name + "." + string(Ioctl):   r.Device[Ioctl],
			name + "." + string(Netlink): r.Device[Netlink],
		} {
			path := filepath.Join("testdata", file+".txt")
			if *update {
				if err := os.WriteFile(path, s.Format(), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			kept, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
				continue
			}
			if diff := gocmp.Diff(string(kept), string(s.Format())); diff != "" {
				t.Errorf("%s, -kept +said now:\n%s", path, diff)
			}
		}
	}
}
