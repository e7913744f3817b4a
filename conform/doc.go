// Package conform tells what a guest and its host say to each other, in words: each
// message decoded, the stages that the guest has reached, and the rule that it breaks,
// with the place where that is written.
//
// A [Transcript] makes the text, from live traffic or from a recording. A [Watch]
// stands between a host and one guest and feeds a Transcript: it wraps the boundary
// for the messages of the bus, and the backend of a device for the packets of its
// channels. Whoever is not watched has nothing of it in its way.
package conform
