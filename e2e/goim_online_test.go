package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/halley-im/halley/proto/frame"
)

// data makes a GET that must go well and decodes its data.
func (g *goim) data(path string, query url.Values, into any) {
	g.Helper()
	a := g.call("GET", path, query, "", nil)
	if a.status != 200 || a.Code == nil || *a.Code != 0 || a.Message == nil || *a.Message != "" {
		g.Fatalf("GET %s?%s: got HTTP %d %s, want 200 with code 0", path, query.Encode(), a.status, a.body)
	}
	if err := json.Unmarshal(a.Data, into); err != nil {
		g.Fatalf("GET %s: data %s: %v", path, a.Data, err)
	}
}

func (g *goim) roomCounts(typ string, ids ...string) map[string]int {
	g.Helper()
	counts := map[string]int{}
	g.data("/goim/online/room", url.Values{"type": {typ}, "rooms": ids}, &counts)
	return counts
}

type roomCount struct {
	RoomID string `json:"room_id"`
	Count  int    `json:"count"`
}

func (g *goim) top(typ string, limit int) []roomCount {
	g.Helper()
	var rooms []roomCount
	a := g.call("GET", "/goim/online/top", url.Values{"type": {typ}, "limit": {strconv.Itoa(limit)}}, "", nil)
	if a.status != 200 || a.Code == nil || *a.Code != 0 {
		g.Fatalf("online/top: got HTTP %d %s", a.status, a.body)
	}
	if !strings.HasPrefix(string(a.Data), "[") {
		g.Fatalf("online/top: got data %s, want a list", a.Data)
	}
	if err := json.Unmarshal(a.Data, &rooms); err != nil {
		g.Fatal(err)
	}
	return rooms
}

