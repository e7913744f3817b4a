package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"hvnet/hv"
)

// The records of the protocol, all numbers little-endian. Each begins with its type
// and an id, which the guest chooses and the reply repeats.
const (
	typeHello  = 1
	typeReply  = 2
	typePost   = 3
	typeAdd    = 4
	typeRemove = 5
	typePosts  = 6
)

const (
	headerSize   = 8
	helloSize    = 40 // before the pages
	pagesSize    = 16 // a VP's
	regionSize   = 24
	optionHeader = 4
	replySize    = 16 // before the text
	maxText      = 1024
	postSize     = 16 // before the payload, or the first of several
	postsHeader  = 2  // before each of several
	addSize      = 32
	removeSize   = 16

	maxHello   = helloSize + hv.MaxVPs*pagesSize + maxRegions*regionSize + maxName + maxOptions
	maxRequest = postSize + hv.MaxPosts*(postsHeader+hv.MaxPayload) // after the hello
	maxReply   = replySize + maxText
)

const magic = "HVATTACH"

var le = binary.LittleEndian

// errLength is returned for records that are not as long as their type or their
// own fields say.
var errLength = errors.New("the record has the wrong length")

// A versionError is returned for a hello of another version.
type versionError uint32

func (e versionError) Error() string {
	return fmt.Sprintf("version %d of the attach protocol is not spoken here, version %d is", uint32(e), Version)
}

// header is what all records begin with.
type header struct {
	typ, id uint32
}

func (h header) append(b []byte) []byte {
	return le.AppendUint32(le.AppendUint32(b, h.typ), h.id)
}

func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, errLength
	}
	return header{le.Uint32(b), le.Uint32(b[4:])}, nil
}

// A region of guest memory as a guest names it; its descriptor comes with the record.
type region struct {
	gpa          hv.GPA
	size, offset uint64
}

func (r region) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(r.gpa))
	b = le.AppendUint64(b, r.size)
	return le.AppendUint64(b, r.offset)
}

func parseRegion(b []byte) region {
	return region{hv.GPA(le.Uint64(b)), le.Uint64(b[8:]), le.Uint64(b[16:])}
}

// hello is the first record, of the guest.
//
//	8   magic "HVATTACH"
//	16  u32 version
//	20  u32 number of VPs
//	24  u64 address of the signal page
//	32  u16 number of regions
//	34  u16 bytes of the name
//	36  u32 bytes of the options
//	40      for each VP: u64 message page, u64 event page
//	        for each region: u64 address, u64 size, u64 offset in its file
//	        the name
//	        each option: u16 bytes of the key, u16 bytes of the value, key, value
type hello struct {
	Hello
	pages   hv.Pages
	regions []region
}

func (h *hello) append(b []byte, id uint32) []byte {
	var options []byte
	for _, k := range slices.Sorted(maps.Keys(h.Options)) {
		v := h.Options[k]
		options = le.AppendUint16(options, uint16(len(k)))
		options = le.AppendUint16(options, uint16(len(v)))
		options = append(append(options, k...), v...)
	}
	b = header{typeHello, id}.append(b)
	b = append(b, magic...)
	b = le.AppendUint32(b, Version)
	b = le.AppendUint32(b, uint32(h.VPs))
	b = le.AppendUint64(b, uint64(h.pages.Signals))
	b = le.AppendUint16(b, uint16(len(h.regions)))
	b = le.AppendUint16(b, uint16(len(h.Name)))
	b = le.AppendUint32(b, uint32(len(options)))
	for vp := range h.VPs {
		b = le.AppendUint64(b, uint64(h.pages.Message[vp]))
		b = le.AppendUint64(b, uint64(h.pages.Event[vp]))
	}
	for _, r := range h.regions {
		b = r.append(b)
	}
	b = append(b, h.Name...)
	return append(b, options...)
}

func parseHello(b []byte) (*hello, error) {
	if len(b) < helloSize || le.Uint32(b) != typeHello || string(b[8:16]) != magic {
		return nil, errors.New("the first record is no hello")
	}
	if v := le.Uint32(b[16:]); v != Version {
		return nil, versionError(v)
	}
	vps, regions := le.Uint32(b[20:]), int(le.Uint16(b[32:]))
	name, options := int(le.Uint16(b[34:])), le.Uint32(b[36:])
	if vps < 1 || vps > hv.MaxVPs {
		return nil, fmt.Errorf("%d virtual processors, not 1 to %d", vps, hv.MaxVPs)
	}
	if regions < 1 || regions > maxRegions {
		return nil, fmt.Errorf("%d regions of memory in the hello, not 1 to %d", regions, maxRegions)
	}
	if name > maxName || options > maxOptions ||
		len(b) != helloSize+int(vps)*pagesSize+regions*regionSize+name+int(options) {
		return nil, errLength
	}
	h := &hello{Hello: Hello{VPs: int(vps)}}
	h.pages.Signals = hv.GPA(le.Uint64(b[24:]))
	b = b[helloSize:]
	for range vps {
		h.pages.Message = append(h.pages.Message, hv.GPA(le.Uint64(b)))
		h.pages.Event = append(h.pages.Event, hv.GPA(le.Uint64(b[8:])))
		b = b[pagesSize:]
	}
	for range regions {
		h.regions = append(h.regions, parseRegion(b))
		b = b[regionSize:]
	}
	h.Name = string(b[:name])
	var err error
	if h.Options, err = parseOptions(b[name:]); err != nil {
		return nil, err
	}
	return h, h.Check()
}

