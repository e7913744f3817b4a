package bench

import (
	"context"
	"testing"
	"time"
)

// TestUDPFragments: fragments are lost by ports, and neither lost nor late when they are
// cured; datagrams of several sizes overtake each other by ports alone.
func TestUDPFragments(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := UDPFragments(ctx, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		t.Logf("%+v", row)
		few := float64(row.Lost[0]) <= .05*float64(row.Datagrams)
		if cut := row.Fragments > 1; few == cut || !cut && row.Lost[0] != 0 {
			t.Errorf("%d bytes by ports: %d of %d are lost", row.Bytes, row.Lost[0], row.Datagrams)
		}
		for w := 1; w < 3; w++ {
			if row.Lost[w] != 0 || row.Late[w] != 0 {
				t.Errorf("%d bytes %s: %d are lost, %d late", row.Bytes, r.Ways[w], row.Lost[w], row.Late[w])
			}
		}
	}
	if mixed := r.Rows[len(r.Rows)-1]; mixed.Bytes != 0 || mixed.Late[0] == 0 {
		t.Errorf("by ports no datagram overtakes another one: %+v", mixed)
	}
	if r.Channels != fragmentChannels || len(r.Rows) != len(fragmentSizes) {
		t.Errorf("%+v", r)
	}
}
