package conform

import (
	"fmt"
	"sync"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/rule"
	"hvnet/vmbus"
)

// A Side is who has said something.
type Side bool

// The sides.
const (
	Guest Side = false
	Host  Side = true
)

// String is what lines of the side begin with.
func (s Side) String() string {
	if s == Host {
		return "host<"
	}
	return "guest>"
}

// A Config says where the text goes. Functions may be nil. They are called one at a
// time, and in the order of what happened.
type Config struct {
	// Line takes one line of text, without its end.
	Line func(string)
	// Said takes the same line with what it is the text of. The bytes are only lent.
	Said func(Said)
	// Reached is called when a stage is reached. A guest that connects anew, or opens
	// its channel once more, reaches stages again.
	Reached func(Stage)
	// Broken is called for each rule that the guest breaks: the error is a
	// [rule.Fault].
	Broken func(error)
}

// Said is a line of text, and the message that it decodes if it is one.
type Said struct {
	From     Side
	Protocol string // VMBus, NVSP or RNDIS; empty: it is no message
	Bytes    []byte // of the message
	Text     string
}

// A Transcript writes down what a guest and its host say, as it is told. Its methods
// may be called from any goroutine. What it is told may be anything: it decodes, and
// judges nothing.
type Transcript struct {
	cfg Config

	mu      sync.Mutex
	asked   vmbus.Version // by INITIATE_CONTACT
	nvsp    nvsp.Version
	reached map[Stage]bool
	index   map[uint32]int // of a channel in its device, by relid
	frames  map[transaction]bool
	tally   tally
	bodies  int // GPADL_BODYs since the last one that was written
	faults  map[*rule.Rule]int
}

// A transaction is a packet that waits for its completion.
type transaction struct {
	relid uint32
	tid   uint64
}

// maxFrames is how many frames are remembered until the first is completed.
const maxFrames = 1024

// NewTranscript returns an empty transcript.
func NewTranscript(cfg Config) *Transcript {
	return &Transcript{cfg: cfg, reached: map[Stage]bool{}, index: map[uint32]int{}, frames: map[transaction]bool{},
		tally: tally{}, faults: map[*rule.Rule]int{}}
}

func (t *Transcript) line(format string, args ...any) { t.say(Said{}, format, args...) }

// say is line for a message.
func (t *Transcript) say(what Said, format string, args ...any) {
	what.Text = fmt.Sprintf(format, args...)
	if t.cfg.Line != nil {
		t.cfg.Line(what.Text)
	}
	if t.cfg.Said != nil {
		t.cfg.Said(what)
	}
}

// reach notes a stage.
func (t *Transcript) reach(s Stage) {
	if t.reached[s] {
		return
	}
	t.reached[s] = true
	t.line("stage %s reached", s)
	if t.cfg.Reached != nil {
		t.cfg.Reached(s)
	}
}

// leave takes stages back that belong to something that begins anew.
func (t *Transcript) leave(from Stage) {
	for i := len(stages) - 1; i >= 0; i-- {
		delete(t.reached, stages[i])
		if stages[i] == from {
			return
		}
	}
}

// Broken writes down a rule that the guest has broken: with its text and the place
// where it is written the first time, and each time that the number of times doubles.
func (t *Transcript) Broken(err error) {
	f := rule.Of(err)
	if f == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[f.Rule]++
	switch n := t.faults[f.Rule]; {
	case n == 1:
		t.line("fault  %v", err)
		t.line("       broken rule %s: %s", f.Rule.Name, f.Rule.Text)
		t.line("       written in %s", f.Source)
	case n&(n-1) == 0:
		t.line("fault  %v (rule %s, %d times so far)", err, f.Rule.Name, n)
	}
	if t.cfg.Broken != nil {
		t.cfg.Broken(err)
	}
}

// Message writes down a control message of the bus.
func (t *Transcript) Message(from Side, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	typ, err := vmbus.PeekType(b)
	if err != nil {
		t.say(Said{From: from, Protocol: "VMBus", Bytes: b}, "%-6s %v", from, err)
		return
	}
	if typ == vmbus.TypeGPADLBody {
		if t.bodies++; t.bodies > 1 {
			return
		}
	} else if t.bodies > 1 {
		t.line("%-6s … %d more GPADL_BODY", Guest, t.bodies-1)
	}
	if typ != vmbus.TypeGPADLBody {
		t.bodies = 0
	}
	m, err := parseMessage(typ, b, t.asked)
	t.write(Said{From: from, Protocol: "VMBus", Bytes: b}, "", typ, m, err, fmt.Sprintf("%d bytes", len(b)))
	t.follow(m)
}

// follow takes from a message what later ones need, and the stages.
func (t *Transcript) follow(m any) {
	switch m := m.(type) {
	case vmbus.InitiateContact:
		t.asked = m.Version
		t.leave(StageVersion)
		clear(t.index)
	case vmbus.VersionResponse:
		if m.Supported && m.State == vmbus.ConnectionOK {
			t.reach(StageVersion)
		}
	case vmbus.AllOffersDelivered:
		t.reach(StageOffers)
	case vmbus.Offer:
		t.index[m.Relid] = int(m.SubChannel)
	case vmbus.GPADLCreated:
		if m.Status == vmbus.StatusSuccess {
			t.reach(StageGPADL)
		}
	case vmbus.OpenResult:
		switch {
		case m.Status != vmbus.StatusSuccess:
		case t.index[m.Relid] == 0:
			t.leave(StageNVSP)
			t.reach(StageOpen)
		default:
			t.reach(StageSubChannels)
		}
	case vmbus.CloseChannel:
		t.ended(m.Relid)
	}
}

