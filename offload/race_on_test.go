//go:build race

package offload_test

// The race detector makes sync.Pool drop things at random.
const raceEnabled = true
