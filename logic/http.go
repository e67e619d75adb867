package logic

import "net/http"

// HTTPConfig is what can be set of the HTTP API.
type HTTPConfig struct{}

// handler makes the handler of the HTTP API.
func (l *Logic) handler() (http.Handler, error) { return http.NotFoundHandler(), nil }