// Packet writes down a packet of a channel. b is the packet, descriptor first, and
// content what it carries elsewhere, as far as that is known: an RNDIS message, or the
// beginning of the first frame. Of what there may be a lot of, frames and plain
// completions, the first of each kind is written, and then how many there were.
func (t *Transcript) Packet(from Side, relid uint32, b, content []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, err := vmbus.ParsePacket(b)
	if err != nil {
		t.say(Said{From: from, Protocol: "VMBus", Bytes: b}, "%-6s relid %d: %v", from, relid, err)
		return
	}
	what := Said{From: from, Protocol: "NVSP", Bytes: p.Payload}
	typ, err := nvsp.PeekType(p.Payload)
	if err != nil { // no payload
		if t.tally.first(t, kind{from, relid, "empty completions"}) {
			t.say(what, "%-6s relid %d: %s", from, relid, carrier(&p))
		}
		return
	}
	m, err := parseNVSP(typ, p.Payload, from, t.nvsp)
	switch m := m.(type) {
	case nvsp.RNDISPacket:
		t.rndis(from, relid, &p, m, content)
		return
	case nvsp.RNDISPacketComplete:
		if m.Status != nvsp.StatusSuccess || t.tally.first(t, kind{from, relid, "completions of RNDIS packets"}) {
			t.write(what, relidText(relid), typ, m, err, carrier(&p))
		}
		t.completed(from, relid, &p, m)
		return
	}
	t.write(what, relidText(relid), typ, m, err, carrier(&p))
	t.followNVSP(m)
}

func relidText(relid uint32) string { return fmt.Sprintf("relid %d: ", relid) }

// write writes the line of a message.
func (t *Transcript) write(what Said, where string, typ fmt.Stringer, m any, err error, how string) {
	text := ""
	switch {
	case err != nil:
		text = " " + err.Error()
	case m != nil:
		if text = fields(m); text != "" {
			text = " " + text
		}
	}
	t.say(what, "%-6s %s%v%s (%s)", what.From, where, typ, text, how)
}

// followNVSP takes from an NVSP message what later ones need, and the stages.
func (t *Transcript) followNVSP(m any) {
	switch m := m.(type) {
	case nvsp.Init:
		t.nvsp = m.Max
	case nvsp.InitComplete:
		if m.Status == nvsp.StatusSuccess {
			t.reach(StageNVSP)
		}
	case nvsp.SendReceiveBufferComplete:
		if m.Status == nvsp.StatusSuccess {
			t.reach(StageBuffers)
		}
	}
}

// rndis writes down a packet with RNDIS messages, and the first of them.
func (t *Transcript) rndis(from Side, relid uint32, p *vmbus.Packet, m nvsp.RNDISPacket, content []byte) {
	h, err := rndis.ParseHeader(content, 1<<31)
	isFrame := err == nil && h.Type == rndis.TypePacket || err != nil && m.Channel == nvsp.ChannelData
	if isFrame {
		what := "frames"
		if from == Guest {
			if what = "frames in send sections"; m.Section == nvsp.NoSection {
				what = "frames in pages"
			}
			t.sent(relid, p)
		}
		if !t.tally.first(t, kind{from, relid, "packets with " + what}) {
			return
		}
	}
	t.write(Said{From: from, Protocol: "NVSP", Bytes: p.Payload}, relidText(relid), nvsp.TypeRNDISPacket, m, nil, carrier(p))
	what := Said{From: from, Protocol: "RNDIS", Bytes: content}
	if err != nil {
		t.say(what, "%-6s relid %d:   RNDIS: %v", from, relid, err)
		return
	}
	r, err := parseRNDIS(h.Type, content)
	t.write(what, relidText(relid)+"  RNDIS ", h.Type, r, err, fmt.Sprintf("%d bytes", h.Length))
	if c, ok := r.(rndis.InitializeComplete); ok && from == Host && c.Status == rndis.StatusSuccess {
		t.reach(StageRNDIS)
	}
}

// sent notes a frame of the guest, until the first was completed.
func (t *Transcript) sent(relid uint32, p *vmbus.Packet) {
	if !t.reached[StageData] && len(t.frames) < maxFrames {
		t.frames[transaction{relid, p.TID}] = true
	}
}

// completed looks for the frame that a completion of the host is for.
func (t *Transcript) completed(from Side, relid uint32, p *vmbus.Packet, m nvsp.RNDISPacketComplete) {
	key := transaction{relid, p.TID}
	if from != Host || !t.frames[key] {
		return
	}
	delete(t.frames, key)
	if m.Status == nvsp.StatusSuccess {
		clear(t.frames)
		t.reach(StageData)
	}
}

// carrier says how a payload was sent.
func carrier(p *vmbus.Packet) string {
	kind := fmt.Sprintf("packet type %d", p.Type)
	switch p.Type {
	case vmbus.PacketInBand:
		kind = "in-band"
	case vmbus.PacketTransferPages:
		kind = "transfer pages"
		if _, ranges, err := p.TransferPages(make([]vmbus.ByteRange, 0, maxRanges)); err == nil {
			kind += fmt.Sprintf(", %d ranges", len(ranges))
		}
	case vmbus.PacketGPADirect:
		kind = "GPA direct"
		if spans, total, err := p.GPASpans(make([]vmbus.Span, 0, maxSpans), 1<<20); err == nil {
			kind += fmt.Sprintf(", %d bytes in %d runs of pages", total, len(spans))
		}
	case vmbus.PacketCompletion:
		kind = "completion"
	}
	kind += fmt.Sprintf(", %d bytes, tid %#x", len(p.Payload), p.TID)
	if p.CompletionRequested() {
		kind += ", wants completion"
	}
	return kind
}
