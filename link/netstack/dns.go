package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Limits of the DNS forwarder.
const (
	dnsTimeout    = 2 * time.Second  // for one name server to answer one query
	dnsIdle       = 10 * time.Second // until a guest that asks nothing more is forgotten
	maxDNSQueries = 256              // asked at a time; others fail at once
	dnsHeaderSize = 12               // RFC 1035 section 4.1.1
	dnsPort       = "53"
)

// resolver answers DNS messages by asking other name servers. A message is passed
// on as it is, so that every record type and extension works.
type resolver struct {
	servers func() []string
	slots   chan struct{}

	queries, failed atomic.Uint64
}

// newResolver returns a resolver that asks the upstream servers ("host:port") in
// order, or those of the machine if there are none.
func newResolver(upstream []string) *resolver {
	r := &resolver{slots: make(chan struct{}, maxDNSQueries)}
	upstream = slices.Clone(upstream)
	r.servers = func() []string { return upstream }
	if len(upstream) == 0 {
		r.servers = new(systemServers).list
	}
	return r
}

// errNotAQuery refuses what is not even the header of a query.
var errNotAQuery = errors.New("not a DNS query")

// answer returns the reply to query. It fails only if there is nobody to reply to.
func (r *resolver) answer(ctx context.Context, network string, query []byte) ([]byte, error) {
	r.queries.Add(1)
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil, errNotAQuery
	}
	question, err := p.Question()
	if err != nil {
		r.failed.Add(1)
		return failure(h, nil, dnsmessage.RCodeFormatError), nil
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		r.failed.Add(1)
		return failure(h, &question, dnsmessage.RCodeServerFailure), nil
	}
	var worse []byte // an answer of a server that could not help
	for _, server := range r.servers() {
		reply, err := exchange(ctx, network, server, query, h.ID, question)
		if err != nil {
			continue
		}
		switch dnsmessage.RCode(reply[3] & 0xf) {
		case dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused, dnsmessage.RCodeNotImplemented:
			worse = reply
			continue
		}
		return reply, nil
	}
	r.failed.Add(1)
	if worse != nil {
		return worse, nil
	}
	return failure(h, &question, dnsmessage.RCodeServerFailure), nil
}

// exchange asks one server and returns its reply to the question, at least a header.
func exchange(ctx context.Context, network, server string, query []byte, id uint16, question dnsmessage.Question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, fmt.Errorf("ask name server %s: %w", server, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if network == "tcp" {
		if err := writeDNS(c, query); err != nil {
			return nil, fmt.Errorf("ask name server %s: %w", server, err)
		}
		reply, err := readDNS(c)
		if err != nil || !answers(reply, id, question) {
			return nil, fmt.Errorf("read the answer of name server %s: %w", server, err)
		}
		return reply, nil
	}
	if _, err := c.Write(query); err != nil {
		return nil, fmt.Errorf("ask name server %s: %w", server, err)
	}
	b := make([]byte, maxDatagram)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, fmt.Errorf("read the answer of name server %s: %w", server, err)
		}
		// Whatever else arrives on the port is not an answer (RFC 5452 section 3).
		if answers(b[:n], id, question) {
			return b[:n], nil
		}
	}
}

// answers reports whether b is a reply to the question.
func answers(b []byte, id uint16, question dnsmessage.Question) bool {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || !h.Response || h.ID != id {
		return false
	}
	q, err := p.Question()
	if err == dnsmessage.ErrSectionDone {
		return h.RCode != dnsmessage.RCodeSuccess // some servers refuse without it
	}
	return err == nil && q.Type == question.Type && q.Class == question.Class && equalNames(q.Name, question.Name)
}

// equalNames compares names as DNS does, without regard to case.
func equalNames(a, b dnsmessage.Name) bool {
	lower := func(c byte) byte {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}
	if a.Length != b.Length {
		return false
	}
	for i := range a.Length {
		if lower(a.Data[i]) != lower(b.Data[i]) {
			return false
		}
	}
	return true
}

// failure returns a reply without answers.
func failure(h dnsmessage.Header, question *dnsmessage.Question, code dnsmessage.RCode) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode,
		RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: code,
	})
	if question != nil {
		b.StartQuestions()
		b.Question(*question)
	}
	reply, err := b.Finish()
	if err != nil {
		// A question that was parsed can be packed again.
		return nil
	}
	return reply
}

// serveUDP answers the queries of one guest's port. A stub resolver asks for IPv4
// and IPv6 addresses from one port at once, so queries do not wait for another.
func (r *resolver) serveUDP(ctx context.Context, c net.Conn) {
	var pending sync.WaitGroup
	defer pending.Wait()
	b := make([]byte, maxDatagram)
	for {
		c.SetReadDeadline(time.Now().Add(dnsIdle))
		n, err := c.Read(b)
		if err != nil {
			return
		}
		query := slices.Clone(b[:n])
		pending.Go(func() {
			if reply, err := r.answer(ctx, "udp", query); err == nil {
				c.Write(reply)
			}
		})
	}
}

// serveTCP answers the queries of one connection, in order.
func (r *resolver) serveTCP(ctx context.Context, c net.Conn) {
	for {
		c.SetDeadline(time.Now().Add(dnsIdle))
		query, err := readDNS(c)
		if err != nil {
			return
		}
		reply, err := r.answer(ctx, "tcp", query)
		if err != nil {
			return
		}
		c.SetDeadline(time.Now().Add(dnsIdle))
		if writeDNS(c, reply) != nil {
			return
		}
	}
}

// readDNS reads a message with its length in front (RFC 1035 section 4.2.2).
func readDNS(c io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n < dnsHeaderSize {
		return nil, fmt.Errorf("DNS message of %d bytes, want at least %d", n, dnsHeaderSize)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}

// writeDNS writes a message with its length in front.
func writeDNS(c io.Writer, m []byte) error {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(m)), uint16(len(m)))
	_, err := c.Write(append(b, m...))
	return err
}
