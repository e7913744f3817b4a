package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"hvnet/internal/lab"
)

// The programs below are what scripts talk to, and with: the test binary under
// another name.

// fail ends a program with a sentence.
func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// testDNS is a name server: testdns ADDR:PORT NAME=ADDR answers IPv4 queries for
// one name, and that no other exists. It prints its own address.
func testDNS() {
	var name, value string
	for i, c := range os.Args[2] {
		if c == '=' {
			name, value = os.Args[2][:i]+".", os.Args[2][i+1:]
		}
	}
	c, err := net.ListenPacket("udp", os.Args[1])
	if err != nil {
		fail(err)
	}
	fmt.Println("serving", c.LocalAddr())
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			fail(err)
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		fmt.Println("asked for", q.Name)
		m = dnsmessage.Message{
			Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true},
			Questions: m.Questions,
		}
		switch {
		case q.Name.String() != name:
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(value).To4())},
			}}
		}
		b, err := m.Pack()
		if err != nil {
			fail(err)
		}
		c.WriteTo(b, from)
	}
}

// testEcho is a TCP server: testecho ADDR:PORT prints where it listens, accepts
// one connection, prints from where, and sends back what comes.
func testEcho() {
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fail(err)
	}
	fmt.Println("listening on", l.Addr())
	c, err := l.Accept()
	if err != nil {
		fail(err)
	}
	fmt.Println("connection from", c.RemoteAddr())
	c.SetDeadline(time.Now().Add(lab.Patience))
	if _, err := io.Copy(c, c); err != nil {
		fail(err)
	}
	c.(*net.TCPConn).CloseWrite()
}

// testDial is a TCP client: testdial ADDR:PORT TEXT sends the text and prints what
// comes back.
func testDial() {
	c, err := net.DialTimeout("tcp", os.Args[1], lab.Patience)
	if err != nil {
		fail(err)
	}
	c.SetDeadline(time.Now().Add(lab.Patience))
	if _, err := io.WriteString(c, os.Args[2]); err != nil {
		fail(err)
	}
	c.(*net.TCPConn).CloseWrite()
	if _, err := io.Copy(os.Stdout, c); err != nil {
		fail(err)
	}
	fmt.Println()
}
