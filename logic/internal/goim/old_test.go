package goim_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/goim"
)

const (
	oldOK      = `{"ret":1}`
	oldFailure = `{"ret":65535}`
)

func TestL01OldPush(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/1/push?uid=41", "raw\x00").want(t, 200, typeJSON, oldOK)
	if r := one(t, f); r.Op != 5 || !slices.Equal(r.UIDs, []string{"41"}) || string(r.Body) != "raw\x00" {
		t.Errorf("got %+v", r)
	}
}

func TestL02OldPushs(t *testing.T) {
	f := setUp(t)
	for body, want := range map[string]string{
		`{"u":[4,5],"m":{"test": 1}}`: `{"test": 1}`, `{"m":"x","u":[4,5]}`: `"x"`, `{"u":[4,5,0,-1],"m":null}`: "null", `{"u":[4,5],"m":[1, 2],"more":1}`: "[1, 2]",
	} {
		f.do("POST", "/1/pushs", body).want(t, 200, typeJSON, oldOK)
		if r := one(t, f); r.Op != 5 || !slices.Equal(r.UIDs, []string{"4", "5"}) || string(r.Body) != want {
			t.Errorf("%s: got %+v", body, r)
		}
	}
}

func TestL03OldPushRoom(t *testing.T) {
	f := setUp(t, func(c *goim.Config) { c.RoomType = "live" })
	f.do("POST", "/1/push/room?rid=7&ensure=true", "x").want(t, 200, typeJSON, oldOK)
	f.do("POST", "/1/push/room?rid=7", "x").want(t, 200, typeJSON, oldOK)
	for _, r := range f.push.taken() {
		if r.Op != 5 || !slices.Equal(r.Rooms, []string{"live://7"}) {
			t.Errorf("got %+v", r)
		}
	}
}

func TestL04OldPushAll(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/1/push/all", "x").want(t, 200, typeJSON, oldOK)
	if r := one(t, f); r.Op != 5 || !r.All {
		t.Errorf("got %+v", r)
	}
}

func TestL05OldCount(t *testing.T) {
	f := setUp(t)
	f.router.rooms = map[string]uint32{"room://1": 9, "room://2": 4, "room://x": 50, "room://007": 3, "other://3": 2}
	f.router.comets = comets()
	f.do("GET", "/1/count?type=room", "").want(t, 200, typeJSON, `{"ret":1,"data":[{"RoomId":1,"Count":9},{"RoomId":2,"Count":4}]}`)
	f.do("GET", "/1/count?type=server", "").want(t, 200, typeJSON, `{"ret":1,"data":[{"Server":1,"Count":35},{"Server":2,"Count":5},{"Server":3,"Count":1},{"Server":4,"Count":50}]}`)
	f.do("GET", "/1/count?type=x", "").want(t, 200, typeJSON, `{"ret":1}`)
	f.do("GET", "/1/count", "").want(t, 200, typeJSON, `{"ret":1}`)
}

func TestL06OldBadParameters(t *testing.T) {
	f := setUp(t)
	for target, body := range map[string]string{
		"/1/push?uid=x": "x", "/1/push": "x", "/1/push?uid=0": "x", "/1/push?uid=99999999999999999999": "x",
		"/1/push/room?rid=x": "x", "/1/push/room": "x", "/1/push/room?rid=2147483648": "x", "/1/push/room?rid=1&ensure=perhaps": "x",
		"/1/pushs": "{", "/1/pushs?1": `{"u":["4"],"m":1}`, "/1/pushs?2": `{"m":1}`, "/1/pushs?3": `{"u":[4]}`, "/1/pushs?4": "",
		"/1/pushs?5": `{"u":[4],"m":"` + strings.Repeat("x", 64<<10) + `"}`, "/1/pushs?6": `{"u":[` + strings.Repeat("1,", 10_000) + `1],"m":1}`,
		"/1/server/del": "", "/1/server/del?server=x": "",
	} {
		f.do("POST", target, body).want(t, 200, typeJSON, oldFailure)
	}
	if n := len(f.push.taken()); n != 0 {
		t.Errorf("got %d pushes", n)
	}
	f.push.err = kafkaOut
	f.do("POST", "/1/push?uid=1", "x").want(t, 200, typeJSON, oldFailure)
}

func TestL07OldWrongMethod(t *testing.T) {
	f := setUp(t)
	for path, allow := range map[string]string{"/1/push": "POST", "/1/pushs": "POST", "/1/push/room": "POST", "/1/push/all": "POST", "/1/count": "GET", "/1/server/del": "POST"} {
		if a := f.do("PUT", path, ""); a.status != 405 || a.header.Get("Allow") != allow {
			t.Errorf("%s: got %d, Allow %q", path, a.status, a.header.Get("Allow"))
		}
	}
}

func TestOldServerDelHasNothingToDo(t *testing.T) {
	f := setUp(t)
	f.do("POST", "/1/server/del?server=3", "").want(t, 200, typeJSON, oldOK)
	if f.scope != apikey.Admin {
		t.Errorf("asked for scope %s", f.scope)
	}
}

// BenchmarkPush is what a push costs before Kafka.
func BenchmarkPush(b *testing.B) {
	for _, target := range []string{"mids?operation=1000&mids=123456", "keys?operation=1000&keys=d-7", "room?operation=1000&type=test&room=1"} {
		b.Run(target[:4], func(b *testing.B) {
			f := setUp(b)
			f.push.keep = false
			body := strings.Repeat("x", 100)
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				w.Body = nil
				f.handler.ServeHTTP(w, httptest.NewRequest("POST", "/goim/push/"+target, strings.NewReader(body)))
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
