package httpapi_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-im/halley/logic/internal/httpapi"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

func TestPushReachesEveryKindOfTarget(t *testing.T) {
	s := newServer(t)
	a := s.do("POST", "/v1/push", "push", `{"uids":["ann","bob"],"keys":["k1"],"rooms":["chat://lobby"],"exclude_uids":["eve"],"exclude_keys":["k2"],
		"op":1007,"lane":"urgent","ttl":2.5,"json":{"a": 1}}`).want(t, 200, "")
	m := a.json(t)
	if m["accepted_at"] != float64(now.UnixMilli()) || len(m["id"].(string)) != 36 {
		t.Errorf("got %s", a.body)
	}
	recs := s.kafka.taken()
	if got, want := targets(recs), []string{"key:k1", "room:chat://lobby", "uid:ann", "uid:bob"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, r := range recs {
		if r.topic != topic.Urgent || r.GetId() != m["id"] || r.GetTenant() != "default" || r.GetClass() != halleyv1.Class_CLASS_VOLATILE {
			t.Errorf("got %s %v", r.topic, r)
		}
		if r.GetPush().GetOp() != 1007 || string(r.GetPush().GetBody()) != `{"a": 1}` {
			t.Errorf("got op %d body %q: JSON must be delivered as written", r.GetPush().GetOp(), r.GetPush().GetBody())
		}
		if r.GetExpiresAtMs() != now.Add(2500*time.Millisecond).UnixMilli() {
			t.Errorf("expires at %d", r.GetExpiresAtMs())
		}
		if !slices.Equal(r.GetExcludeUids(), []string{"eve"}) || !slices.Equal(r.GetExcludeKeys(), []string{"k2"}) {
			t.Errorf("got exclusions %v %v", r.GetExcludeUids(), r.GetExcludeKeys())
		}
	}
}

func TestPushBodies(t *testing.T) {
	s := newServer(t)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, c := range map[string]struct{ field, want string }{
		"text":   {`"text":"héllo"`, "héllo"},
		"base64": {`"base64":"` + base64.StdEncoding.EncodeToString(all) + `"`, string(all)},
		"none":   {`"op":1000`, ""},
		"empty":  {`"text":""`, ""},
		"null":   {`"json":null`, "null"},
		"string": {`"json":"x"`, `"x"`},
		"largest": {
			`"text":"` + strings.Repeat("x", 64<<10) + `"`, strings.Repeat("x", 64<<10),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.do("POST", "/v1/push", "push", `{"uids":["ann"],`+c.field+`}`).want(t, 200, "")
			recs := s.kafka.taken()
			if len(recs) != 1 {
				t.Fatalf("got %d records", len(recs))
			}
			if got := string(recs[0].GetPush().GetBody()); got != c.want {
				t.Errorf("got %.50q, want %.50q", got, c.want)
			}
			if recs[0].GetPush().GetOp() != 1000 {
				t.Errorf("got op %d, want 1000", recs[0].GetPush().GetOp())
			}
		})
	}
}

func TestPushToAllIsBulkAndPaced(t *testing.T) {
	s := newServer(t)
	s.do("POST", "/v1/push", "push", `{"all":true,"speed":5000,"lane":"urgent","text":"x"}`).want(t, 200, "")
	recs := s.kafka.taken()
	if len(recs) != 1 || recs[0].topic != topic.Bulk || recs[0].GetSpeed() != 5000 || !recs[0].GetTargets()[0].GetAll() {
		t.Errorf("got %v", recs)
	}
}

