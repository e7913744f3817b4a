package nic

// Flows says how many flows a channel had in some time: frames with the same addresses,
// protocol and ports, TCP or UDP, or the same addresses of other IP protocols and of
// fragments. They are estimates, each MaxFlows at most.
type Flows struct {
	Received int `json:"received"`
	Sent     int `json:"sent"`
}

// MaxFlows is what an estimate is when there were that many flows or more.
const MaxFlows = 7098

// A FlowReport is what a driver has seen of flows since a mark that it gave.
type FlowReport struct {
	Mark     uint32  `json:"mark"` // of now, not 0
	Channels []Flows `json:"channels"`
}
