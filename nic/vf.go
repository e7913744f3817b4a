package nic

import "time"

// A VFMove is one move of the path that frames are sent on, or an attempt.
type VFMove struct {
	At    time.Time `json:"at"`    // when senders changed over, or the attempt was over
	To    string    `json:"to"`    // "vf" or "synthetic"
	First string    `json:"first"` // who moved first: "host", "device", "user" or "driver"
	Why   string    `json:"why"`   // what happened
	// Failed says that the host has refused, or not answered; "" if it has moved.
	Failed string `json:"failed,omitempty"`
	// Took is the time from telling the host to its answer, 0 as long as there is none.
	Took time.Duration `json:"took_ns"`
	// Held is for how long senders waited for the path that they left to be empty.
	Held time.Duration `json:"held_ns"`
	// InFlight is how many frames were under way on the synthetic path when a VF was
	// about to be used, and Undrained how many of them were not waited for any longer.
	InFlight  int `json:"in_flight"`
	Undrained int `json:"undrained"`
}

// A VFStatus is what a driver knows of a virtual function beside its NIC: of all that it
// takes for frames to go by it, what is there and what is missing.
type VFStatus struct {
	Wanted    bool `json:"wanted"`    // the driver uses one if it gets one
	Announced bool `json:"announced"` // the host was told so (SR-IOV in the NDIS configuration)

	Associated bool   `json:"associated"`       // the host has associated one with the NIC,
	Serial     uint32 `json:"serial,omitempty"` // with this number

	Device       bool   `json:"device"`                  // there is a device with the NIC's address
	DeviceSerial uint32 `json:"device_serial,omitempty"` // and with this number
	Up           bool   `json:"up"`                      // it is set up
	Carrier      bool   `json:"carrier"`                 // and has its link

	Unwilling bool `json:"unwilling,omitempty"` // the host does not want it used, for now
	Resting   bool `json:"resting,omitempty"`   // it is left alone for a while, after a loss
	Active    bool `json:"active"`              // frames are sent by it
}