func TestPushRefuses(t *testing.T) {
	s := newServer(t)
	for name, c := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"no body":          {``, 400, "invalid_request"},
		"no JSON":          {`{`, 400, "invalid_request"},
		"not an object":    {`[]`, 400, "invalid_request"},
		"two values":       {`{"uids":["a"]}{}`, 400, "invalid_request"},
		"null":             {`null`, 400, "invalid_request"},
		"no target":        {`{"text":"x"}`, 400, "invalid_request"},
		"empty targets":    {`{"uids":[],"text":"x"}`, 400, "invalid_request"},
		"unknown field":    {`{"uids":["a"],"txet":"x"}`, 400, "invalid_request"},
		"wrong type":       {`{"uids":"a"}`, 400, "invalid_request"},
		"bad uid":          {`{"uids":["a b"]}`, 400, "invalid_request"},
		"bad room":         {`{"rooms":["lobby"]}`, 400, "invalid_request"},
		"reserved room":    {`{"rooms":["presence://ann"]}`, 403, "room_reserved"},
		"protocol op":      {`{"uids":["a"],"op":102}`, 400, "op_reserved"},
		"op 7":             {`{"uids":["a"],"op":7}`, 400, "op_reserved"},
		"negative op":      {`{"uids":["a"],"op":-1}`, 400, "op_reserved"},
		"huge op":          {`{"uids":["a"],"op":99999999999}`, 400, "invalid_request"},
		"all and a uid":    {`{"all":true,"uids":["a"]}`, 400, "invalid_request"},
		"speed alone":      {`{"uids":["a"],"speed":5}`, 400, "invalid_request"},
		"unknown lane":     {`{"uids":["a"],"lane":"chat"}`, 400, "invalid_request"},
		"negative ttl":     {`{"uids":["a"],"ttl":-1}`, 400, "invalid_request"},
		"endless ttl":      {`{"uids":["a"],"ttl":1e300}`, 400, "invalid_request"},
		"two bodies":       {`{"uids":["a"],"text":"x","json":1}`, 400, "invalid_request"},
		"bad base64":       {`{"uids":["a"],"base64":"$"}`, 400, "invalid_request"},
		"large text":       {`{"uids":["a"],"text":"` + strings.Repeat("x", 64<<10+1) + `"}`, 413, "too_large"},
		"too many targets": {`{"uids":["` + strings.Repeat(`a","`, 10_000) + `a"]}`, 413, "too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do("POST", "/v1/push", "push", c.body).want(t, c.status, c.code)
			if m := a.json(t); m["status"] != float64(c.status) || m["request_id"] != a.header.Get("X-Request-Id") || m["type"] != "/docs#"+c.code {
				t.Errorf("got %s", a.body)
			}
		})
	}
	if recs := s.kafka.taken(); len(recs) != 0 {
		t.Errorf("refused pushes made %d records", len(recs))
	}
}

func TestPushWithoutKafkaIs503WithRetryAfter(t *testing.T) {
	s := newServer(t)
	s.kafka.fail(errKafka)
	a := s.do("POST", "/v1/push", "push", `{"uids":["ann"],"text":"x"}`).want(t, 503, "unavailable")
	if a.header.Get("Retry-After") != "1" || a.json(t)["retry"] != true {
		t.Errorf("got Retry-After %q, %s", a.header.Get("Retry-After"), a.body)
	}
	if strings.Contains(a.body, "kafka") {
		t.Errorf("the answer shows the inside: %s", a.body)
	}
	s.do("POST", "/v1/push/batch", "push", `{"items":[{"uids":["ann"]}]}`).want(t, 503, "unavailable")
}

