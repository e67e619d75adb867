// Package loopback tells what is this machine's own: addresses that only it can reach, and names of itself in a Host header.
// Whoever listens on loopback and trusts those who come must look at both: a web page of anywhere may have its own host name
// resolve to 127.0.0.1 (DNS rebinding), and its requests then come from here, and to their own origin.
package loopback

import (
	"net"
	"strings"
)

// Addr reports whether only this machine can reach a. What isn't known to be so isn't.
func Addr(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UDPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	host, _, err := net.SplitHostPort(a.String())
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// Host reports whether a Host header, with or without port, names this machine: localhost, or an address of loopback.
func Host(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
