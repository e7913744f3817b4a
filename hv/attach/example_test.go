package attach_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"hvnet/hv"
	"hvnet/hv/attach"
)

// echo answers a message with its payload, on VP 0.
type echo struct{ guest hv.Guest }

func (e echo) Messages(conn uint32, m []hv.Message) hv.Status {
	if e.guest.PostMessage(0, m[0].Payload()) != nil {
		return hv.StatusInsufficientBuffers
	}
	return hv.StatusSuccess
}

func (e echo) Signal(conn uint32) {}

func Example() {
	dir, err := os.MkdirTemp("", "attach")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "host")

	// The host.
	l, err := attach.Listen(path, attach.ListenConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		g, hello, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		fmt.Println("host: attached", hello.Name)
		g.Serve(echo{g})
	}()

	// The guest, in another process as a rule.
	p, err := attach.Dial(context.Background(), path, attach.Hello{Name: "g1", VPs: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := p.PostMessage(1, []byte("hello")); err != nil {
		fmt.Println(err)
	}
	var m hv.Message
	for !p.TakeMessage(0, &m) {
		if err := p.Wait(0); err != nil {
			fmt.Println(err)
			break
		}
	}
	fmt.Printf("guest: got %q\n", m.Payload())
	p.Close()
	<-served
	// Output:
	// host: attached g1
	// guest: got "hello"
}
