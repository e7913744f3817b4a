//go:build race

package main

// raceDetector tells scripts that everything takes many times as long, so that
// queues may fill.
const raceDetector = true
