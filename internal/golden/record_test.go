package golden

import (
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
	only   = flag.String("of", "", "profile to run Linux on, or channels-N; empty: all to update, else two that tell most for their time")
)

// root is the module's folder.
const root = "../.."

// TestLinux has Linux in QEMU say everything anew, of the default profile and of two
// channels, and compares it with what is kept. With -update it keeps what is said, of all.
func TestLinux(t *testing.T) {
	if !*update {
		linuxguest.Need(t, "6.1")
	}
	asked := 0
	for _, of := range Subjects() {
		name := of.String()
		wanted := name == *only
		if *only == "" {
			wanted = *update || of == Subject{profile.Default, 2} || of == Subject{Profile: profile.Default}
		}
		if !wanted {
			continue
		}
		asked++
		r, err := Record(t.Context(), root, of)
		if err != nil {
			t.Fatal(err)
		}
		if r.Complaints != "" {
			t.Errorf("%s: the kernel complains:\n%s", name, r.Complaints)
		}
		for file, s := range map[string]Session{
			"usage":          r.Usage,
			of.file(Ioctl):   r.Device[Ioctl],
			of.file(Netlink): r.Device[Netlink],
		} {
			if len(s.Texts) == 0 {
				continue // the usage, in a boot that is about channels
			}
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
	if asked == 0 {
		t.Errorf("-of %s: that is none of %v", *only, Subjects())
	}
}
