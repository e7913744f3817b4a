package rndis

import "fmt"

// A Status is an NDIS status: the answer to a request, or what an indication
// tells. A value other than StatusSuccess in an answer is an error.
type Status uint32

// Answers.
const (
	StatusSuccess        Status = 0
	StatusPending        Status = 0x00000103
	StatusBufferOverflow Status = 0x80000005 // the answer is longer than what can be taken
	StatusFailure        Status = 0xc0000001
	StatusResources      Status = 0xc000009a
	StatusNotSupported   Status = 0xc00000bb // the answer to an unknown OID
	StatusBadVersion     Status = 0xc0010004
	StatusInvalidLength  Status = 0xc0010014
	StatusInvalidData    Status = 0xc0010015
	StatusBufferTooShort Status = 0xc0010016
	StatusInvalidOID     Status = 0xc0010017
)

// Indications.
const (
	StatusMediaConnect             Status = 0x4001000b
	StatusMediaDisconnect          Status = 0x4001000c
	StatusLinkSpeedChange          Status = 0x40010013 // with a u32 in 100 bit/s
	StatusNetworkChange            Status = 0x40010018
	StatusTaskOffloadCurrentConfig Status = 0x40020006
)

var statusNames = map[Status]string{
	StatusSuccess: "success", StatusPending: "pending", StatusBufferOverflow: "buffer overflow", StatusFailure: "failure",
	StatusResources: "out of resources", StatusNotSupported: "not supported", StatusBadVersion: "bad version",
	StatusInvalidLength: "invalid length", StatusInvalidData: "invalid data", StatusBufferTooShort: "buffer too short",
	StatusInvalidOID: "invalid OID", StatusMediaConnect: "media connect", StatusMediaDisconnect: "media disconnect",
	StatusLinkSpeedChange: "link speed change", StatusNetworkChange: "network change",
	StatusTaskOffloadCurrentConfig: "task offload current config",
}

// String names the status.
func (s Status) String() string {
	if n, ok := statusNames[s]; ok {
		return n
	}
	return fmt.Sprintf("unknown status 0x%08x", uint32(s))
}

// Error makes a status that is not StatusSuccess usable as an error.
func (s Status) Error() string { return "NDIS status " + s.String() }
