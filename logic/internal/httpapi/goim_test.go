package httpapi_test

import (
	"slices"
	"testing"

	"github.com/halley-im/halley/logic/internal/httpapi"
)

func TestGoimWantsAKeyUnlessItIsOpen(t *testing.T) {
	s := newServer(t)
	paths := map[string]string{
		"POST /goim/push/keys?operation=1000&keys=a": "push", "POST /goim/push/mids?operation=1000&mids=1": "push", "POST /goim/push/all?operation=1000": "push",
		"POST /goim/push/room?operation=1000&type=a&room=1": "push", "GET /goim/online/total": "read", "GET /goim/online/top?type=a&limit=1": "read",
		"GET /goim/online/room?type=a&rooms=1": "read", "GET /goim/nodes/weighted": "read", "GET /goim/nodes/instances": "read", "POST /1/push?uid=1": "push",
		"POST /1/pushs": "push", "POST /1/push/room?rid=1": "push", "POST /1/push/all": "push", "GET /1/count?type=room": "read",
	}
	for target, key := range paths {
		method, path := target[:slices.Index([]byte(target), ' ')], target[slices.Index([]byte(target), ' ')+1:]
		body := ""
		if method == "POST" {
			body = `{"u":[1],"m":1}`
		}
		if a := s.do(method, path, "", body); a.status != 401 || a.header.Get("X-Request-Id") != "" {
			t.Errorf("%s without a key: got %d %s", target, a.status, a.body)
		}
		if a := s.do(method, path, "token", body); a.status != 403 {
			t.Errorf("%s with the wrong scope: got %d %s", target, a.status, a.body)
		}
		if a := s.do(method, path, key, body); a.status != 200 {
			t.Errorf("%s: got %d %s", target, a.status, a.body)
		}
	}
	s.kafka.taken()

	open := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.GoimOpen = httpapi.Loopback })
	for target := range paths {
		method, path := target[:slices.Index([]byte(target), ' ')], target[slices.Index([]byte(target), ' ')+1:]
		body := ""
		if method == "POST" {
			body = `{"u":[1],"m":1}`
		}
		if a := open.do(method, path, "", body); a.status != 200 {
			t.Errorf("%s in an open server: got %d %s", target, a.status, a.body)
		}
		// A web page can make a browser send these without being asked: no preflight.
		if a := open.do(method, path, "", body, "Origin", "https://evil.example", "Content-Type", "text/plain"); a.status != 403 {
			t.Errorf("%s from a foreign page: got %d", target, a.status)
		}
		if a := open.do(method, path, "", body, "Host", "evil.example"); a.status != 403 {
			t.Errorf("%s under a foreign name: got %d", target, a.status)
		}
		// A key that is there must be good.
		if a := open.do(method, path, "", body, "Authorization", "Bearer x"); a.status != 401 {
			t.Errorf("%s with a bad key: got %d", target, a.status)
		}
	}
	for _, r := range open.kafka.taken() {
		if r.GetTenant() != "default" {
			t.Errorf("got tenant %s", r.GetTenant())
		}
	}
	// Halley's own API is never open.
	open.do("POST", "/v1/push", "", `{"uids":["ann"]}`).want(t, 401, "unauthenticated")
	anywhere := newServer(t, func(_ *httpapi.Config, d *httpapi.Deps) { d.GoimOpen = httpapi.Anywhere })
	if a := anywhere.do("GET", "/goim/online/total", "", "", "Host", "im.example.org"); a.status != 200 {
		t.Errorf("got %d", a.status)
	}
}
