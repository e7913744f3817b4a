package vswitch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"hvnet/offload"
)

// maxVLAN is the largest VLAN id; 4095 is reserved (IEEE 802.1Q).
const maxVLAN = 4094

// A VLAN says which frames a port exchanges with the switch, as Set-VMNetworkAdapterVlan of
// Hyper-V does for the port of a guest. The zero value is its untagged mode, that of a port for
// which nothing was said: frames without tag, which are VLAN 0.
//
// An access port has frames without tag on its side, which are in its VLAN on the switch. What
// comes in with a tag is dropped, unless the tag has id 0, which tells a priority only. A trunk
// has frames of the VLANs that are allowed, with their tags, and those of its native VLAN
// without. A frame that leaves without tag leaves without priority.
//
// Values can be compared.
type VLAN struct {
	id      uint16 // of frames without tag on the port's side
	trunk   bool
	allowed [maxVLAN/64 + 1]uint64 // of a trunk: the ids of tags that pass, as bits
}

// Access returns the VLAN of an access port, of an id from 1 to 4094.
func Access(id uint16) VLAN { return VLAN{id: id} }

// Trunk returns the VLANs of a trunk that allows all ids, and whose native VLAN is 0: what an
// uplink is.
func Trunk() VLAN {
	v := VLAN{trunk: true}
	v.allow(1, maxVLAN)
	return v
}

// ParseVLAN reads "untagged", "access=10", "trunk=10,20-30", "trunk=10,20-30,native=1" or
// "trunk=all", which is what String prints.
func ParseVLAN(text string) (v VLAN, err error) {
	mode, list, _ := strings.Cut(text, "=")
	switch {
	case text == "untagged":
		return v, nil
	case mode == "access":
		v.id, err = vlanID(list, 1)
		return v, err
	case mode != "trunk":
		return v, fmt.Errorf("%q: want untagged, access=ID or trunk=IDS,native=ID, such as trunk=10,20-30", text)
	}
	v.trunk = true
	native := false
	for _, word := range strings.Split(list, ",") {
		id, isNative := strings.CutPrefix(word, "native=")
		first, last, isRange := strings.Cut(word, "-")
		var from, to uint16
		switch {
		case isNative && native:
			return v, errors.New("native: want it once")
		case isNative:
			native = true
			if v.id, err = vlanID(id, 0); err != nil {
				return v, err
			}
			continue
		case word == "all":
			from, to = 1, maxVLAN
		default:
			if from, err = vlanID(first, 1); err != nil {
				return v, err
			}
			if to = from; isRange {
				if to, err = vlanID(last, from); err != nil {
					return v, err
				}
			}
		}
		v.allow(from, to)
	}
	if v.allowed == (VLAN{}).allowed {
		return v, errors.New("trunk: want the ids that it allows, such as trunk=10,20-30")
	}
	return v, nil
}

// vlanID reads an id of at least least.
func vlanID(s string, least uint16) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < uint64(least) || n > maxVLAN {
		return 0, fmt.Errorf("VLAN id %q: want a number from %d to %d", s, least, maxVLAN)
	}
	return uint16(n), nil
}

// allow adds the ids from first to last.
func (v *VLAN) allow(first, last uint16) {
	for id := first; id <= last; id++ {
		v.allowed[id/64] |= 1 << (id % 64)
	}
}

// allows reports whether tags with the id pass.
func (v *VLAN) allows(id uint16) bool {
	return id <= maxVLAN && v.allowed[id/64]>>(id%64)&1 != 0
}

// String returns what ParseVLAN reads.
func (v VLAN) String() string {
	if !v.trunk {
		if v.id == 0 {
			return "untagged"
		}
		return fmt.Sprintf("access=%d", v.id)
	}
	var words []string
	for id := uint16(1); id <= maxVLAN; id++ {
		if !v.allows(id) {
			continue
		}
		first := id
		for v.allows(id + 1) {
			id++
		}
		switch {
		case first == 1 && id == maxVLAN:
			words = append(words, "all")
		case first == id:
			words = append(words, strconv.Itoa(int(id)))
		default:
			words = append(words, fmt.Sprintf("%d-%d", first, id))
		}
	}
	if v.id != 0 {
		words = append(words, fmt.Sprintf("native=%d", v.id))
	}
	return "trunk=" + strings.Join(words, ",")
}

// of returns the VLAN of a frame that comes in on the port, and whether it has a tag. ok says
// that the port lets it in.
func (v *VLAN) of(head []byte) (id uint16, tagged, ok bool) {
	tci, tagged, damaged := offload.Tag(head)
	switch id = tci & 0xfff; {
	case id == 0: // no tag, or one that tells a priority
		return v.id, tagged, !damaged
	case v.trunk:
		return id, tagged, v.allows(id)
	}
	return id, tagged, false
}

// member reports whether frames of a VLAN go out on the port.
func (v *VLAN) member(id uint16) bool { return id == v.id || v.trunk && v.allows(id) }

// plain reports whether all frames on the port's side are without tag.
func (v *VLAN) plain() bool { return !v.trunk }
