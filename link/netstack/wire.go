package netstack

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hvnet/nic"
)

// wire is the Ethernet interface of a stack: a stack.LinkEndpoint whose outbound
// packets go to a queue and whose inbound packets come from deliver.
type wire struct {
	mac tcpip.LinkAddress
	mtu int
	out *queue

	mu         sync.RWMutex // held shared while packets are delivered
	dispatcher stack.NetworkDispatcher

	// Batches come from several goroutines, so there is more than one receiver.
	receivers sync.Pool

	rxFrames, rxBytes, rxForeign, rxBad, rxChecksum atomic.Uint64
}

// defaultMTU is Ethernet's.
const defaultMTU = 1500

func newWire(mac nic.MAC, mtu int) *wire {
	w := &wire{
		mac: tcpip.LinkAddress(mac[:]),
		mtu: mtu,
		out: newQueue(nic.HeaderLen + mtu),
	}
	w.receivers.New = func() any { return newReceiver() }
	return w
}

// deliver hands frames to the stack, which copies them. A nil admit lets all
// through; else it decides about each. Frames for other stations are
// counted and dropped.
func (w *wire) deliver(frames []nic.Frame, admit func(*nic.Frame) bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.dispatcher == nil {
		return
	}
	r := w.receivers.Get().(*receiver)
	r.up, r.bad = w.dispatcher, 0
	frameCount, byteCount := 0, 0
	for i := range frames {
		f := &frames[i]
		n := f.Len()
		// The stack is never given more than it was configured for.
		if len(f.Head) < nic.HeaderLen || n > nic.HeaderLen+w.mtu {
			w.rxBad.Add(1)
			continue
		}
		kind := w.kind(f.Head)
		if kind == tcpip.PacketOtherHost {
			w.rxForeign.Add(1)
			continue
		}
		if admit != nil && !admit(f) {
			continue
		}
		view := buffer.NewViewSize(n)
		f.CopyTo(view.AsSlice())
		// The receiver wants the packet to begin with its network header.
		view.TrimFront(header.EthernetMinimumSize)
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(view)})
		pkt.PktType = kind
		pkt.NetworkProtocolNumber = header.Ethernet(f.Head).Type()
		r.add(pkt)
		pkt.DecRef()
		frameCount++
		byteCount += n
	}
	r.flush()
	w.rxChecksum.Add(uint64(r.bad))
	r.up = nil
	w.receivers.Put(r)
	w.rxFrames.Add(uint64(frameCount))
	w.rxBytes.Add(uint64(byteCount))
}

// kind says whom a frame is for.
func (w *wire) kind(eth header.Ethernet) tcpip.PacketType {
	switch dst := eth.DestinationAddress(); {
	case dst == w.mac:
		return tcpip.PacketHost
	case dst == header.EthernetBroadcastAddress:
		return tcpip.PacketBroadcast
	case header.IsMulticastEthernetAddress(dst):
		return tcpip.PacketMulticast
	default:
		return tcpip.PacketOtherHost
	}
}

// WritePackets implements stack.LinkWriter. It never blocks and takes all: a full
// queue is a lost packet, as on any Ethernet.
func (w *wire) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	list := pkts.AsSlice()
	for _, pkt := range list {
		w.out.put(pkt)
	}
	return len(list), nil
}

// Attach implements stack.NetworkLinkEndpoint. With nil it returns when no packet
// is being delivered any more.
func (w *wire) Attach(d stack.NetworkDispatcher) {
	w.mu.Lock()
	w.dispatcher = d
	w.mu.Unlock()
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (w *wire) IsAttached() bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.dispatcher != nil
}

// AddHeader implements stack.NetworkLinkEndpoint.
func (w *wire) AddHeader(pkt *stack.PacketBuffer) {
	eth := header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize))
	eth.Encode(&header.EthernetFields{
		SrcAddr: pkt.EgressRoute.LocalLinkAddress,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (w *wire) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// MTU implements stack.NetworkLinkEndpoint: the largest IP packet.
func (w *wire) MTU() uint32 { return uint32(w.mtu) }

// SetMTU implements stack.NetworkLinkEndpoint. The MTU is fixed.
func (w *wire) SetMTU(uint32) {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (w *wire) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (w *wire) LinkAddress() tcpip.LinkAddress { return w.mac }

// SetLinkAddress implements stack.NetworkLinkEndpoint. The address is fixed.
func (w *wire) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.NetworkLinkEndpoint; see receiver for checksums.
func (w *wire) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (w *wire) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// Wait implements stack.NetworkLinkEndpoint. The wire has no goroutine of its own.
func (w *wire) Wait() {}

// Close implements stack.NetworkLinkEndpoint.
func (w *wire) Close() { w.Attach(nil) }

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (w *wire) SetOnCloseAction(func()) {}

// GSOMaxSize implements stack.GSOEndpoint.
func (w *wire) GSOMaxSize() uint32 { return 1 << 16 }

// SupportedGSO implements stack.GSOEndpoint: TCP hands large segments through the
// stack once and cuts them at its lower end.
func (w *wire) SupportedGSO() stack.SupportedGSO { return stack.GVisorGSOSupported }

// stats returns the counters of the wire, as seen from the stack.
func (w *wire) stats() []nic.Stat {
	w.out.mu.Lock()
	defer w.out.mu.Unlock()
	return []nic.Stat{
		{Name: "rx_packets", Value: w.rxFrames.Load()},
		{Name: "rx_bytes", Value: w.rxBytes.Load()},
		{Name: "rx_foreign", Value: w.rxForeign.Load()},
		{Name: "rx_malformed", Value: w.rxBad.Load()},
		{Name: "rx_checksum_bad", Value: w.rxChecksum.Load()},
		{Name: "tx_packets", Value: w.out.frames},
		{Name: "tx_bytes", Value: w.out.bytes},
		{Name: "tx_dropped", Value: w.out.dropped},
	}
}
