package guest

import (
	"strings"
	"testing"

	"hvnet/hv/attach"
)

// TestSayable has hosts call the adapter what no guest can be called: the guest must be
// able to attach to the next host all the same.
func TestSayable(t *testing.T) {
	for name, want := range map[string]string{
		"":                        "",
		"web 1":                   "web 1",
		"Адаптер":                 "Адаптер",
		strings.Repeat("n", 64):   strings.Repeat("n", 64),
		strings.Repeat("n", 65):   "",
		"a\nb":                    "",
		"\x1b[2J":                 "",
		string([]byte{0xff, 'a'}): "",
	} {
		g := &Guest{cfg: Config{Name: sayable(name)}}
		h := g.hello()
		if h.Name != want {
			t.Errorf("%q becomes %q, want %q", name, h.Name, want)
		}
		if err := h.Check(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if (attach.Hello{Name: "a\nb", VPs: 1}).Check() == nil {
		t.Error("a guest of two lines can attach")
	}
}