func parseOptions(b []byte) (map[string]string, error) {
	options := make(map[string]string)
	for len(b) > 0 {
		if len(b) < optionHeader {
			return nil, errLength
		}
		k, v := int(le.Uint16(b)), int(le.Uint16(b[2:]))
		if len(b) < optionHeader+k+v {
			return nil, errLength
		}
		key := string(b[optionHeader:][:k])
		if _, twice := options[key]; twice {
			return nil, fmt.Errorf("option %q is there twice", key)
		}
		options[key] = string(b[optionHeader+k:][:v])
		b = b[optionHeader+k+v:]
	}
	return options, nil
}

// reply answers every record of the guest.
//
//	8   u32 status of a hypercall
//	12  u16 protocol version of the host
//	14  u16 bytes of the text
//	16      a sentence for people, if the status is not success
type reply struct {
	status  hv.Status
	version uint16
	text    string
}

func (r reply) append(b []byte, id uint32) []byte {
	r.text = r.text[:min(len(r.text), maxText)]
	b = header{typeReply, id}.append(b)
	b = le.AppendUint32(b, uint32(r.status))
	b = le.AppendUint16(b, r.version)
	b = le.AppendUint16(b, uint16(len(r.text)))
	return append(b, r.text...)
}

func parseReply(b []byte) (r reply, err error) {
	if len(b) < replySize || len(b) != replySize+int(le.Uint16(b[14:])) || len(b) > maxReply || le.Uint32(b[8:]) > 0xFFFF {
		return reply{}, errLength
	}
	return reply{hv.Status(le.Uint32(b[8:])), le.Uint16(b[12:]), string(b[replySize:])}, nil
}

// err returns the reply as an error.
func (r reply) err() error {
	if r.status == hv.StatusSuccess || r.text == "" {
		return r.status.Err()
	}
	return fmt.Errorf("%w: %s", r.status, r.text)
}

// A post record is HvCallPostMessage: at 8 u32 connection id, at 12 u32 message
// type, at 16 the payload, to the end of the record.
func appendPost(b []byte, id, conn, typ uint32, payload []byte) []byte {
	b = header{typePost, id}.append(b)
	b = le.AppendUint32(b, conn)
	b = le.AppendUint32(b, typ)
	return append(b, payload...)
}

// parsePost appends the message to list.
func parsePost(b []byte, list []hv.Message) (conn uint32, _ []hv.Message, err error) {
	if len(b) < postSize || len(b) > postSize+hv.MaxPayload {
		return 0, nil, errLength
	}
	return le.Uint32(b[8:]), appendMessage(list, le.Uint32(b[12:]), b[postSize:]), nil
}

func appendMessage(list []hv.Message, typ uint32, payload []byte) []hv.Message {
	list = append(list, hv.Message{Type: typ, Size: len(payload)})
	copy(list[len(list)-1].Data[:], payload)
	return list
}

// A posts record is HvCallPostMessage several times: at 8 u32 connection id, at 12
// u32 message type, at 16 for each message u16 bytes of the payload and the payload,
// to the end of the record.
func appendPosts(b []byte, id, conn, typ uint32, payloads [][]byte) []byte {
	b = header{typePosts, id}.append(b)
	b = le.AppendUint32(b, conn)
	b = le.AppendUint32(b, typ)
	for _, p := range payloads {
		b = append(le.AppendUint16(b, uint16(len(p))), p...)
	}
	return b
}

// parsePosts appends the messages to list.
func parsePosts(b []byte, list []hv.Message) (conn uint32, _ []hv.Message, err error) {
	if len(b) < postSize+postsHeader {
		return 0, nil, errLength
	}
	conn, typ := le.Uint32(b[8:]), le.Uint32(b[12:])
	b = b[postSize:]
	for n := 0; len(b) > 0; n++ {
		if n == hv.MaxPosts || len(b) < postsHeader {
			return 0, nil, errLength
		}
		size := int(le.Uint16(b))
		if size > hv.MaxPayload || len(b) < postsHeader+size {
			return 0, nil, errLength
		}
		list = appendMessage(list, typ, b[postsHeader:postsHeader+size])
		b = b[postsHeader+size:]
	}
	return conn, list, nil
}

// An add record brings a region, at 8 as in the hello, and its descriptor.
func appendAdd(b []byte, id uint32, r region) []byte {
	return r.append(header{typeAdd, id}.append(b))
}

func parseAdd(b []byte) (region, error) {
	if len(b) != addSize {
		return region{}, errLength
	}
	return parseRegion(b[headerSize:]), nil
}

// A remove record takes the region away that begins at the u64 address at 8.
func appendRemove(b []byte, id uint32, gpa hv.GPA) []byte {
	return le.AppendUint64(header{typeRemove, id}.append(b), uint64(gpa))
}

func parseRemove(b []byte) (hv.GPA, error) {
	if len(b) != removeSize {
		return 0, errLength
	}
	return hv.GPA(le.Uint64(b[headerSize:])), nil
}
