package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"hvnet/control"
	"hvnet/guest"
	"hvnet/host"
	"hvnet/link/pcap"
)

// captureFlags say how to capture, of either half of a NIC.
type captureFlags struct {
	Write   string `short:"w" default:"-" placeholder:"FILE" help:"Where the capture goes, as pcapng; - is the standard output, for: hvnet capture -w - | wireshark -k -i -"`
	Count   int    `short:"c" placeholder:"N" help:"End after N packets; default: when interrupted."`
	Snaplen int    `short:"s" placeholder:"BYTES" help:"Keep no more of a packet; default: all of it."`
}

// captureCmd captures the frames of an interface.
type captureCmd struct {
	Interface string `short:"i" default:"eth0" placeholder:"IFACE" help:"The interface; default: eth0."`
	captureFlags
}

// Run captures until it is interrupted, or the driver ends.
func (c *captureCmd) Run(ctx context.Context, s streams) error {
	return c.capture(ctx, s, c.Interface, func(ctx context.Context, args captureArgs) (*net.UnixConn, error) {
		arg := ifaceArg{Iface: c.Interface}
		d, err := arg.driver(ctx)
		if err != nil {
			return nil, err
		}
		return d.Stream(ctx, methodCapture, args)
	})
}

// hostCaptureCmd captures the frames of a port of the switch.
type hostCaptureCmd struct {
	portArgs
	captureFlags
	Protocol bool `help:"With the messages of VMBus, NVSP and RNDIS, decoded, from the time on that the guest attaches."`
}

// Run captures until it is interrupted, or the host ends.
func (h *hostCaptureCmd) Run(ctx context.Context, c *commands, s streams) error {
	var ports []host.PortInfo
	if err := c.Host.Ctl.Path.ask(ctx, "ports", nil, &ports); err != nil {
		return err
	}
	i := slices.IndexFunc(ports, func(p host.PortInfo) bool { return p.Switch.Name == h.Port })
	switch {
	case i < 0:
		fmt.Fprintf(s.err, "no port %s yet: waiting for it\n", h.Port)
	case h.Protocol && !ports[i].Watched:
		fmt.Fprintf(s.err, "port %s: nobody listens to what is said there, but will when a guest attaches anew\n", h.Port)
	}
	return h.capture(ctx, s, "port "+h.Port, func(ctx context.Context, args captureArgs) (*net.UnixConn, error) {
		args.Port, args.Messages = h.Port, h.Protocol
		p := &c.Host.Ctl.Path
		conn, err := control.Open(ctx, ctlPath(p.Path), methodCapture, args)
		return conn, p.explain(err)
	})
}

// methodCapture is the method of a driver's or a host's socket that captures: after the
// reply the file comes, until the client shuts its side down.
const methodCapture = "capture"

// captureArgs are its arguments.
type captureArgs struct {
	Port    string `json:"port,omitempty"` // of a host
	Count   int    `json:"count"`
	Snaplen int    `json:"snaplen"`
	// Messages has a host's messages captured too.
	Messages bool `json:"messages,omitempty"`
}

// finishTime is how long a capture may take to come to its end.
const finishTime = 5 * time.Second

// capture has somebody capture and writes the file.
func (f *captureFlags) capture(ctx context.Context, s streams, what string, begin func(context.Context, captureArgs) (*net.UnixConn, error)) (err error) {
	if f.Count < 0 {
		return usagef("-c %d: want a number of packets", f.Count)
	}
	if f.Snaplen < 0 || f.Snaplen > pcap.MaxSnaplen {
		return usagef("--snaplen %d: want 1 to %d bytes", f.Snaplen, pcap.MaxSnaplen)
	}
	out := s.out
	if f.Write == "-" && newReport(s.out).terminal {
		return usagef("a capture is nothing for a terminal: want -w FILE, or a pipe")
	}
	conn, err := begin(ctx, captureArgs{Count: f.Count, Snaplen: f.Snaplen})
	if err != nil {
		return err
	}
	defer conn.Close()
	if f.Write != "-" {
		file, err := os.OpenFile(f.Write, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	defer context.AfterFunc(ctx, func() {
		conn.SetReadDeadline(time.Now().Add(finishTime))
		conn.CloseWrite()
	})()
	n, err := receive(conn, out, func() { fmt.Fprintf(s.err, "capturing on %s\n", what) })
	if n.Captured > 0 || err == nil {
		fmt.Fprintf(s.err, "%d packets captured, %d dropped\n", n.Captured, n.Dropped)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("capture on %s: whoever captured is gone, the end is missing", what)
	}
	if err != nil {
		return fmt.Errorf("capture on %s: %w", what, err)
	}
	return nil
}

// receive copies a capture to a file and counts. It calls begun when the capture has
// begun. A capture without its end is an io.EOF.
func receive(from io.Reader, to io.Writer, begun func()) (n pcap.Counts, err error) {
	r, err := pcapgo.NewNgReader(bufio.NewReaderSize(io.TeeReader(from, to), 256<<10), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return n, err
	}
	begun()
	for {
		if _, _, err := r.ZeroCopyReadPacketData(); err == io.EOF {
			break
		} else if err != nil {
			return n, err
		}
		n.Captured++
	}
	i, err := r.Interface(0)
	if err != nil {
		return n, err
	}
	if i.Statistics.LastUpdate.IsZero() {
		return n, io.EOF
	}
	n.Dropped = i.Statistics.PacketsDropped
	return n, nil
}

// streamCapture is the handler of methodCapture. begin begins a capture, done is called
// when it is over.
func streamCapture(begin func(captureArgs) (c *pcap.Capture, done func(), err error)) control.StreamHandler {
	return func(_ context.Context, b []byte) (func(context.Context, *net.UnixConn), error) {
		var args captureArgs
		if err := json.Unmarshal(b, &args); err != nil {
			return nil, fmt.Errorf("arguments: %w: %w", control.ErrMalformed, err)
		}
		c, done, err := begin(args)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, conn *net.UnixConn) {
			defer done()
			ctx, cancel := context.WithCancel(ctx)
			left := make(chan struct{})
			go func() {
				defer close(left)
				conn.Read(make([]byte, 1)) // it has no more to say: it is done, or gone
				cancel()
			}()
			c.Write(ctx, conn) // an error is that the client is gone
			conn.CloseWrite()
			conn.SetReadDeadline(time.Unix(1, 0))
			<-left
		}, nil
	}
}

// captureGuest captures the frames of a guest's NIC.
func captureGuest(g *guest.Guest, iface string) control.StreamHandler {
	return streamCapture(func(a captureArgs) (*pcap.Capture, func(), error) {
		c, err := g.Capture(pcap.Config{Name: iface, About: "Hyper-V NIC of a guest of hvnet", Count: a.Count, Snaplen: a.Snaplen})
		return c, func() {}, err
	})
}

// capturePort captures the frames of a host's port.
func capturePort(h *host.Host) control.StreamHandler {
	return streamCapture(func(a captureArgs) (*pcap.Capture, func(), error) {
		return h.Capture(a.Port, pcap.Config{Name: a.Port, About: "port of the switch of hvnet", Count: a.Count, Snaplen: a.Snaplen, Messages: a.Messages})
	})
}
