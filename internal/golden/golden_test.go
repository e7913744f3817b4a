package golden

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFormat(t *testing.T) {
	s := Session{Head: "how\n\n", Texts: []Text{
		{Command: `ethtool -l ""`, Stdout: "a\n\tb \n\nno end", Stderr: "-- x --\n= 3\n", Status: 255},
		{Command: "ethtool -L eth0"},
	}}
	const want = "how\n\n-- ethtool -l \"\" --\n| a\n| \tb \n| \n| no end\\\n! -- x --\n! = 3\n= 255\n-- ethtool -L eth0 --\n= 0\n"
	if diff := cmp.Diff(want, string(s.Format())); diff != "" {
		t.Error(diff)
	}
	back, err := Parse(s.Format())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{
		"-- a --\n", "-- a --\n| x\n", "-- a --\n? x\n= 0\n", "-- a --\n= x\n", "-- a --\n= -1\n", "-- a --\n\n= 0\n",
	} {
		if s, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q is %+v", bad, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("head\n-- ethtool -i eth0 --\n| a\\\n! b\n= 1\n"))
	f.Add([]byte("-- x --\n|\n=\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(s.Format())
		if err != nil {
			t.Fatalf("%q: %v", s.Format(), err)
		}
		if diff := cmp.Diff(s.Texts, again.Texts); diff != "" {
			t.Errorf("%q:\n%s", data, diff)
		}
	})
}

func TestWords(t *testing.T) {
	for _, x := range []struct {
		line string
		want []string
	}{
		{"ethtool", []string{"ethtool"}},
		{`ethtool -l ""`, []string{"ethtool", "-l", ""}},
		{`a "b c\t" d`, []string{"a", "b c\t", "d"}},
	} {
		got, err := Words(x.line)
		if err != nil || !slices.Equal(got, x.want) {
			t.Errorf("%s: %q %v, want %q", x.line, got, err, x.want)
		}
	}
	if got, err := Words(`a "b`); err == nil {
		t.Errorf("an open quote gives %q", got)
	}
}

func TestNormal(t *testing.T) {
	in := "NIC statistics:\n     tx_busy: 7\n     cpu3_vf_tx_bytes: 18446744073709551615\n"
	want := "NIC statistics:\n     tx_busy: N\n     cpu3_vf_tx_bytes: N\n"
	if got := (Text{Stdout: in}).Normal().Stdout; got != want {
		t.Errorf("%q", got)
	}
	other := "Ring parameters for eth0:\n     x: 7\n"
	if got := (Text{Stdout: other}).Normal().Stdout; got != other {
		t.Errorf("%q", got)
	}
}

// TestComplete: for each subject and way there is an answer to each command.
func TestComplete(t *testing.T) {
	check := func(what string, s Session, err error, want []string) {
		if err != nil {
			t.Error(err)
			return
		}
		var got []string
		for _, text := range s.Texts {
			got = append(got, text.Command)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: `make golden` is due: -commands +texts\n%s", what, diff)
		}
	}
	s, err := Usage()
	check("usage", s, err, UsageCommands())
	for _, of := range Subjects() {
		for _, path := range []Path{Ioctl, Netlink} {
			s, err := of.Session(path)
			check(of.String()+" by "+string(path), s, err, of.Commands())
		}
	}
	if _, err := Device("ws2003", Ioctl); err == nil {
		t.Error("there are texts of ws2003")
	}
}
