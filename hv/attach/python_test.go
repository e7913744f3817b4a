package attach_test

import (
	"os/exec"
	"strings"
	"testing"

	"hvnet/hv"
	"hvnet/hv/attach"
	"hvnet/hv/internal/boundary"
	"hvnet/internal/need"
)

// TestPythonGuest lets a guest attach that was written from docs/attach.md alone,
// to a host that knows of VMBus no more than VERSION_RESPONSE.
func TestPythonGuest(t *testing.T) {
	python := need.Tool(t, "python3")
	for _, x := range []struct{ version, want string }{
		{"50003", "version 5.3 supported 1 state 0 connection 1\n"},
		{"60000", "version 6.0 supported 0 state 0 connection 0\n"},
	} {
		l, path := listen(t, attach.ListenConfig{})
		c := exec.Command(python, "testdata/guest.py", path, x.version)
		var out strings.Builder
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		g, h := accept(t, l)
		if h.Name != "python" || h.VPs != 1 || h.Options["nic.mac"] != "00:15:5d:70:79:01" {
			t.Errorf("hello %+v", h)
		}
		boundary.Serve(t, g, boundary.Funcs{OnMessage: func(conn uint32, m *hv.Message) hv.Status {
			b := m.Payload()
			const initiateContact = 14
			if conn != 4 || m.Type != hv.MessageVMBus || len(b) != 40 || b[0] != initiateContact {
				t.Errorf("message % x of type %d to %d", b, m.Type, conn)
				return hv.StatusInvalidParameter
			}
			answer := make([]byte, 16)
			answer[0] = 15 // VERSION_RESPONSE
			if b[10] == 5 && b[8] == 3 {
				answer[8], answer[12] = 1, 1
			}
			if err := g.PostMessage(0, answer); err != nil {
				t.Error(err)
			}
			return hv.StatusSuccess
		}})
		err := c.Wait()
		if err != nil || out.String() != x.want {
			t.Errorf("guest says %q, %v, want %q", out.String(), err, x.want)
		}
		boundary.Await(t, g.Done(), "the host to notice that the guest has left")
	}
}
