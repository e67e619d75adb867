package goim_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/goim"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func comets() []*halleyv1.CometInfo {
	ports := func(host string) *halleyv1.Endpoints {
		return &halleyv1.Endpoints{Host: host, TcpPort: 3101, WsPort: 3102, WssPort: 3103}
	}
	return []*halleyv1.CometInfo{
		{Comet: "c2", Addr: "10.0.0.5:3109", DueMs: 9, Load: &halleyv1.CometLoad{Connections: 5, Addresses: 4}, Endpoints: ports("203.0.113.8")},
		{Comet: "c1", Addr: "10.0.0.4:3109", DueMs: 9, EnrolledAtMs: 1700000000000, Load: &halleyv1.CometLoad{Connections: 35, Addresses: 12}, Endpoints: ports("203.0.113.7")},
		{Comet: "c3", Addr: "10.0.0.6:3109", DueMs: 9, Draining: true, Load: &halleyv1.CometLoad{Connections: 1, Addresses: 1}, Endpoints: ports("203.0.113.9")},
		{Comet: "c4", Addr: "10.0.0.7:3109", DueMs: 9, Load: &halleyv1.CometLoad{Connections: 50, Addresses: 1}, Endpoints: &halleyv1.Endpoints{Host: "203.0.113.10", TcpPort: 4101}},
	}
}

