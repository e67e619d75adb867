//go:build !linux

package main

import "errors"

type benchCmd struct{}

// Run says why it doesn't.
func (benchCmd) Run() error {
	return errors.New("bench needs Linux: its client stands on epoll, and it reads /proc")
}
