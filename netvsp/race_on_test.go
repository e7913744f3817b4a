//go:build race

package netvsp

// The race detector makes sync.Pool drop things at random.
const raceEnabled = true