func TestBatchAnswersForEachItem(t *testing.T) {
	s := newServer(t)
	a := s.do("POST", "/v1/push/batch", "push", `{"items":[{"uids":["ann"],"text":"1"},{"uids":["a b"]},{"rooms":["chat://x"],"op":9},{"keys":["k"],"text":"4"},{}]}`).want(t, 200, "")
	m := a.json(t)
	if m["accepted"] != 2.0 || m["failed"] != 3.0 {
		t.Errorf("got %s", a.body)
	}
	var codes []string
	for _, item := range m["items"].([]any) {
		item := item.(map[string]any)
		if e, ok := item["error"].(map[string]any); ok {
			codes = append(codes, e["code"].(string))
		} else {
			codes = append(codes, fmt.Sprint(len(item["id"].(string))))
		}
	}
	if want := []string{"36", "invalid_request", "op_reserved", "36", "invalid_request"}; !slices.Equal(codes, want) {
		t.Errorf("got %v, want %v", codes, want)
	}
	if got, want := targets(s.kafka.taken()), []string{"key:k", "uid:ann"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBatchOfWhichKafkaTakesAPartTellsThemApart(t *testing.T) {
	rdb, prefix := redisFor(t)
	s := newServer(t, withRedis(rdb, prefix))
	s.kafka.refuse("uid:dave")
	// Keys are put into partitions by their length: dave's, ann's and the room's records are apart.
	body := `{"items":[{"uids":["ann"]},{"uids":["dave"]},{"uids":["a b"]},{"uids":["bob","dave"]},{"rooms":["chat://x"]}]}`
	send := func(status int) (accepted []string, failed map[int]string) {
		t.Helper()
		a := s.do("POST", "/v1/push/batch", "push", body, "Idempotency-Key", "k").want(t, status, "")
		m := a.json(t)
		failed = map[int]string{}
		for i, item := range m["items"].([]any) {
			item := item.(map[string]any)
			if e, ok := item["error"].(map[string]any); ok {
				failed[i] = fmt.Sprint(e["code"], " ", e["retry"], " ", e["retry_after_ms"])
				continue
			}
			accepted = append(accepted, item["id"].(string))
		}
		if m["accepted"] != float64(len(accepted)) || m["failed"] != float64(len(failed)) || a.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("got %s", a.body)
		}
		return accepted, failed
	}
	accepted, failed := send(207)
	want := map[int]string{1: "unavailable true 1000", 2: "invalid_request false <nil>", 3: "unavailable true 1000"}
	if len(accepted) != 2 || !maps.Equal(failed, want) {
		t.Errorf("accepted %v, failed %v, want 2 and %v", accepted, failed, want)
	}
	if got, want := targets(s.kafka.taken()), []string{"room:chat://x", "uid:ann", "uid:bob"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}

	// A part of an outcome is none to keep: the same request does better.
	s.kafka.refuse()
	again, failed := send(200)
	if len(again) != 4 || again[0] != accepted[0] || again[3] != accepted[1] || len(failed) != 1 {
		t.Errorf("accepted %v, then %v, failed %v", accepted, again, failed)
	}
	a := s.do("POST", "/v1/push/batch", "push", body, "Idempotency-Key", "k").want(t, 200, "")
	if a.header.Get("Idempotency-Replayed") != "true" {
		t.Error("the whole outcome isn't kept")
	}

	// None accepted is no part.
	s.kafka.refuse("uid:ann", "uid:bob", "uid:dave", "room:chat://x")
	s.do("POST", "/v1/push/batch", "push", body).want(t, 503, "unavailable")
}

func TestBatchIsBounded(t *testing.T) {
	s := newServer(t)
	item := `{"uids":["ann"]}`
	full := `{"items":[` + strings.TrimSuffix(strings.Repeat(item+",", 1000), ",") + `]}`
	if a := s.do("POST", "/v1/push/batch", "push", full).want(t, 200, ""); a.json(t)["accepted"] != 1000.0 {
		t.Errorf("got %.100s", a.body)
	}
	s.do("POST", "/v1/push/batch", "push", strings.Replace(full, "[", "["+item+",", 1)).want(t, 413, "too_large")
	s.do("POST", "/v1/push/batch", "push", `{"items":[]}`).want(t, 400, "invalid_request")
	s.do("POST", "/v1/push/batch", "push", `{}`).want(t, 400, "invalid_request")
}

func TestBodyIsJSONWhateverItIsCalled(t *testing.T) {
	s := newServer(t, demo(httpapi.Loopback))
	for _, ct := range []string{"", "application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"} {
		s.do("POST", "/v1/push", "push", `{"uids":["ann"]}`, "Content-Type", ct).want(t, 200, "")
	}
	// Without a key a page of somewhere else could send it.
	for _, ct := range []string{"application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"} {
		s.do("POST", "/v1/demo/login", "", `{"name":"ann"}`, "Content-Type", ct).want(t, 400, "invalid_request")
	}
}

func TestFaultsAreToldInTheWordsOfJSON(t *testing.T) {
	s := newServer(t)
	for body, want := range map[string]string{
		`{"uids":[1]}`: "uids: a number where a string belongs", `{"uids":"a"}`: "uids: a string where a list belongs", `{"all":"yes"}`: "all: a string where a bool belongs",
		`{"op":"x"}`: "op: a string where a number belongs", `{"txet":"x"}`: `unknown field \"txet\"`, `{"items":1}`: `unknown field \"items\"`, `[]`: ": a array where a object belongs",
	} {
		a := s.do("POST", "/v1/push", "push", body).want(t, 400, "invalid_request")
		if !strings.Contains(a.body, want) || strings.Contains(a.body, "Go ") {
			t.Errorf("%s: got %s", body, a.body)
		}
	}
}
