package impair_test

import (
	"fmt"

	"hvnet/link/impair"
	"hvnet/nic"
)

// A counter counts frames.
type counter struct{ n int }

func (c *counter) WriteFrames(frames []nic.Frame) { c.n += len(frames) }

// A line that loses every tenth frame, by chance but always the same ones.
func Example() {
	cfg, err := impair.Parse("loss=10%,seed=7")
	if err != nil {
		fmt.Println(err)
		return
	}
	var far counter
	line := impair.New(cfg, &far)
	defer line.Close()
	for range 1000 {
		line.WriteFrames([]nic.Frame{{Head: make([]byte, 60)}})
	}
	fmt.Println(far.n, "arrived,", line.Info().Lost, "lost")
	// Output: 896 arrived, 104 lost
}
