package netvsc

import (
	"hvnet/counter"
	"hvnet/nic"
)

// send sends frames by the VF. queue says whose frames they are. The caller holds the gate,
// shared, so that the VF is not let go of meanwhile.
func (p *VFPort) send(s *session, queue int, frames []nic.Frame) {
	from, packets, bytes := 0, 0, 0
	for i := range frames {
		n := frames[i].Len()
		if s.sendable(n, frames[i].Offload) {
			packets, bytes = packets+1, bytes+n
			continue
		}
		p.write(frames[from:i])
		from = i + 1
	}
	p.write(frames[from:])
	if packets == 0 {
		return
	}
	p.n.count.Add(counter.VFTxPackets, uint64(packets))
	p.n.count.Add(counter.VFTxBytes, uint64(bytes))
	if q := s.channel(queue); q != nil {
		q.count.Add(counter.QueueVFTxPackets, uint64(packets))
		q.count.Add(counter.QueueVFTxBytes, uint64(bytes))
		if spell := p.n.look.spell.Load(); spell != 0 {
			for i := range frames {
				q.txFlows.note(frames[i].Head, spell)
			}
		}
	}
}

func (p *VFPort) write(frames []nic.Frame) {
	if len(frames) > 0 {
		p.out.WriteFrames(frames)
	}
}

// vfMemory is how much memory a pump has for frames that go by a VF, in bytes: a batch of
// frames of the usual MTU, or a few that are to be cut.
const vfMemory = 4 * maxLarge

// A vfRound is the memory of a pump for a round of frames that go by a VF. There are no
// sections to read them into, so they are read here.
type vfRound struct {
	mem    [vfMemory]byte
	frames [pumpBatch + 1]nic.Frame
	bodies [pumpBatch][1][]byte
}

// roundVF is round while a VF is in use.
func (p *pump) roundVF(port *VFPort, s *session) error {
	if p.vf == nil {
		p.vf = new(vfRound)
	}
	r := p.vf
	frames := r.frames[:0]
	if t := p.send; t != nil && t.kept.waiting() {
		if t.s == s { // read before the path has moved
			frames = append(frames, t.kept.frame)
			t.kept.frame = nic.Frame{}
		} else {
			t.dropKept()
		}
	}
	src := p.src
	if p.via != nil {
		src = p.via.Batch()
	}
	var err error
	for i, at := 0, 0; i < pumpBatch && at+maxLarge <= len(r.mem); i++ {
		var n int
		var m nic.Offload
		if n, m, err = src.ReadFrame(r.mem[at:], nil); err != nil {
			break
		}
		b := r.mem[at : at+n]
		f := nic.Frame{Head: b, Offload: m}
		if n > nic.HeadLen {
			r.bodies[i][0] = b[nic.HeadLen:]
			f.Head, f.Body = b[:nic.HeadLen:nic.HeadLen], r.bodies[i][:]
		}
		frames = append(frames, f)
		at += n
	}
	if len(frames) > 0 {
		port.send(s, p.at, frames)
	}
	return err
}
