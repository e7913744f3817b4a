package netvsc

import (
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/nic"
	"hvnet/rndis"
)

// A seen is what somebody who watches the link was told, and when.
type seen struct {
	after time.Duration
	state nic.LinkState
}

// watchLink runs a link that is up for an hour, has script indicate what it likes,
// and returns what was told.
func watchLink(t *testing.T, script func(indicate func(s rndis.Status, info ...byte))) (told []seen) {
	synctest.Test(t, func(t *testing.T) {
		var l link
		l.init()
		l.state = nic.LinkState{Up: true, Mbps: 10}
		start := time.Now()
		l.onChange = func(s nic.LinkState) { told = append(told, seen{time.Since(start), s}) }
		done := make(chan struct{})
		go l.run(done)
		script(func(s rndis.Status, info ...byte) {
			l.indicate(rndis.IndicateStatus{Status: s, Info: info})
			synctest.Wait()
		})
		time.Sleep(time.Hour)
		close(done)
		synctest.Wait()
	})
	return told
}

var (
	linkUp   = nic.LinkState{Up: true, Mbps: 10}
	linkDown = nic.LinkState{Mbps: 10}
)

const (
	connect    = rndis.StatusMediaConnect
	disconnect = rndis.StatusMediaDisconnect
	moved      = rndis.StatusNetworkChange
)

// The timing is that of hv_netvsc (netvsc_link_change).
func TestLinkEvents(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		script func(indicate func(rndis.Status, ...byte))
		want   []seen
	}{
		"the first at once": {func(indicate func(rndis.Status, ...byte)) {
			indicate(disconnect)
		}, []seen{{0, linkDown}}},
		"one in two seconds": {func(indicate func(rndis.Status, ...byte)) {
			indicate(disconnect)
			indicate(connect)
			indicate(disconnect)
		}, []seen{{0, linkDown}, {2 * s, linkUp}, {4 * s, linkDown}}},
		"later ones at once too": {func(indicate func(rndis.Status, ...byte)) {
			indicate(disconnect)
			time.Sleep(1500 * time.Millisecond)
			indicate(connect) // waits
			time.Sleep(5 * s)
			indicate(disconnect)
		}, []seen{{0, linkDown}, {2 * s, linkUp}, {6500 * time.Millisecond, linkDown}}},
		"connect of a link that is up is announced": {func(indicate func(rndis.Status, ...byte)) {
			indicate(connect)
		}, []seen{{0, linkUp}}},
		"disconnect of a link that is down is nothing, and takes its time": {func(indicate func(rndis.Status, ...byte)) {
			indicate(disconnect)
			indicate(disconnect)
			indicate(connect)
		}, []seen{{0, linkDown}, {4 * s, linkUp}}},
		"another network: down for two seconds": {func(indicate func(rndis.Status, ...byte)) {
			indicate(moved)
		}, []seen{{0, linkDown}, {2 * s, linkUp}}},
		"another network: its connect comes before what waits": {func(indicate func(rndis.Status, ...byte)) {
			indicate(connect)
			indicate(moved)
			indicate(disconnect)
		}, []seen{{0, linkUp}, {2 * s, linkDown}, {4 * s, linkUp}, {6 * s, linkDown}}},
		"another network while down": {func(indicate func(rndis.Status, ...byte)) {
			indicate(disconnect)
			indicate(moved)
			indicate(connect)
		}, []seen{{0, linkDown}, {4 * s, linkUp}}},
		"another speed at once, and without a change of the rest": {func(indicate func(rndis.Status, ...byte)) {
			indicate(disconnect)
			indicate(connect)
			indicate(rndis.StatusLinkSpeedChange, rndis.AppendUint32(nil, rndis.LinkSpeed(25))...)
		}, []seen{{0, linkDown}, {0, nic.LinkState{Mbps: 25}}, {2 * s, nic.LinkState{Up: true, Mbps: 25}}}},
		"the same speed, and half of one": {func(indicate func(rndis.Status, ...byte)) {
			indicate(rndis.StatusLinkSpeedChange, rndis.AppendUint32(nil, rndis.LinkSpeed(10))...)
			indicate(rndis.StatusLinkSpeedChange, 1, 2)
		}, nil},
		"not about the link": {func(indicate func(rndis.Status, ...byte)) {
			indicate(rndis.StatusTaskOffloadCurrentConfig, 1, 2, 3, 4)
			indicate(0x40010099)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := watchLink(t, c.script); !slices.Equal(got, c.want) {
				t.Errorf("got %v\nwant %v", got, c.want)
			}
		})
	}
}

