package lab

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// A Stream is a TCP stream of iperf3 between two namespaces.
type Stream struct {
	client *Process
}

// StartStream starts one TCP stream for some whole seconds, from one namespace to
// an address of the other. Its congestion control is Cubic, which does not pace.
func StartStream(tb testing.TB, from, to *Netns, addr string, seconds int, flags ...string) *Stream {
	tb.Helper()
	return StartStreamBy(tb, from.In, to, addr, seconds, flags...)
}

// StartStreamBy is StartStream for a client that is started by the command line that
// from makes of its own.
func StartStreamBy(tb testing.TB, from func(argv ...string) []string, to *Netns, addr string, seconds int, flags ...string) *Stream {
	tb.Helper()
	server := start(tb, "iperf3 -s", nil, to.In("iperf3", "-s", "-1", "--forceflush"))
	Await(tb, server, "^Server listening")
	argv := append([]string{"iperf3", "-c", addr, "-C", "cubic", "-t", fmt.Sprint(seconds), "-J"}, flags...)
	return &Stream{start(tb, "iperf3 -c", nil, from(argv...))}
}

// A StreamResult is what iperf3 measured.
type StreamResult struct {
	Intervals   []Interval // of a second each
	Gbps        float64    // as received
	Bytes       int64      // as received
	Retransmits int
	CPU         time.Duration // that both ends of iperf3 took, with what the kernel did for them
}

// An Interval is a part of a stream, by the sender's count.
type Interval struct {
	Start, End time.Duration // since the stream's start
	Bytes      int64
}

// Result waits for the end of the stream.
func (s *Stream) Result(tb testing.TB) StreamResult {
	tb.Helper()
	r, err := parseStream(finish(tb, s.client))
	if err != nil {
		tb.Fatalf("iperf3: %v", err)
	}
	return r
}

// parseStream reads the output of iperf3 -J.
func parseStream(text []byte) (StreamResult, error) {
	var j struct {
		Intervals []struct {
			Sum struct {
				Start, End float64
				Bytes      int64
			}
		}
		End struct {
			Sent struct {
				Retransmits int
				Seconds     float64
			} `json:"sum_sent"`
			Received struct {
				Bytes int64
				Bps   float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			CPU struct {
				Here  float64 `json:"host_total"`
				There float64 `json:"remote_total"`
			} `json:"cpu_utilization_percent"`
		}
		Error string
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return StreamResult{}, err
	}
	if j.Error != "" {
		return StreamResult{}, fmt.Errorf("%s", j.Error)
	}
	r := StreamResult{
		Gbps:  j.End.Received.Bps / 1e9,
		Bytes: j.End.Received.Bytes, Retransmits: j.End.Sent.Retransmits,
		CPU: seconds(j.End.Sent.Seconds * (j.End.CPU.Here + j.End.CPU.There) / 100),
	}
	for _, i := range j.Intervals {
		r.Intervals = append(r.Intervals, Interval{seconds(i.Sum.Start), seconds(i.Sum.End), i.Sum.Bytes})
	}
	return r, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
