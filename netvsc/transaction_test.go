package netvsc

import (
	"math/rand/v2"
	"testing"
)

func TestTransactionIDs(t *testing.T) {
	var x transactions
	a, ta := x.begin()
	ta.kind = kindData
	b, tb := x.begin()
	tb.kind = kindRequest
	if a != 1 || b != 2 {
		t.Errorf("first ids are %d and %d, want 1 and 2", a, b)
	}
	if x.find(a) == nil || x.find(b).kind != kindRequest {
		t.Error("what was begun is not found")
	}
	x.end(a)
	c, tc := x.begin()
	tc.kind = kindData
	if c == a || uint32(c) != uint32(a) {
		t.Errorf("id %#x after %#x: want the same slot and another generation", c, a)
	}
	for _, id := range []uint64{0, a, 3, 1 << 32, c + 1<<32, 1<<32 - 1, 1<<64 - 1, unasked} {
		if x.find(id) != nil {
			t.Errorf("found %#x", id)
		}
	}
	if x.live != 2 {
		t.Errorf("%d live", x.live)
	}
}

func TestTransactionsBounded(t *testing.T) {
	var x transactions
	for range maxTransactions {
		_, tr := x.begin()
		if tr == nil {
			t.Fatalf("full after %d", x.live)
		}
		tr.kind = kindData
	}
	if _, tr := x.begin(); tr != nil {
		t.Error("one more than allowed")
	}
	n := 0
	x.each(func(*transaction) { n++ })
	if n != maxTransactions || x.live != 0 {
		t.Errorf("each saw %d, %d are live", n, x.live)
	}
}

// TestTransactionsModel holds the table against a map.
func TestTransactionsModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var x transactions
	model := map[uint64]uint32{}
	var past []uint64
	for i := range uint32(20000) {
		if rnd.IntN(2) == 0 && len(model) < 300 {
			id, tr := x.begin()
			if _, ok := model[id]; ok {
				t.Fatalf("id %#x is given out twice", id)
			}
			tr.kind, tr.bytes = kindData, i
			model[id] = i
			past = append(past, id)
		}
		if len(past) == 0 {
			continue
		}
		id := past[rnd.IntN(len(past))]
		want, ok := model[id]
		tr := x.find(id)
		if (tr != nil) != ok || ok && tr.bytes != want {
			t.Fatalf("find %#x: %v, want %v", id, tr, ok)
		}
		if ok {
			x.end(id)
			delete(model, id)
		}
	}
}

func TestPool(t *testing.T) {
	p := newPool(make([]byte, 100), 30, 3)
	seen := map[int32]bool{}
	for range 3 {
		i := p.take()
		if i == none || seen[i] || len(p.bytes(i)) != 30 || cap(p.bytes(i)) != 30 {
			t.Fatalf("part %d", i)
		}
		p.bytes(i)[0]++
		seen[i] = true
	}
	if p.take() != none || p.idle() != 0 {
		t.Error("an empty pool gave something")
	}
	for i := range 3 {
		if p.mem[30*i] != 1 {
			t.Errorf("part %d is not where it should be", i)
		}
	}
	p.give(1)
	if p.take() != 1 {
		t.Error("what was given back is not taken first")
	}
}
