package conform

import (
	"fmt"
	"slices"
	"strings"
)

// A Stage is something that a guest has reached when its host has agreed to it.
type Stage string

// The stages, in the order of a bring-up. A guest without sub-channels, or with an
// early frame, still reaches the others.
const (
	StageVersion     Stage = "version"      // VERSION_RESPONSE supports the version
	StageOffers      Stage = "offers"       // ALLOFFERS_DELIVERED
	StageGPADL       Stage = "gpadl"        // the first GPADL_CREATED with success
	StageOpen        Stage = "open"         // OPENCHANNEL_RESULT of the primary channel with success
	StageNVSP        Stage = "nvsp"         // INIT_COMPLETE with success
	StageBuffers     Stage = "buffers"      // SEND_RECEIVE_BUFFER_COMPLETE with success
	StageRNDIS       Stage = "rndis"        // INITIALIZE_COMPLETE with success
	StageData        Stage = "data"         // a frame of the guest was completed with success
	StageSubChannels Stage = "sub-channels" // OPENCHANNEL_RESULT of a sub-channel with success
)

var stages = []Stage{StageVersion, StageOffers, StageGPADL, StageOpen, StageNVSP, StageBuffers, StageRNDIS,
	StageData, StageSubChannels}

// Stages returns all stages in their order.
func Stages() []Stage { return slices.Clone(stages) }

// StageNames lists all stages in one line.
func StageNames() string {
	var list []string
	for _, s := range stages {
		list = append(list, string(s))
	}
	return strings.Join(list, ", ")
}

// ParseStage returns the stage with a name.
func ParseStage(name string) (Stage, error) {
	if slices.Contains(stages, Stage(name)) {
		return Stage(name), nil
	}
	return "", fmt.Errorf("no stage %q: want %s", name, StageNames())
}