func TestO01OnlineTotal(t *testing.T) {
	f := setUp(t)
	f.do("GET", "/goim/online/total", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":{"conn_count":0,"ip_count":0}}`)
	f = setUp(t)
	f.router.comets = comets()
	f.do("GET", "/goim/online/total", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":{"conn_count":91,"ip_count":18}}`)
	if f.scope != apikey.Read {
		t.Errorf("asked for scope %s", f.scope)
	}
}

func TestO02O06OnlineRoom(t *testing.T) {
	f := setUp(t)
	f.router.rooms = map[string]uint32{"live://77": 31}
	f.do("GET", "/goim/online/room?type=live&rooms=77&rooms=6&rooms=77&rooms=%00", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":{"\u0000":0,"6":0,"77":31}}`)
	f.router.rooms = nil
	f.do("GET", "/goim/online/room?type=live&rooms=77", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":{"77":0}}`)
}

func TestO03O04OnlineTop(t *testing.T) {
	f := setUp(t)
	f.router.rooms = map[string]uint32{"live://77": 31, "live://5": 4, "live://a/b": 2, "other://1": 50}
	f.do("GET", "/goim/online/top?type=live&limit=10", "").want(t, 200, typeJSON,
		`{"code":0,"message":"","data":[{"room_id":"77","count":31},{"room_id":"5","count":4},{"room_id":"a/b","count":2}]}`)
	f.do("GET", "/goim/online/top?type=live&limit=2", "").want(t, 200, typeJSON,
		`{"code":0,"message":"","data":[{"room_id":"77","count":31},{"room_id":"5","count":4}]}`)
	f.do("GET", "/goim/online/top?type=none&limit=2", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":[]}`)
	f.do("GET", "/goim/online/top?type=live&limit=9000000000", "").want(t, 200, typeJSON,
		`{"code":0,"message":"","data":[{"room_id":"77","count":31},{"room_id":"5","count":4},{"room_id":"a/b","count":2}]}`)
}

func TestO05OnlineParameters(t *testing.T) {
	f := setUp(t)
	for target, message := range map[string]string{
		"top?limit=2":            fmt.Sprintf(required, "Type"),
		"top?type=live":          fmt.Sprintf(required, "Limit"),
		"top?type=live&limit=0":  fmt.Sprintf(required, "Limit"),
		"top":                    fmt.Sprintf(required, "Type") + `\n` + fmt.Sprintf(required, "Limit"),
		"top?type=live&limit=ab": `strconv.ParseInt: parsing \"ab\": invalid syntax`,
		"room?rooms=1":           fmt.Sprintf(required, "Type"),
		"room?type=live":         fmt.Sprintf(required, "Rooms"),
		"room?type=live" + strings.Repeat("&rooms=1", 1001): `Key: 'Rooms' Error:Field validation for 'Rooms' failed on the 'max' tag`,
	} {
		f.do("GET", "/goim/online/"+target, "").want(t, 400, typeText, `{"code":-400,"message":"`+message+`"}`)
	}
}

func TestO07NegativeLimitIsABadRequest(t *testing.T) {
	f := setUp(t)
	if a := f.do("GET", "/goim/online/top?type=live&limit=-1", ""); a.status != 400 || !strings.Contains(a.body, `"code":-400`) {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestO08TypeIsExact(t *testing.T) {
	f := setUp(t)
	f.router.rooms = map[string]uint32{"live://77": 31}
	for _, typ := range []string{"liv", "l", "live:", "live://", "live://7", "presence"} {
		f.do("GET", "/goim/online/top?type="+typ+"&limit=2", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":[]}`)
	}
}

func TestN01NodesWeighted(t *testing.T) {
	f := setUp(t)
	f.router.comets = comets()
	want := `{"code":0,"message":"","data":{"domain":"im.example.org","tcp_port":3101,"ws_port":3102,"wss_port":3103,"heartbeat":240,` +
		`"nodes":["203.0.113.8","203.0.113.7"],"backoff":{"max_delay":300,"base_delay":3,"factor":1.8,"jitter":0.3},"heartbeat_max":2}}`
	for _, query := range []string{"?platform=web", "?platform=ios", ""} {
		f.do("GET", "/goim/nodes/weighted"+query, "").want(t, 200, typeJSON, want)
	}
	if f.scope != apikey.Read|apikey.Push {
		t.Errorf("asked for scope %s", f.scope)
	}
}

func TestN01WebNodesHaveNamesWhereASuffixIsSet(t *testing.T) {
	f := setUp(t, func(c *goim.Config) { c.HostSuffix = ".im.example.org" })
	f.router.comets = comets()
	nodes := func(platform string) (list []any) {
		var res struct {
			Data map[string]any `json:"data"`
		}
		if err := json.Unmarshal([]byte(f.do("GET", "/goim/nodes/weighted?platform="+platform, "").body), &res); err != nil {
			t.Fatal(err)
		}
		return res.Data["nodes"].([]any)
	}
	if got := nodes("web"); !slices.Equal(got, []any{"c2.im.example.org", "c1.im.example.org"}) {
		t.Errorf("web: got %v", got)
	}
	if got := nodes("android"); !slices.Equal(got, []any{"203.0.113.8", "203.0.113.7"}) {
		t.Errorf("android: got %v", got)
	}
}

func TestN01AtMostFiveNodesAndLiveOnesOnly(t *testing.T) {
	f := setUp(t)
	for i := range 9 {
		f.router.comets = append(f.router.comets, &halleyv1.CometInfo{
			Comet: fmt.Sprintf("c%d", i), Load: &halleyv1.CometLoad{Connections: int64(10 * i)}, Endpoints: &halleyv1.Endpoints{Host: fmt.Sprintf("h%d", i), TcpPort: 3101},
		})
	}
	a := f.do("GET", "/goim/nodes/weighted", "")
	if !strings.Contains(a.body, `"nodes":["h0","h1","h2","h3","h4"]`) || strings.Contains(a.body, "ws_port") {
		t.Errorf("got %s", a.body)
	}
	f = setUp(t)
	f.do("GET", "/goim/nodes/weighted?platform=web", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":{"domain":"im.example.org","tcp_port":3101,"ws_port":3102,"heartbeat":240,`+
		`"nodes":["im.example.org"],"backoff":{"max_delay":300,"base_delay":3,"factor":1.8,"jitter":0.3},"heartbeat_max":2}}`)
}

func TestN02NodesInstances(t *testing.T) {
	f := setUp(t)
	f.do("GET", "/goim/nodes/instances", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":null}`)
	f = setUp(t)
	f.router.comets = comets()[1:3]
	f.do("GET", "/goim/nodes/instances", "").want(t, 200, typeJSON, `{"code":0,"message":"","data":[`+
		`{"region":"r1","zone":"z1","env":"prod","appid":"goim.comet","hostname":"c1","addrs":["grpc://10.0.0.4:3109"],"version":"","latest_timestamp":1700000000000000000,`+
		`"metadata":{"addrs":"203.0.113.7","conn_count":"35","ip_count":"12","offline":"false","weight":"10"}},`+
		`{"region":"r1","zone":"z1","env":"prod","appid":"goim.comet","hostname":"c3","addrs":["grpc://10.0.0.6:3109"],"version":"","latest_timestamp":0,`+
		`"metadata":{"addrs":"203.0.113.9","conn_count":"1","ip_count":"1","offline":"true","weight":"10"}}]}`)
}

func TestRouterAwayIsGoimsCode(t *testing.T) {
	f := setUp(t)
	f.router.err = away
	for _, target := range []string{"online/total", "online/top?type=a&limit=1", "online/room?type=a&rooms=1", "nodes/weighted", "nodes/instances"} {
		f.do("GET", "/goim/"+target, "").want(t, 200, typeJSON, `{"code":-500,"message":"the service can't answer now"}`)
	}
	for _, typ := range []string{"room", "server"} {
		f.do("GET", "/1/count?type="+typ, "").want(t, 200, typeJSON, `{"ret":65535}`)
	}
}
