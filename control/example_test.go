package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"hvnet/control"
)

func Example() {
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	path := filepath.Join(dir, "host.ctl")
	s, err := control.Serve(path, map[string]control.Handler{
		"add": func(_ context.Context, args []byte) (any, error) {
			var n [2]int
			err := json.Unmarshal(args, &n)
			return n[0] + n[1], err
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	var sum int
	err = control.Call(context.Background(), path, "add", [2]int{40, 2}, &sum)
	fmt.Println(sum, err)
	// Output: 42 <nil>
}