var onlineCases = []goimCase{
	{"O01", "online/total counts connections and addresses", "-", func(g *goim) {
		for i := range 7 {
			g.loginOver([]string{"tcp", "ws"}[i%2], tok{"mid": fresh()})
		}
		g.within(45*time.Second, "conn_count 7 or more, ip_count 1 or more", func() bool {
			var total struct {
				Conns int64 `json:"conn_count"`
				IPs   int64 `json:"ip_count"`
			}
			g.data("/goim/online/total", nil, &total)
			return total.Conns >= 7 && total.IPs >= 1
		})
	}},
	{"O02", "online/room and heartbeats count a room's members", "TW", func(g *goim) {
		id, unknown := freshName(), freshName()
		var conns []*Conn
		for range 4 {
			conns = append(conns, g.login(tok{"mid": fresh(), "room_id": "live://" + id}))
		}
		g.within(45*time.Second, "online/room says 4 and 0, heartbeats say 4", func() bool {
			counts := g.roomCounts("live", id, unknown)
			zero, there := counts[unknown]
			return len(counts) == 2 && counts[id] == 4 && there && zero == 0 && g.alive(conns[0]) == 4 && g.alive(conns[3]) == 4
		})
	}},
	{"O03", "online/top falls by count, as many as asked for", "TW", func(g *goim) {
		typ := "t" + freshName()
		for _, n := range []int{1, 3, 2} {
			for range n {
				g.login(tok{"mid": fresh(), "room_id": fmt.Sprintf("%s://%d", typ, n)})
			}
		}
		g.within(45*time.Second, "rooms 3, 2, 1", func() bool {
			return fmt.Sprint(g.top(typ, 10)) == "[{3 3} {2 2} {1 1}]"
		})
		if got := fmt.Sprint(g.top(typ, 2)); got != "[{3 3} {2 2}]" {
			g.Errorf("limit 2: got %s", got)
		}
	}},
	{"O04", "online/top of an unknown type is an empty list", "-", func(g *goim) {
		if rooms := g.top("t"+freshName(), 10); len(rooms) != 0 {
			g.Errorf("got %v, want none", rooms)
		}
	}},
	{"O05", "online calls with a parameter missing are refused", "-", func(g *goim) {
		for _, q := range []string{"/goim/online/top?type=live", "/goim/online/top?limit=2", "/goim/online/top?type=live&limit=0", "/goim/online/top?type=live&limit=x", "/goim/online/room?type=live", "/goim/online/room?rooms=1"} {
			path, query, _ := strings.Cut(q, "?")
			v, _ := url.ParseQuery(query)
			g.refused(q, g.call("GET", path, v, "", nil))
		}
	}},
	{"O06", "a room that emptied counts 0", "TW", func(g *goim) {
		id := freshName()
		conns := []*Conn{g.login(tok{"mid": fresh(), "room_id": "live://" + id}), g.login(tok{"mid": fresh(), "room_id": "live://" + id})}
		g.within(45*time.Second, "online/room says 2", func() bool { return g.roomCounts("live", id)[id] == 2 })
		conns[0].Close()
		g.changeRoom(conns[1], "")
		g.within(45*time.Second, "online/room says 0", func() bool { return g.roomCounts("live", id)[id] == 0 })
	}},
	{"O07", "a negative limit is no server error", "-", func(g *goim) {
		a := g.call("GET", "/goim/online/top", url.Values{"type": {"live"}, "limit": {"-1"}}, "", nil)
		if a.status >= 500 {
			g.Errorf("got HTTP %d %s", a.status, a.body)
		}
	}},
	{"O08", "a type's prefix is another type", "TW", func(g *goim) {
		typ := "t" + freshName()
		g.login(tok{"mid": fresh(), "room_id": typ + "://1"})
		g.within(45*time.Second, "the room is there", func() bool { return len(g.top(typ, 10)) == 1 })
		if rooms := g.top(typ[:len(typ)-1], 10); len(rooms) != 0 {
			g.Errorf("got %v, want none", rooms)
		}
	}},
	{"N01", "nodes/weighted has all its fields", "-", func(g *goim) {
		for _, platform := range []string{"web", "ios", ""} {
			var n struct {
				Domain    *string  `json:"domain"`
				TCPPort   *int32   `json:"tcp_port"`
				WSPort    *int32   `json:"ws_port"`
				Heartbeat *int32   `json:"heartbeat"`
				Nodes     []string `json:"nodes"`
				Backoff   *struct {
					MaxDelay  *int32   `json:"max_delay"`
					BaseDelay *int32   `json:"base_delay"`
					Factor    *float64 `json:"factor"`
					Jitter    *float64 `json:"jitter"`
				} `json:"backoff"`
				HeartbeatMax *int32 `json:"heartbeat_max"`
			}
			query := url.Values{}
			if platform != "" {
				query.Set("platform", platform)
			}
			g.data("/goim/nodes/weighted", query, &n)
			if n.Domain == nil || n.TCPPort == nil || n.WSPort == nil || n.Heartbeat == nil || len(n.Nodes) == 0 || n.HeartbeatMax == nil ||
				n.Backoff == nil || n.Backoff.MaxDelay == nil || n.Backoff.BaseDelay == nil || n.Backoff.Factor == nil || n.Backoff.Jitter == nil {
				g.Errorf("platform %q: a field is missing: %+v", platform, n)
				continue
			}
			if len(n.Nodes) > 5 || *n.Heartbeat < 1 || *n.HeartbeatMax < 1 {
				g.Errorf("platform %q: got %+v", platform, n)
			}
		}
	}},
	{"N02", "nodes/instances lists the comets", "-", func(g *goim) {
		var list []struct {
			Region    *string           `json:"region"`
			Zone      *string           `json:"zone"`
			Env       *string           `json:"env"`
			AppID     *string           `json:"appid"`
			Hostname  *string           `json:"hostname"`
			Addrs     []string          `json:"addrs"`
			Version   *string           `json:"version"`
			Timestamp *int64            `json:"latest_timestamp"`
			Metadata  map[string]string `json:"metadata"`
		}
		g.data("/goim/nodes/instances", nil, &list)
		if len(list) < len(g.site.tcp) {
			g.Fatalf("got %d instances, want %d", len(list), len(g.site.tcp))
		}
		for _, n := range list {
			if n.Region == nil || n.Zone == nil || n.Env == nil || n.AppID == nil || *n.AppID != "goim.comet" || n.Hostname == nil || *n.Hostname == "" ||
				n.Version == nil || n.Timestamp == nil || len(n.Addrs) == 0 || !strings.HasPrefix(n.Addrs[0], "grpc://") {
				g.Errorf("a field is missing: %+v", n)
			}
			for _, key := range []string{"weight", "offline", "addrs", "conn_count", "ip_count"} {
				if _, ok := n.Metadata[key]; !ok {
					g.Errorf("metadata %q is missing: %v", key, n.Metadata)
				}
			}
		}
	}},
}

// ret makes a request of the older API and checks ret.
func (g *goim) ret(want int, method, path string, query url.Values, body []byte) answer {
	g.Helper()
	a := g.call(method, path, query, "", body)
	if a.status != 200 || a.Ret == nil || *a.Ret != want {
		g.Errorf("%s %s?%s: got HTTP %d %s, want 200 with ret %d", method, path, query.Encode(), a.status, a.body, want)
	}
	return a
}

