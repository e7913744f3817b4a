//go:build race

package vswitch

// The race detector makes sync.Pool drop things at random.
const raceEnabled = true
