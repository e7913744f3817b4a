package nvsp_test

import (
	"fmt"

	"hvnet/nvsp"
)

// A guest asks for a version; the host finds out what it was asked.
func Example() {
	b := nvsp.Init{Min: nvsp.V61, Max: nvsp.V61}.Append(nil)
	b = nvsp.Pad(b, 0, nvsp.MaxSize)

	t, _ := nvsp.PeekType(b)
	m, err := nvsp.ParseInit(b)
	fmt.Println(t, m.Max, len(b), err)
	// Output: INIT 6.1 40 <nil>
}
