package vf

// words say what an event is, and who it is of.
var words = [numKinds]struct{ what, who string }{
	Attached:   {"the NIC has attached to its device", "driver"},
	Leaving:    {"the NIC lets go of its device", "user"},
	Stays:      {"the NIC keeps its device", "driver"},
	Detached:   {"the NIC has let go of its device", "user"},
	Rescinded:  {"the NIC's device was lost", "host"},
	Associated: {"the host's word on the association", "host"},
	TakenBack:  {"the host has taken the path back", "host"},
	Confirmed:  {"the host has moved the path", "host"},
	Refused:    {"the host has refused to move the path", "host"},
	Silent:     {"the host has not answered", "host"},
	Appeared:   {"the device has appeared", "device"},
	Changed:    {"the device's carrier, or whether it is up, has changed", "device"},
	Removed:    {"the device was removed", "device"},
	UserUp:     {"the NIC was set up", "user"},
	UserDown:   {"the NIC was set down", "user"},
	Settings:   {"the NIC's settings have changed", "user"},
	Rested:     {"the rest after a loss is over", "driver"},
}

// String says what has happened.
func (k Kind) String() string { return words[k].what }

// Who says who has moved first then: "host", "device", "user" or "driver".
func (k Kind) Who() string { return words[k].who }
