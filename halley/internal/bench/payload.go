//go:build linux

// Package bench is a load generator: many cheap sessions on one epoll loop, pushes at a rate over the HTTP API, and the
// books: what came, what is missing, what came twice or out of order, how long it took, and what each server process spent on
// it. It runs on Linux only.
//
// The client is made to cost little, for it shares the machine with what it measures: one loop reads all sockets
// with raw system calls into one buffer, parses in place and counts; nothing is allocated for a delivery.
package bench

import (
	"encoding/hex"
	"time"
)

// payloadLen is the length of a body: a JSON string of 35 hexadecimal digits, so that both push APIs carry it
// unchanged. It is the size that earlier measurements of such servers used.
const payloadLen = 37

// payload is what a body says: which run and stream it belongs to, its number in the run, and when it was sent.
type payload struct {
	run    uint16
	stream uint16
	seq    uint32
	sent   time.Duration // since the epoch of the process
}

// epoch is the zero of all times in bodies; sender and reader are one process.
var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// append appends the body to dst.
func (p payload) append(dst []byte) []byte {
	var raw [18]byte
	raw[0], raw[1] = byte(p.run>>8), byte(p.run)
	raw[2], raw[3] = byte(p.stream>>8), byte(p.stream)
	for i := range 4 {
		raw[4+i] = byte(p.seq >> (24 - 8*i))
	}
	for i := range 8 {
		raw[8+i] = byte(p.sent >> (56 - 8*i))
	}
	var digits [36]byte
	hex.Encode(digits[:], raw[:])
	dst = append(dst, '"')
	dst = append(dst, digits[:payloadLen-2]...)
	return append(dst, '"')
}

// parse reads a body; ok is false if it isn't one of ours.
func parse(b []byte) (p payload, ok bool) {
	if len(b) != payloadLen || b[0] != '"' || b[payloadLen-1] != '"' {
		return p, false
	}
	var bad byte
	num := func(from, to int) (v uint64) {
		for _, c := range b[from:to] {
			d := unhex[c]
			bad |= d
			v = v<<4 | uint64(d&15)
		}
		return v
	}
	p.run = uint16(num(1, 5))
	p.stream = uint16(num(5, 9))
	p.seq = uint32(num(9, 17))
	p.sent = time.Duration(num(17, 33))
	return p, bad&0xf0 == 0
}

// unhex maps a digit to its value and anything else to 0xff.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()
