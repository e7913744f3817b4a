//go:build race

package impair

// The race detector makes sync.Pool drop things at random.
const raceEnabled = true
