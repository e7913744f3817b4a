package vmbus

import "fmt"

// A GPADL is an id that the guest gives to a list of pages, so that other messages
// can name the pages in a word. The list comes in one GPADL_HEADER and as many
// GPADL_BODYs as it takes; see AppendGPADL and Assembler.

// MaxGPADLPages is the number of pages of the largest GPADL of one range. The
// length of the list is 16 bits on the wire: a range of 8 bytes, and 8 bytes a page.
const MaxGPADLPages = (0xffff - rangeSize) / 8

// rangeSize is the size of a range in front of its PFNs: u32 byte count, u32 byte
// offset into the first page.
const rangeSize = 8

// GPADLHeader (8) begins a GPADL.
type GPADLHeader struct {
	Relid    uint32 // 8
	ID       uint32 // 12: chosen by the guest, not 0
	RangeLen uint16 // 16: bytes of the whole list
	Ranges   uint16 // 18: number of ranges in the list
	Data     []byte // 20: the beginning of the list; of the message, not a copy
}

const gpadlHeaderSize = 20 // in front of Data

// Append appends the message, at most 240 bytes if Data is at most 220.
func (m GPADLHeader) Append(b []byte) []byte {
	b = words(begin(b, TypeGPADLHeader), m.Relid, m.ID)
	b = le.AppendUint16(b, m.RangeLen)
	b = le.AppendUint16(b, m.Ranges)
	return append(b, m.Data...)
}

// ParseGPADLHeader parses the message. Data holds whole words, and may be longer
// than the list: [NewAssembler] takes what belongs to it.
func ParseGPADLHeader(b []byte) (m GPADLHeader, err error) {
	if err := check(b, TypeGPADLHeader, gpadlHeaderSize); err != nil {
		return m, err
	}
	m.Relid = le.Uint32(b[8:])
	m.ID = le.Uint32(b[12:])
	m.RangeLen = le.Uint16(b[16:])
	m.Ranges = le.Uint16(b[18:])
	m.Data = wholeWords(b[gpadlHeaderSize:])
	return m, nil
}

// GPADLBody (9) goes on with a GPADL.
type GPADLBody struct {
	Number uint32 // 8: of the message; Linux leaves it 0, so nobody may rely on it
	ID     uint32 // 12
	Data   []byte // 16: more of the list; of the message, not a copy
}

const gpadlBodySize = 16 // in front of Data

// Append appends the message, at most 240 bytes if Data is at most 224.
func (m GPADLBody) Append(b []byte) []byte {
	return append(words(begin(b, TypeGPADLBody), m.Number, m.ID), m.Data...)
}

// ParseGPADLBody parses the message. Data holds whole words, and may be longer than
// what is missing.
func ParseGPADLBody(b []byte) (m GPADLBody, err error) {
	if err := check(b, TypeGPADLBody, gpadlBodySize); err != nil {
		return m, err
	}
	return GPADLBody{le.Uint32(b[8:]), le.Uint32(b[12:]), wholeWords(b[gpadlBodySize:])}, nil
}

func wholeWords(b []byte) []byte { return b[: len(b)&^7 : len(b)&^7] }

// AppendGPADL appends to msgs the messages that make a GPADL of whole pages known to
// the host, in the order in which they are to be posted. The PFN of page i is
// pfn(i). It returns an error if there are no pages or more than MaxGPADLPages.
func AppendGPADL(msgs [][]byte, relid, id uint32, pages int, pfn func(i int) uint64) ([][]byte, error) {
	if pages < 1 || pages > MaxGPADLPages {
		return msgs, fmt.Errorf("vmbus: GPADL %#x of %d pages: want 1 to %d", id, pages, MaxGPADLPages)
	}
	list := words(make([]byte, 0, rangeSize+8*pages), uint32(pages*PageSize), 0)
	for i := range pages {
		list = le.AppendUint64(list, pfn(i))
	}
	h := GPADLHeader{Relid: relid, ID: id, RangeLen: uint16(len(list)), Ranges: 1}
	h.Data, list = cut(list, MaxMessage-gpadlHeaderSize)
	msgs = append(msgs, h.Append(nil))
	for len(list) > 0 {
		m := GPADLBody{ID: id}
		m.Data, list = cut(list, MaxMessage-gpadlBodySize)
		msgs = append(msgs, m.Append(nil))
	}
	return msgs, nil
}

// cut splits off what fits into n bytes, in whole words.
func cut(list []byte, n int) (head, rest []byte) {
	n = min(n&^7, len(list))
	return list[:n], list[n:]
}

// GPADLCreated (10) answers the last message of a GPADL.
type GPADLCreated struct {
	Relid  uint32 // 8
	ID     uint32 // 12
	Status uint32 // 16
}

const gpadlCreatedSize = 20

// Append appends the message, 20 bytes.
func (m GPADLCreated) Append(b []byte) []byte {
	return words(begin(b, TypeGPADLCreated), m.Relid, m.ID, m.Status)
}

// ParseGPADLCreated parses the message.
func ParseGPADLCreated(b []byte) (m GPADLCreated, err error) {
	if err := check(b, TypeGPADLCreated, gpadlCreatedSize); err != nil {
		return m, err
	}
	return GPADLCreated{le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:])}, nil
}

// GPADLTeardown (11) takes a GPADL back. The host answers with GPADL_TORNDOWN when
// it holds no reference to the pages any more.
type GPADLTeardown struct {
	Relid uint32 // 8
	ID    uint32 // 12
}

const gpadlTeardownSize = 16

// Append appends the message, 16 bytes.
func (m GPADLTeardown) Append(b []byte) []byte {
	return words(begin(b, TypeGPADLTeardown), m.Relid, m.ID)
}

// ParseGPADLTeardown parses the message.
func ParseGPADLTeardown(b []byte) (m GPADLTeardown, err error) {
	if err := check(b, TypeGPADLTeardown, gpadlTeardownSize); err != nil {
		return m, err
	}
	return GPADLTeardown{le.Uint32(b[8:]), le.Uint32(b[12:])}, nil
}

// GPADLTorndown (12) answers GPADL_TEARDOWN. It names no channel.
type GPADLTorndown struct {
	ID uint32 // 8
}

const gpadlTorndownSize = 12

// Append appends the message, 12 bytes.
func (m GPADLTorndown) Append(b []byte) []byte { return words(begin(b, TypeGPADLTorndown), m.ID) }

// ParseGPADLTorndown parses the message.
func ParseGPADLTorndown(b []byte) (m GPADLTorndown, err error) {
	if err := check(b, TypeGPADLTorndown, gpadlTorndownSize); err != nil {
		return m, err
	}
	return GPADLTorndown{le.Uint32(b[8:])}, nil
}
