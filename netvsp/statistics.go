package netvsp

import "hvnet/rndis"

// The statistics are those that NDIS has every adapter keep, from the guest's point
// of view: what the guest sends is transmitted. They are of the port, so they go on
// when its guest changes.

func statistic(v uint64) ([]byte, rndis.Status) {
	return rndis.AppendUint32(nil, uint32(v)), rndis.StatusSuccess // they wrap
}

func transmitOK(a *adapter, _ []byte) ([]byte, rndis.Status) {
	return statistic(a.total().txFrames.Load())
}

func receiveOK(a *adapter, _ []byte) ([]byte, rndis.Status) {
	return statistic(a.total().rxFrames.Load())
}

func transmitError(a *adapter, _ []byte) ([]byte, rndis.Status) {
	var n uint64
	t := a.total()
	for i := range t.txDropped {
		n += t.txDropped[i].Load()
	}
	return statistic(n)
}

// receiveNoBuffer counts what the guest left no room for.
func receiveNoBuffer(a *adapter, _ []byte) ([]byte, rndis.Status) {
	var n uint64
	t := a.total()
	for _, d := range [...]Drop{DropNoBuffer, DropNoSection, DropRingFull} {
		n += t.rxDropped[d].Load()
	}
	return statistic(n)
}
