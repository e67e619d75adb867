package goim_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/goim"
	"github.com/halley-im/halley/logic/internal/idempotency"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
)

// The names of these tests begin with the ids of the goim contract's conformance cases; here they are held at the handler, with fakes behind it.

func one(t *testing.T, f *fixture) push.Request {
	t.Helper()
	got := f.push.taken()
	if len(got) != 1 {
		t.Fatalf("got %d pushes, want 1", len(got))
	}
	return got[0]
}

func TestP01PushKeys(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/goim/push/keys?operation=1000&keys=d-7", `{"txt":"hi"}`).want(t, 200, typeJSON, success)
	r := one(t, f)
	if r.Op != 1000 || !slices.Equal(r.Keys, []string{"d-7"}) || string(r.Body) != `{"txt":"hi"}` || r.Tenant != "default" || r.System || r.All {
		t.Errorf("got %+v", r)
	}
	if f.scope != apikey.Push {
		t.Errorf("asked for scope %s", f.scope)
	}
}

func TestP02PushToUnknownKeyIsSuccess(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/goim/push/keys?operation=1000&keys=nobody", "x").want(t, 200, typeJSON, success)
	// A key that no session can have is an unknown one too.
	f.do("POST", "/goim/push/keys?operation=1000&keys=a%20b&keys=", "x").want(t, 200, typeJSON, success)
	if got := f.push.taken(); len(got) != 2 || len(got[1].Keys) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestP03PushToSeveralKeys(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/goim/push/keys?keys=a&operation=1001&keys=b%2Dc", "x").want(t, 200, typeJSON, success)
	if r := one(t, f); !slices.Equal(r.Keys, []string{"a", "b-c"}) {
		t.Errorf("got %v", r.Keys)
	}
}

func TestP04OperationIsHandedOn(t *testing.T) {
	f := setUp(t)
	for query, want := range map[string]int32{"operation=1999&": 1999, "": 0, "operation=&": 0, "operation=5&": 5, "operation=2147483647&": 2147483647, "operation=1&operation=2&": -1} {
		a := f.do("POST", "/goim/push/keys?"+query+"keys=a", "x")
		if want == -1 {
			if a.status != 400 {
				t.Errorf("%q: got %d", query, a.status)
			}
			continue
		}
		a.want(t, 200, typeJSON, success)
		if r := one(t, f); r.Op != want {
			t.Errorf("%q: got op %d, want %d", query, r.Op, want)
		}
	}
}

func TestP06PushWithoutKeys(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/goim/push/keys?operation=1000", "x").want(t, 200, typeJSON, `{"code":-400,"message":""}`)
	if n := len(f.push.taken()); n != 0 {
		t.Errorf("got %d pushes", n)
	}
}

func TestP07PushMids(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/goim/push/mids?operation=1001&mids=41&mids=042&mids=9223372036854775807&mids=0&mids=-3", "ping").want(t, 200, typeJSON, success)
	if r := one(t, f); !slices.Equal(r.UIDs, []string{"41", "42", "9223372036854775807"}) || r.Op != 1001 || string(r.Body) != "ping" {
		t.Errorf("got %+v", r)
	}
	f.do("POST", "/goim/push/mids?operation=1001", "ping").want(t, 200, typeJSON, success)
}

func TestP08BadMids(t *testing.T) {
	f := setUp(t)
	for mids, message := range map[string]string{
		"abc":                  `strconv.ParseInt: parsing \"abc\": invalid syntax`,
		"1,2":                  `strconv.ParseInt: parsing \"1,2\": invalid syntax`,
		"99999999999999999999": `strconv.ParseInt: parsing \"99999999999999999999\": value out of range`,
	} {
		f.do("POST", "/goim/push/mids?operation=1000&mids="+mids, "x").want(t, 400, typeText, `{"code":-400,"message":"`+message+`"}`)
	}
	if n := len(f.push.taken()); n != 0 {
		t.Errorf("got %d pushes", n)
	}
}

func TestP10PushRoom(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/goim/push/room?operation=1002&type=live&room=77", `{"goal":1}`).want(t, 200, typeJSON, success)
	f.do("POST", "/goim/push/room?operation=1002&type=live&room=a%2Fb+c", "x").want(t, 200, typeJSON, success)
	got := f.push.taken()
	if !slices.Equal(got[0].Rooms, []string{"live://77"}) || !slices.Equal(got[1].Rooms, []string{"live://a/b c"}) || got[0].Op != 1002 {
		t.Errorf("got %+v", got)
	}
}

const required = `Key: '%[1]s' Error:Field validation for '%[1]s' failed on the 'required' tag`

func TestP11PushRoomParameters(t *testing.T) {
	f := setUp(t)
	opErr := fmt.Sprintf(required, "Op")
	for query, message := range map[string]string{
		"type=live&room=77":                fmt.Sprintf(required, "Op"),
		"operation=0&type=live&room=77":    opErr,
		"operation=1002&room=77":           fmt.Sprintf(required, "Type"),
		"operation=1002&type=&room=77":     fmt.Sprintf(required, "Type"),
		"operation=1002&type=live":         fmt.Sprintf(required, "Room"),
		"":                                 opErr + `\n` + fmt.Sprintf(required, "Type") + `\n` + fmt.Sprintf(required, "Room"),
		"operation=x&type=live&room=77":    `strconv.ParseInt: parsing \"x\": invalid syntax`,
		"operation=9e9&type=live&room=77":  `strconv.ParseInt: parsing \"9e9\": invalid syntax`,
		"operation=2147483648&type=a&room": `strconv.ParseInt: parsing \"2147483648\": value out of range`,
	} {
		f.do("POST", "/goim/push/room?"+query, "x").want(t, 400, typeText, `{"code":-400,"message":"`+message+`"}`)
	}
	for _, query := range []string{"type=presence&room=ann", "type=meeting&room=1", "type=a&room=%00", "type=a&room=" + strings.Repeat("x", 255)} {
		if a := f.do("POST", "/goim/push/room?operation=1000&"+query, "x"); a.status != 400 || a.header.Get("Content-Type") != typeText || !strings.HasPrefix(a.body, `{"code":-400,"message":"`) {
			t.Errorf("%.30s: got %d %s", query, a.status, a.body)
		}
	}
	if n := len(f.push.taken()); n != 0 {
		t.Errorf("got %d pushes", n)
	}
}

func TestP14P15PushAll(t *testing.T) {
	f := setUp(t)
	for query, want := range map[string]uint32{"": 0, "&speed=100000": 100000, "&speed=": 0, "&speed=-5": 0} {
		f.do("POST", "/goim/push/all?operation=1002"+query, `{"note":"bye"}`).want(t, 200, typeJSON, success)
		if r := one(t, f); !r.All || r.Speed != want || r.Op != 1002 {
			t.Errorf("%q: got %+v", query, r)
		}
	}
}

func TestP16PushAllParameters(t *testing.T) {
	f := setUp(t)
	for query, message := range map[string]string{
		"":                       fmt.Sprintf(required, "Op"),
		"operation=0":            fmt.Sprintf(required, "Op"),
		"operation=x":            `strconv.ParseInt: parsing \"x\": invalid syntax`,
		"operation=1000&speed=x": `strconv.ParseInt: parsing \"x\": invalid syntax`,
	} {
		f.do("POST", "/goim/push/all?"+query, "x").want(t, 400, typeText, `{"code":-400,"message":"`+message+`"}`)
	}
}

func TestP17P18P19BodiesAreUnchanged(t *testing.T) {
	f := setUp(t)
	bytes256 := make([]byte, 256)
	for i := range bytes256 {
		bytes256[i] = byte(i)
	}
	for name, body := range map[string][]byte{
		"empty": nil, "all bytes": bytes256, "pooled": bytes.Repeat([]byte("y"), 4<<10), "not pooled": bytes.Repeat([]byte("y"), 4<<10+1),
		"64 KiB": bytes.Repeat([]byte("x"), 64<<10),
	} {
		for _, chunked := range []bool{false, true} {
			r := httptest.NewRequest("POST", "/goim/push/mids?operation=1000&mids=1", bytes.NewReader(body))
			if chunked {
				r.ContentLength = -1
			}
			w := httptest.NewRecorder()
			f.handler.ServeHTTP(w, r)
			if w.Body.String() != success {
				t.Fatalf("%s: got %d %s", name, w.Code, w.Body)
			}
			if got := one(t, f); !bytes.Equal(got.Body, body) {
				t.Errorf("%s: %d bytes came as %d", name, len(body), len(got.Body))
			}
		}
	}
	a := f.do("POST", "/goim/push/mids?operation=1000&mids=1", strings.Repeat("x", 64<<10+1))
	a.want(t, 413, typeText, `{"code":-400,"message":"body: at most 65536 bytes"}`)
}

func TestP20UnknownPathsAndMethods(t *testing.T) {
	f := setUp(t)
	for _, c := range [][2]string{
		{"GET", "/goim/push/keys"}, {"HEAD", "/goim/push/all"}, {"PUT", "/goim/push/mids"}, {"POST", "/goim/online/total"}, {"GET", "/goim/nothing"},
		{"POST", "/goim/push/mids=5"}, {"GET", "/goim/"}, {"POST", "/goim/push/keys/"}, {"POST", "/1/nothing"},
	} {
		a := f.do(c[0], c[1], "")
		if a.status != 404 || a.header.Get("Content-Type") != typeText {
			t.Errorf("%v: got %d %s", c, a.status, a.header.Get("Content-Type"))
		}
	}
	if n := len(f.push.taken()); n != 0 {
		t.Errorf("got %d pushes", n)
	}
}

func TestP21FormContentTypeChangesNothing(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/goim/push/mids?operation=1000&mids=1", `{"m":"a=b&mids=2","u":1}`, "Content-Type", "application/x-www-form-urlencoded").want(t, 200, typeJSON, success)
	if r := one(t, f); string(r.Body) != `{"m":"a=b&mids=2","u":1}` || !slices.Equal(r.UIDs, []string{"1"}) {
		t.Errorf("got %+v", r)
	}
}

func TestProtocolOperationsAreRefused(t *testing.T) {
	f := setUp(t)
	for _, path := range []string{"keys?keys=a&", "mids?mids=1&", "room?type=a&room=1&", "all?"} {
		for _, op := range []int{1, 2, 3, 4, 6, 7, 8, 9, 12, 17, 100, 102, 199, -1} {
			a := f.do("POST", fmt.Sprintf("/goim/push/%soperation=%d", path, op), "x")
			a.want(t, 400, typeText, fmt.Sprintf(`{"code":-400,"message":"operation %d belongs to the protocol"}`, op))
		}
		for _, op := range []int{5, 18, 99, 200, 999, 1000} {
			f.do("POST", fmt.Sprintf("/goim/push/%soperation=%d", path, op), "x").want(t, 200, typeJSON, success)
		}
	}
}

func TestFailureBehindIsGoimsCode(t *testing.T) {
	f := setUp(t)
	f.push.err = kafkaOut
	f.do("POST", "/goim/push/keys?operation=1000&keys=a", "x").want(t, 200, typeJSON, `{"code":-400,"message":""}`)
	for _, path := range []string{"mids?operation=1000&mids=1", "room?operation=1000&type=a&room=1", "all?operation=1000"} {
		f.do("POST", "/goim/push/"+path, "x").want(t, 200, typeJSON, `{"code":-500,"message":"the service can't answer now"}`)
	}
	f.push.err = errOdd
	f.do("POST", "/goim/push/all?operation=1000", "x").want(t, 200, typeJSON, `{"code":-500,"message":"something went wrong on our side"}`)
	f.push.err = errcode.TooLarge.Errorf("targets and exclusions: at most 10000")
	f.do("POST", "/goim/push/mids?operation=1000&mids=1", "x").want(t, 413, typeText, `{"code":-400,"message":"targets and exclusions: at most 10000"}`)
}

func TestRefusedCallersAreTold(t *testing.T) {
	f := setUp(t)
	f.admit = errcode.Unauthenticated
	a := f.do("POST", "/goim/push/all?operation=1000", "x")
	a.want(t, 401, typeJSON, `{"code":-401,"message":"a valid token or API key is required"}`)
	if a.header.Get("WWW-Authenticate") == "" {
		t.Error("no WWW-Authenticate")
	}
	f.do("POST", "/1/push/all", "x").want(t, 401, typeJSON, `{"ret":65535}`)
	f.admit = errcode.Forbidden
	f.do("GET", "/goim/online/total", "").want(t, 403, typeJSON, `{"code":-403,"message":"not allowed"}`)
	f.admit = errcode.RateLimited.After(1500 * 1e6)
	a = f.do("POST", "/goim/push/all?operation=1000", "x")
	a.want(t, 429, typeJSON, `{"code":-429,"message":"too many requests"}`)
	if a.header.Get("Retry-After") != "2" {
		t.Errorf("got Retry-After %q", a.header.Get("Retry-After"))
	}
	if n := len(f.push.taken()); n != 0 {
		t.Errorf("got %d pushes", n)
	}
}

func TestIdempotencyKeyMakesThePushID(t *testing.T) {
	f := setUp(t)
	for range 2 {
		f.do("POST", "/goim/push/all?operation=1000", "x", "Idempotency-Key", "k").want(t, 200, typeJSON, success)
		want := idempotency.PushID(idempotency.Scope{Tenant: "default", APIKey: "a", Path: "/goim/push/all"}, "k")
		if r := one(t, f); r.ID != want {
			t.Errorf("got id %q, want %q", r.ID, want)
		}
	}
	f.do("POST", "/goim/push/all?operation=1000", "x").want(t, 200, typeJSON, success)
	if r := one(t, f); r.ID != "" {
		t.Errorf("got id %q: push makes it", r.ID)
	}
	if a := f.do("POST", "/goim/push/all?operation=1000", "x", "Idempotency-Key", "a\x01"); a.status != 400 {
		t.Errorf("got %d", a.status)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*goim.Config){
		"room type reserved": func(c *goim.Config) { c.RoomType = "presence" },
		"room type empty":    func(c *goim.Config) { c.RoomType = "" },
		"heartbeat":          func(c *goim.Config) { c.Heartbeat = 0 },
		"heartbeat max":      func(c *goim.Config) { c.HeartbeatMax = 0 },
	} {
		c := config
		change(&c)
		if _, err := goim.New(c, goim.Deps{MaxBodyBytes: 1, Timeout: 1}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, q := range []string{"operation=1000&mids=1", "mids=a%zz", "keys=%00&;=1&&=&a", "operation=&operation=7&speed=-1&type=%ff&room=+"} {
		f.Add(q, "x")
	}
	f.Fuzz(func(t *testing.T, query, body string) {
		fx := setUp(t)
		for _, path := range []string{"/goim/push/keys", "/goim/push/mids", "/goim/push/room", "/goim/push/all", "/1/push", "/1/pushs", "/1/push/room"} {
			r := httptest.NewRequest("POST", path, strings.NewReader(body))
			r.URL.RawQuery = query
			w := httptest.NewRecorder()
			fx.handler.ServeHTTP(w, r)
			if w.Code != 200 && w.Code != 400 && w.Code != 413 {
				t.Errorf("%s?%q: got %d", path, query, w.Code)
			}
		}
		for _, r := range fx.push.taken() {
			if r.Op > 0 && r.Op < 18 && r.Op != 5 || r.System || r.Tenant != "default" {
				t.Errorf("%q: got %+v", query, r)
			}
		}
	})
}
