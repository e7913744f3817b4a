package impair

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Config says how frames are disturbed. The zero value lets all pass as they are.
type Config struct {
	Loss      float64 // probability of 0 to 1 that a frame is lost
	Duplicate float64 // that it is passed on twice
	Corrupt   float64 // that one bit behind its Ethernet header is changed
	Reorder   float64 // that it is held back for Gap longer, so that others overtake it
	// Fragment is the probability that a fragment of an IP datagram is lost,
	// doubled or held back, each as likely. Other frames do not meet it.
	Fragment float64
	// Unordered is the probability that a fragment is lost that does not come right
	// behind the one before it, as it is where someone puts datagrams together that
	// wants fragments in order.
	Unordered float64

	// Skew is up to how much later the frames of a channel come than those of another
	// one: each channel has a delay of its own, from 0 to Skew. See [nic.Frame.Channel].
	Skew   time.Duration
	Delay  time.Duration // of every frame
	Jitter time.Duration // the delay is Delay ± Jitter; by itself it changes no order
	Gap    time.Duration // how long a frame is held back; 0 means DefaultGap
	Rate   int64         // bits per second of a line that the frames pass; 0: no limit

	// Limit is how many bytes of frames may wait; what comes then is lost. 0
	// means DefaultLimit. A frame is counted as 2048 bytes at least.
	Limit int
	// Seed chooses among the sequences of chances: the same frames under the
	// same seed meet the same fate.
	Seed uint64
}

// What a Config of 0 means.
const (
	DefaultGap   = time.Millisecond
	DefaultLimit = 16 << 20
)

// MaxDelay bounds the times of a Config.
const MaxDelay = time.Minute

// keys are the words of Parse, in the order of Config.String.
var keys = []struct {
	name  string
	field func(*Config) any
}{
	{"loss", func(c *Config) any { return &c.Loss }},
	{"dup", func(c *Config) any { return &c.Duplicate }},
	{"corrupt", func(c *Config) any { return &c.Corrupt }},
	{"reorder", func(c *Config) any { return &c.Reorder }},
	{"fragment", func(c *Config) any { return &c.Fragment }},
	{"unordered", func(c *Config) any { return &c.Unordered }},
	{"skew", func(c *Config) any { return &c.Skew }},
	{"delay", func(c *Config) any { return &c.Delay }},
	{"jitter", func(c *Config) any { return &c.Jitter }},
	{"gap", func(c *Config) any { return &c.Gap }},
	{"rate", func(c *Config) any { return &c.Rate }},
	{"limit", func(c *Config) any { return &c.Limit }},
	{"seed", func(c *Config) any { return &c.Seed }},
}

// Parse reads a Config from text such as "loss=1%,delay=5ms,jitter=1ms,seed=7".
// Probabilities are percentages, times as Go writes them, a rate has one of the
// units bit, kbit, mbit and gbit, a limit is in bytes.
func Parse(text string) (Config, error) {
	var c Config
	seen := map[string]bool{}
	for _, word := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			return Config{}, fmt.Errorf("%q: want NAME=VALUE, such as loss=1%% or delay=5ms", word)
		}
		if seen[name] {
			return Config{}, fmt.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if err := c.set(name, value); err != nil {
			return Config{}, err
		}
	}
	if c.Jitter > c.Delay {
		return Config{}, fmt.Errorf("jitter=%v: more than the delay of %v", c.Jitter, c.Delay)
	}
	return c, nil
}

// set reads one value.
func (c *Config) set(name, value string) (err error) {
	var names []string
	for _, k := range keys {
		names = append(names, k.name)
		if k.name != name {
			continue
		}
		switch f := k.field(c).(type) {
		case *float64:
			*f, err = parsePercent(value)
		case *time.Duration:
			*f, err = time.ParseDuration(value)
			if err != nil || *f < 0 || *f > MaxDelay {
				err = fmt.Errorf("want a time from 0 to %v, such as 5ms", MaxDelay)
			}
		case *int64:
			*f, err = parseRate(value)
		case *int:
			*f, err = strconv.Atoi(value)
			if err != nil || *f < charge || *f > 1<<30 {
				err = fmt.Errorf("want bytes, %d to %d", charge, 1<<30)
			}
		case *uint64:
			if *f, err = strconv.ParseUint(value, 10, 64); err != nil {
				err = fmt.Errorf("want a number from 0 to %d", uint64(math.MaxUint64))
			}
		}
		if err != nil {
			return fmt.Errorf("%s=%s: %w", name, value, err)
		}
		return nil
	}
	return fmt.Errorf("%q is none of %s", name, strings.Join(names, ", "))
}

func parsePercent(s string) (float64, error) {
	number, ok := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return 0, fmt.Errorf("want a percentage from 0%% to 100%%")
	}
	return v / 100, nil
}

// units are those of a rate, the longer names first.
var units = []struct {
	name string
	bits float64
}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1}}

// maxRate is far above what any line has, and far below what overflows.
const maxRate = 1e12

func parseRate(s string) (int64, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(number, 64)
		if bits := v * u.bits; err == nil && bits >= 1 && bits <= maxRate {
			return int64(bits), nil
		}
		break
	}
	return 0, fmt.Errorf("want a rate from 1bit to 1000gbit, such as 100mbit")
}

// String returns the text that Parse reads the Config from.
func (c Config) String() string {
	var words []string
	for _, k := range keys {
		var value string
		switch f := k.field(&c).(type) {
		case *float64:
			if *f != 0 {
				value = strconv.FormatFloat(math.Round(*f*1e14)/1e12, 'f', -1, 64) + "%"
			}
		case *time.Duration:
			if *f != 0 {
				value = f.String()
			}
		case *int64:
			if *f != 0 {
				value = strconv.FormatInt(*f, 10) + "bit"
			}
		case *int:
			if *f != 0 {
				value = strconv.Itoa(*f)
			}
		case *uint64:
			value = strconv.FormatUint(*f, 10)
		}
		if value != "" {
			words = append(words, k.name+"="+value)
		}
	}
	return strings.Join(words, ",")
}
