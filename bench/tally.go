package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A tally is a connection by which the numbers from 0 are sent at a rate, and checked when
// they come.
type tally struct {
	from, to net.Conn
	mbits    int

	// Set when send and receive have returned.
	sent, received error
	bytes          int64 // that came as they should
}

const tallyBlock = 16 << 10

// send sends until ctx ends, and closes its end. What is left to be written then has some
// patience to go.
func (t *tally) send(ctx context.Context) {
	defer t.from.Close()
	defer context.AfterFunc(ctx, func() { t.from.SetWriteDeadline(time.Now().Add(vfPatience)) })()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	b := make([]byte, tallyBlock)
	begun := time.Now()
	for number := uint64(0); ctx.Err() == nil; {
		if float64(number)*64 > time.Since(begun).Seconds()*float64(t.mbits)*1e6 {
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
			continue
		}
		for i := 0; i < len(b); i += 8 {
			binary.BigEndian.PutUint64(b[i:], number)
			number++
		}
		if _, err := t.from.Write(b); err != nil {
			t.sent = fmt.Errorf("send by TCP: %w", err)
			return
		}
	}
}

// receive checks what comes until the connection is closed.
func (t *tally) receive() {
	defer t.to.Close()
	b := make([]byte, tallyBlock)
	for number := uint64(0); ; t.bytes += tallyBlock {
		_, err := io.ReadFull(t.to, b)
		if err == io.EOF {
			return
		}
		if err != nil {
			t.received = fmt.Errorf("receive by TCP: %w", err)
			return
		}
		for i := 0; i < len(b); i += 8 {
			if got := binary.BigEndian.Uint64(b[i:]); got != number {
				t.received = fmt.Errorf("receive by TCP: number %d, want %d", got, number)
				return
			}
			number++
		}
	}
}

// err says why the connection is broken, nil if it is not.
func (t *tally) err() error { return errors.Join(t.sent, t.received) }
