package httpapi_test

import (
	"slices"
	"strings"
	"testing"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// twoTenants has the same names in the tenants default and shop, with other things behind them.
func twoTenants(t *testing.T) *server {
	s := newServer(t)
	s.router.rooms["default"] = map[string]uint32{"chat://lobby": 7, "chat://side": 1}
	s.router.rooms["shop"] = map[string]uint32{"chat://lobby": 3}
	s.router.members["default\x00chat://lobby"] = []string{"ann", "bob"}
	s.router.members["shop\x00chat://lobby"] = []string{"ann"}
	s.router.sessions["default"] = []*halleyv1.Session{{Tenant: "default", Uid: "ann", Key: "k1", Platform: "web", DeviceId: "d-default", Conn: &halleyv1.Conn{Comet: "c1", Id: "1.1"}}}
	s.router.sessions["shop"] = []*halleyv1.Session{{Tenant: "shop", Uid: "ann", Key: "k1", Platform: "ios", DeviceId: "d-shop", Conn: &halleyv1.Conn{Comet: "c1", Id: "1.2"}}}
	return s
}

// TestTenantsWithEqualNamesDoNotMeet calls every path of /v1, of goim and of /1/ for both tenants, by their own keys and by the key of all
// tenants.
func TestTenantsWithEqualNamesDoNotMeet(t *testing.T) {
	s := twoTenants(t)
	for _, c := range []struct {
		method, path, body string
		// want is in the answer of the tenant, by tenant; empty: the effects are looked at.
		want map[string]string
	}{
		{"POST", "/v1/push", `{"uids":["ann"],"keys":["k1"],"rooms":["chat://lobby"],"exclude_uids":["bob"],"text":"x"}`, nil},
		{"POST", "/v1/push", `{"all":true,"text":"x"}`, nil},
		{"POST", "/v1/push/batch", `{"items":[{"uids":["ann"],"text":"x"},{"rooms":["chat://lobby"]}]}`, nil},
		{"POST", "/v1/rooms/chat%3A%2F%2Flobby/messages", `{"body":1}`, nil},
		{"PUT", "/v1/rooms/chat%3A%2F%2Flobby/members/ann", "", nil},
		{"DELETE", "/v1/rooms/chat%3A%2F%2Flobby/members/ann", "", nil},
		{"DELETE", "/v1/rooms/chat%3A%2F%2Flobby", "", nil},
		{"POST", "/v1/sessions/kick", `{"uid":"ann","revoke":true}`, nil},
		{"POST", "/v1/sessions/kick", `{"key":"k1"}`, nil},
		{"POST", "/v1/tokens/revoke", `{"uid":"ann"}`, nil},
		{"POST", "/goim/push/keys?operation=1000&keys=k1", "x", nil},
		{"POST", "/goim/push/mids?operation=1000&mids=7", "x", nil},
		{"POST", "/goim/push/room?operation=1000&type=chat&room=lobby", "x", nil},
		{"POST", "/goim/push/all?operation=1000", "x", nil},
		{"POST", "/1/push?uid=7", "x", nil},
		{"POST", "/1/pushs", `{"u":[7],"m":1}`, nil},
		{"POST", "/1/push/room?rid=7", "x", nil},
		{"POST", "/1/push/all", "x", nil},
		{"POST", "/v1/presence", `{"uids":["ann"]}`, map[string]string{"default": `"platforms":["web"]`, "shop": `"platforms":["ios"]`}},
		{"GET", "/v1/presence?limit=1", "", map[string]string{"default": `{"uid":"ann","platforms":["web"],"sessions":1,`, "shop": `{"uid":"ann","platforms":["ios"],"sessions":1,`}},
		{"GET", "/v1/rooms?type=chat", "", map[string]string{"default": `"count":7`, "shop": `"rooms":[{"room":"chat://lobby","count":3}]`}},
		{"POST", "/v1/rooms/count", `{"rooms":["chat://lobby","chat://side"]}`, map[string]string{"default": `"count":7},{"room":"chat://side","count":1`, "shop": `"count":3},{"room":"chat://side","count":0`}},
		{"GET", "/v1/rooms/chat%3A%2F%2Flobby/members", "", map[string]string{"default": `["ann","bob"]`, "shop": `["ann"]`}},
		{"GET", "/v1/sessions?uid=ann", "", map[string]string{"default": `d-default`, "shop": `d-shop`}},
		{"GET", "/v1/sessions?key=k1", "", map[string]string{"default": `d-default`, "shop": `d-shop`}},
		{"GET", "/goim/online/top?type=chat&limit=5", "", map[string]string{"default": `[{"room_id":"lobby","count":7},{"room_id":"side","count":1}]`, "shop": `[{"room_id":"lobby","count":3}]`}},
		{"GET", "/goim/online/room?type=chat&rooms=lobby", "", map[string]string{"default": `{"lobby":7}`, "shop": `{"lobby":3}`}},
		{"GET", "/1/count?type=room", "", map[string]string{"default": `"data":[]`, "shop": `"data":[]`}},
	} {
		for _, as := range []struct{ key, header, tenant string }{
			{"admin", "", "default"}, {"shop", "", "shop"}, {"any", "", "default"}, {"any", "shop", "shop"},
		} {
			a := s.do(c.method, c.path, as.key, c.body, "Halley-Tenant", as.header)
			if a.status != 200 || !strings.Contains(a.body, c.want[as.tenant]) {
				t.Errorf("%s as %s for %s: got %d %s, want %s", c.path, as.key, as.tenant, a.status, a.body, c.want[as.tenant])
			}
			recs := s.kafka.taken()
			if c.want == nil && len(recs) == 0 {
				t.Errorf("%s as %s: no effect", c.path, as.key)
			}
			for _, r := range recs {
				if r.GetTenant() != as.tenant {
					t.Errorf("%s as %s: a record for tenant %s, want %s", c.path, as.key, r.GetTenant(), as.tenant)
				}
			}
			for _, r := range s.revoker.taken() {
				if r.tenant != as.tenant {
					t.Errorf("%s as %s: revoked in tenant %s, want %s", c.path, as.key, r.tenant, as.tenant)
				}
			}
		}
	}
	for _, as := range []struct{ key, header, tenant string }{{"admin", "", "default"}, {"shop", "", "shop"}, {"any", "game", "game"}} {
		compact := s.do("POST", "/v1/tokens", as.key, `{"uid":"ann"}`, "Halley-Tenant", as.header).want(t, 200, "").json(t)["token"].(string)
		claims, err := s.verify.Verify(compact)
		if err != nil || claims.Tenant != as.tenant {
			t.Errorf("%s: got %+v, %v", as.key, claims, err)
		}
	}
}

func TestWhatIsOfTheWholeClusterIsNotForAKeyOfOneTenant(t *testing.T) {
	s := twoTenants(t)
	for _, path := range []string{"/v1/cluster", "/goim/online/total", "/goim/nodes/instances", "/1/count?type=server"} {
		for _, as := range []struct {
			key, header string
			want        int
		}{{"admin", "", 200}, {"read", "", 200}, {"any", "", 200}, {"any", "shop", 200}, {"shop", "", 403}} {
			if a := s.do("GET", path, as.key, "", "Halley-Tenant", as.header); a.status != as.want {
				t.Errorf("%s as %s: got %d %s, want %d", path, as.key, a.status, a.body, as.want)
			}
		}
	}
	// Where clients connect is no secret.
	s.do("GET", "/goim/nodes/weighted", "shop", "").want(t, 200, "")
	s.do("GET", "/1/count?type=room", "shop", "").want(t, 200, "")
}

func TestTenantsWithEqualIdempotencyKeysDoNotMeet(t *testing.T) {
	rdb, prefix := redisFor(t)
	s := newServer(t, withRedis(rdb, prefix))
	var ids []string
	for _, tenant := range []string{"shop", "game", "shop"} {
		a := s.do("POST", "/v1/push", "any", `{"uids":["ann"]}`, "Halley-Tenant", tenant, "Idempotency-Key", "k").want(t, 200, "")
		ids = append(ids, a.json(t)["id"].(string))
	}
	if ids[0] == ids[1] || ids[0] != ids[2] {
		t.Errorf("got ids %v", ids)
	}
	var tenants []string
	for _, r := range s.kafka.taken() {
		tenants = append(tenants, r.GetTenant())
	}
	if !slices.Equal(tenants, []string{"shop", "game"}) {
		t.Errorf("got records for %v", tenants)
	}
}