// hearsOld waits for an op 5 with this body. What else comes with op 5 is the push to all of another of these cases.
func (g *goim) hearsOld(c *Conn, body string) {
	g.Helper()
	for {
		f := g.next(c)
		g.isPush(c, f, frame.OpMsg)
		if string(f.Body) == body {
			return
		}
		if !strings.HasPrefix(string(f.Body), "to all ") {
			g.Fatalf("got %v, want %q", f, body)
		}
	}
}

// oldAPICases are of the API of goim's first version: uid is mid, a message is op 5, room N is room://N.
var oldAPICases = []goimCase{
	{"L01", "/1/push reaches a uid with op 5", "TW", func(g *goim) {
		mid := fresh()
		c := g.login(tok{"mid": mid, "accepts": []int{5}})
		g.ret(1, "POST", "/1/push", url.Values{"uid": {strconv.FormatInt(mid, 10)}}, []byte("raw \x00 message"))
		g.hearsOld(c, "raw \x00 message")
	}},
	{"L02", "/1/pushs reaches several uids with the bytes of m", "TW", func(g *goim) {
		one, two := fresh(), fresh()
		conns := []*Conn{g.login(tok{"mid": one, "accepts": []int{5}}), g.login(tok{"mid": two, "accepts": []int{5}})}
		g.ret(1, "POST", "/1/pushs", nil, []byte(fmt.Sprintf(`{"u":[%d,%d],"m":{"test": 1}}`, one, two)))
		for _, c := range conns {
			g.hearsOld(c, `{"test": 1}`)
		}
	}},
	{"L03", "/1/push/room reaches the room of the number", "TW", func(g *goim) {
		rid := strconv.FormatInt(fresh()%1_000_000_000, 10)
		c := g.login(tok{"mid": fresh(), "room_id": "room://" + rid, "accepts": []int{5}})
		g.ret(1, "POST", "/1/push/room", url.Values{"rid": {rid}}, []byte("one"))
		g.hearsOld(c, "one")
		g.ret(1, "POST", "/1/push/room", url.Values{"rid": {rid}, "ensure": {"true"}}, []byte("two"))
		g.hearsOld(c, "two")
	}},
	{"L04", "/1/push/all reaches whoever accepts op 5", "TW", func(g *goim) {
		c := g.login(tok{"mid": fresh(), "accepts": []int{5}})
		body := []byte("to all " + freshName())
		g.ret(1, "POST", "/1/push/all", nil, body)
		g.hearsOld(c, string(body))
	}},
	{"L05", "/1/count counts rooms and servers", "TW", func(g *goim) {
		rid := fresh() % 1_000_000_000
		g.login(tok{"mid": fresh(), "room_id": fmt.Sprintf("room://%d", rid)})
		g.within(45*time.Second, "the room is counted", func() bool {
			var rooms []struct {
				ID    int64 `json:"RoomId"`
				Count int64
			}
			a := g.ret(1, "GET", "/1/count", url.Values{"type": {"room"}}, nil)
			if err := json.Unmarshal(a.Data, &rooms); err != nil {
				g.Fatalf("data %s: %v", a.Data, err)
			}
			for _, r := range rooms {
				if r.ID == rid && r.Count == 1 {
					return true
				}
			}
			return false
		})
		var servers []struct{ Server, Count *int64 }
		a := g.ret(1, "GET", "/1/count", url.Values{"type": {"server"}}, nil)
		if err := json.Unmarshal(a.Data, &servers); err != nil || len(servers) == 0 || servers[0].Server == nil || servers[0].Count == nil {
			g.Errorf("servers: got %s (%v)", a.Data, err)
		}
		if a := g.ret(1, "GET", "/1/count", url.Values{"type": {"other"}}, nil); a.Data != nil {
			g.Errorf("other type: got data %s, want none", a.Data)
		}
	}},
	{"L06", "a bad uid, rid or JSON is ret 65535", "-", func(g *goim) {
		g.ret(65535, "POST", "/1/push", url.Values{"uid": {"x"}}, []byte("m"))
		g.ret(65535, "POST", "/1/push", nil, []byte("m"))
		g.ret(65535, "POST", "/1/push/room", url.Values{"rid": {"x"}}, []byte("m"))
		g.ret(65535, "POST", "/1/pushs", nil, []byte(`{"u":[1`))
		g.ret(65535, "POST", "/1/pushs", nil, []byte(`{"u":["a"],"m":1}`))
	}},
	{"L07", "a wrong method is HTTP 405", "-", func(g *goim) {
		for path, method := range map[string]string{"/1/push": "GET", "/1/pushs": "GET", "/1/push/room": "GET", "/1/push/all": "GET", "/1/count": "POST"} {
			if a := g.call(method, path, nil, "", nil); a.status != 405 {
				g.Errorf("%s %s: got HTTP %d, want 405", method, path, a.status)
			}
		}
	}},
}