// A host that indicates without end is not remembered without end, and its last word
// counts.
func TestLinkStorm(t *testing.T) {
	told := watchLink(t, func(indicate func(rndis.Status, ...byte)) {
		for range 10000 {
			indicate(connect)
			indicate(disconnect)
		}
	})
	if n := len(told); n > maxLinkEvents+1 {
		t.Errorf("%d changes of the link", n)
	}
	if last := told[len(told)-1]; last.state != linkDown || last.after > (maxLinkEvents+1)*linkInterval {
		t.Errorf("in the end %+v", last)
	}
}

// What waits when the host is asked for the state is older than the answer.
func TestLinkForget(t *testing.T) {
	var l link
	l.init()
	l.indicate(rndis.IndicateStatus{Status: disconnect})
	l.forget()
	l.found(linkUp)
	if wait := l.handle(time.Now()); wait != 0 || l.state != linkUp {
		t.Errorf("link %+v, wait %v", l.state, wait)
	}
	// What comes between question and answer is newer than the answer.
	l.forget()
	l.indicate(rndis.IndicateStatus{Status: disconnect})
	l.found(linkUp)
	if l.handle(time.Now()); l.state != linkDown {
		t.Errorf("link %+v after it was taken down", l.state)
	}
	// And what waits when the device is lost is void.
	l.indicate(rndis.IndicateStatus{Status: connect})
	l.set(nic.LinkState{})
	if l.handle(time.Now().Add(time.Hour)); l.state != (nic.LinkState{}) {
		t.Errorf("link %+v of a lost device", l.state)
	}
}

// TestLink is the way from the host's message to the one who watches. Hosts before
// Windows Server 2019 do not count the payload in the message's length; it is there
// all the same, and may not lie behind what they sent.
func TestLink(t *testing.T) { synctest.Test(t, testLink) }

func testLink(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	states := make(chan nic.LinkState, 10)
	n.OnLink(func(s nic.LinkState) { states <- s })
	expect := func(want nic.LinkState) {
		t.Helper()
		select {
		case got := <-states:
			if got != want {
				t.Fatalf("link %+v, want %+v", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no change of the link to %+v", want)
		}
	}
	tell := func(s rndis.Status, info []byte) {
		h.queue(0).indicate(rndis.IndicateStatus{Status: s, Info: info}.Append(nil))
	}
	expect(nic.LinkState{Up: true, Mbps: 40000})
	tell(rndis.StatusMediaDisconnect, nil)
	expect(nic.LinkState{Mbps: 40000})
	tell(rndis.StatusMediaConnect, nil)
	expect(nic.LinkState{Up: true, Mbps: 40000})
	tell(rndis.StatusLinkSpeedChange, rndis.AppendUint32(nil, rndis.LinkSpeed(10000)))
	expect(nic.LinkState{Up: true, Mbps: 10000})
	tell(rndis.StatusNetworkChange, nil)
	expect(nic.LinkState{Mbps: 10000})
	expect(nic.LinkState{Up: true, Mbps: 10000})
	// The payload is behind the end of the message, but inside what was sent.
	m := rndis.IndicateStatus{Status: rndis.StatusLinkSpeedChange, Info: rndis.AppendUint32(nil, rndis.LinkSpeed(25000))}.Append(nil)
	binary.LittleEndian.PutUint32(m[4:], uint32(len(m)-4))
	h.queue(0).indicate(m)
	expect(nic.LinkState{Up: true, Mbps: 25000})
	// And here it is not.
	tell(rndis.StatusLinkSpeedChange, []byte{1})
	for _, cut := range []int{1, 4} {
		h.queue(0).indicate(m[:len(m)-cut])
	}
	synctest.Wait()
	if got := n.Link(); got != (nic.LinkState{Up: true, Mbps: 25000}) || len(states) > 0 {
		t.Errorf("Link: %+v, %d changes", got, len(states))
	}
}
