package impair

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const text = "loss=1%,dup=2%,corrupt=0.1%,reorder=3%,fragment=50%,unordered=60%,skew=3ms,delay=5ms,jitter=1ms,gap=2ms,rate=100mbit,limit=65536,seed=7"
	want := Config{Loss: .01, Duplicate: .02, Corrupt: .001, Reorder: .03, Fragment: .5, Unordered: .6, Skew: 3 * time.Millisecond,
		Delay: 5 * time.Millisecond, Jitter: time.Millisecond, Gap: 2 * time.Millisecond, Rate: 100_000_000, Limit: 65536, Seed: 7}
	got, err := Parse(text)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if s := got.String(); s != strings.Replace(text, "100mbit", "100000000bit", 1) {
		t.Errorf("written as %s", s)
	}
	if s := (Config{Loss: .123}).String(); s != "loss=12.3%,seed=0" {
		t.Errorf("written as %s", s)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                     `"": want NAME=VALUE`,
		"loss":                 `"loss": want NAME=VALUE`,
		"loss=1%,loss=2%":      "loss is there twice",
		"los=1%":               `"los" is none of loss, dup, corrupt`,
		"loss=1":               "loss=1: want a percentage",
		"loss=101%":            "loss=101%: want a percentage",
		"loss=-1%":             "want a percentage",
		"loss=NaN%":            "want a percentage",
		"delay=5":              "delay=5: want a time",
		"delay=-5ms":           "want a time",
		"delay=2m":             "want a time from 0 to 1m0s",
		"jitter=1ms":           "jitter=1ms: more than the delay of 0s",
		"rate=100":             "rate=100: want a rate",
		"rate=0mbit":           "want a rate",
		"rate=1e300gbit":       "want a rate",
		"limit=1":              "limit=1: want bytes, 2048 to",
		"seed=-1":              "seed=-1: want a number",
		"loss=1%,":             `"": want NAME=VALUE`,
		"delay=1ms,jitter=2ms": "more than the delay of 1ms",
	} {
		if c, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) || c != (Config{}) {
			t.Errorf("%s: %+v, %v, want %s", text, c, err, want)
		}
	}
}

// FuzzParse: what is read is written so that it is read the same, but for chances
// that are finer than what is written.
func FuzzParse(f *testing.F) {
	f.Add("loss=1%,delay=5ms,jitter=1ms,reorder=1%,dup=1%,corrupt=0.1%,seed=7")
	f.Add("rate=1.5gbit,limit=4096,gap=1us,fragment=33.3%")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(c.String())
		if err != nil || again.String() != c.String() {
			t.Fatalf("%q is written as %q and read as %q, %v", text, c, again, err)
		}
	})
}
