package netvsc

// A kind says what a transaction is for, so that a completion is read only as the
// answer to what was asked.
type kind uint8

const (
	kindFree    kind = iota
	kindData         // RNDIS data: completed by an NVSP 108
	kindControl      // an RNDIS control message: completed by an NVSP 108
	kindRequest      // an NVSP request: completed by the message that answers it
	kindSwitch       // a switch of the data path: completed by nothing at all
)

// A transaction is one packet that the host has yet to complete, and what its
// completion frees.
type transaction struct {
	kind    kind
	gen     uint32
	section int32 // of the send buffer, or none
	run     int32 // of the page runs or, for control, of the control pages; or none
	frames  uint32
	bytes   uint32
	entries entrySet
	request *request // that fails or is answered with the completion
}

// transactions maps the ids of a channel's packets to what they are. Ids start at
// 1, for hosts don't complete 0, and carry a generation in the upper half: a
// completion that the host repeats, or makes up, finds nothing.
type transactions struct {
	slots []transaction
	free  []uint32
	live  int // transactions under way
}

// maxTransactions bounds a table: the host is never owed more than that.
const maxTransactions = 8192

// begin returns a new transaction and its id, nil if the table is full. The caller
// sets its kind, or ends it, before the next one begins.
func (t *transactions) begin() (uint64, *transaction) {
	var i uint32
	if n := len(t.free); n > 0 {
		i = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		if len(t.slots) == maxTransactions {
			return 0, nil
		}
		i = uint32(len(t.slots))
		t.slots = append(t.slots, transaction{})
	}
	t.live++
	x := &t.slots[i]
	x.section, x.run = none, none
	return uint64(x.gen)<<32 | uint64(i+1), x
}

// find returns the transaction under way with the given id, or nil.
func (t *transactions) find(id uint64) *transaction {
	i := uint32(id) - 1 // 0 becomes too large
	if uint64(i) >= uint64(len(t.slots)) {
		return nil
	}
	if x := &t.slots[i]; x.kind != kindFree && x.gen == uint32(id>>32) {
		return x
	}
	return nil
}

// end frees the transaction with an id that find or begin gave.
func (t *transactions) end(id uint64) {
	i := uint32(id) - 1
	t.slots[i] = transaction{gen: t.slots[i].gen + 1}
	t.free = append(t.free, i)
	t.live--
}

// each calls f with every transaction under way and frees it.
func (t *transactions) each(f func(*transaction)) {
	for i := range t.slots {
		if x := &t.slots[i]; x.kind != kindFree {
			f(x)
			t.end(uint64(x.gen)<<32 | uint64(i+1))
		}
	}
}
