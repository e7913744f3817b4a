//go:build !race

package netvsp

const raceEnabled = false
