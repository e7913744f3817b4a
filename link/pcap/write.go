package pcap

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"hvnet/nic"
)

// Write writes the capture to w as it comes, until ctx ends or the number of packets is
// reached, and closes it with the counts. It ends the capture in any case. An error of w
// is returned; the end of ctx is none.
//
// A packet has as options its direction (epb_flags), the channel (epb_queue) and the
// Toeplitz hash (epb_hash) where they are known, and a comment with its path and what it
// leaves to be done. A message is a packet of a second interface, in a form that Wireshark
// shows, with its text as comment.
func (c *Capture) Write(ctx context.Context, w io.Writer) error {
	defer c.stop()
	begin := time.Now()
	// A writer that has a buffer of its own gets none from pcapgo.
	ng, err := pcapgo.NewNgWriterInterface(bufio.NewWriterSize(w, writeBytes), pcapgo.NgInterface{
		Name: c.cfg.Name, Description: c.cfg.About, OS: runtime.GOOS,
		LinkType: layers.LinkTypeEthernet, SnapLength: uint32(c.cfg.Snaplen),
	}, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "hvnet",
	}})
	if err == nil && c.cfg.Messages {
		_, err = ng.AddInterface(pcapgo.NgInterface{
			Name: c.cfg.Name + " messages", Description: "what guest and host say", LinkType: linkTypeUpperPDU,
		})
	}
	if err == nil {
		err = ng.Flush() // who waits for the capture to begin sees that it has
	}
	got, done := newStock(), false
	for err == nil && !done {
		select {
		case <-c.ready:
		case <-ctx.Done():
			c.stop()
		}
		got, done = c.swap(got)
		err = writePackets(ng, &got)
	}
	if err == nil {
		c.stop()
		n := c.Counts()
		err = ng.WriteInterfaceStats(0, pcapgo.NgInterfaceStatistics{
			LastUpdate: time.Now(), StartTime: begin, EndTime: time.Now(),
			PacketsReceived: n.Captured + n.Dropped, PacketsDropped: n.Dropped,
		})
	}
	if err == nil {
		err = ng.Flush()
	}
	if err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

// writeBytes is how much is written at once: a small part of it at a time would cost most of
// the speed.
const writeBytes = 256 << 10

func writePackets(ng *pcapgo.NgWriter, s *stock) error {
	data := s.data
	for i := range s.packets {
		p := &s.packets[i]
		ci := gopacket.CaptureInfo{Timestamp: time.Unix(0, p.at), CaptureLength: int(p.kept), Length: int(p.whole)}
		if p.message != nil {
			ci.InterfaceIndex = 1
		}
		if err := ng.WritePacketWithOptions(ci, data[:p.kept], p.options()); err != nil {
			return err
		}
		data = data[p.kept:]
	}
	return ng.Flush()
}

// options are what the packet has besides its data.
func (p *packet) options() (o pcapgo.NgPacketOptions) {
	o.Flags = &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}
	if p.direction() == Outbound {
		o.Flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	if p.queue >= 0 {
		q := uint32(p.queue)
		o.Queue = &q
	}
	if p.kind != nic.HashNone {
		o.Hashes = []pcapgo.NgEpbHash{{
			Algorithm: pcapgo.NgEpbHashAlgorithmToeplitz, Hash: binary.BigEndian.AppendUint32(nil, p.hash),
		}}
	}
	if text := p.comment(); text != "" {
		o.Comments = []string{text}
	}
	return o
}

var (
	checksumText = [...]string{nic.ChecksumPartial: "checksum to be completed", nic.ChecksumOK: "checksum verified", nic.ChecksumBad: "checksum wrong"}
	segmentText  = [...]string{nic.SegmentTCPv4: "TCP segments", nic.SegmentTCPv6: "TCP segments", nic.SegmentUDP: "UDP datagrams"}
)

func (p *packet) direction() Direction {
	if p.message != nil {
		return p.message.Direction
	}
	return p.place.Direction
}

// comment says what no option says.
func (p *packet) comment() string {
	if p.message != nil {
		return p.message.Text
	}
	var words []string
	switch {
	case p.vf:
		words = append(words, "path "+VF)
	case p.place.Path != "":
		words = append(words, "path "+p.place.Path)
	}
	if p.offload.Checksum != nic.ChecksumUnknown {
		words = append(words, checksumText[p.offload.Checksum])
	}
	if p.offload.Segment != nic.SegmentNone {
		words = append(words, fmt.Sprintf("to be cut into %s of %d bytes", segmentText[p.offload.Segment], p.offload.Size))
	}
	return strings.Join(words, ", ")
}
