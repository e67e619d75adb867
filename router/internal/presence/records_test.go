package presence

import (
	"testing"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// FuzzRecords holds that no record makes a reader fail otherwise than by an error, and that what can be read is
// written the same way again.
func FuzzRecords(f *testing.F) {
	u := userRecord{announced: true, platforms: []string{"ios", "web"}, lastSeen: 17}
	m := &halleyv1.Session{
		Key: "0f8fad5b-d9cb-469f-a165-70867728950e", DeviceId: "d", Platform: "web", Conn: &halleyv1.Conn{Id: "00112233aabbccdd.42"},
		ConnectedAtMs: 1_700_000_000_000, IssuedAtMs: 1_600_000_000_000, RemoteAddr: "192.0.2.1", Signed: true,
	}
	u.sessions = append(u.sessions, newSession(m, epoch{1, 2}, 1_700_000_000_100))
	f.Add(u.encode())
	f.Add(newKeyRecord(m, epoch{3}, 5).encode())
	m.Uid = "u"
	f.Add(newKeyRecord(m, epoch{3}, 5).encode())
	f.Add(roomRecord{{epoch: epoch{9}, number: 7, count: 3, listed: true, at: 99}}.encode())
	f.Fuzz(func(t *testing.T, v string) {
		if u, err := decodeUser(v); err == nil {
			again, err := decodeUser(u.encode())
			if err != nil || again.encode() != u.encode() {
				t.Errorf("user record %q is not stable", v)
			}
		}
		if k, err := decodeKey(v); err == nil && k != nil {
			if again, err := decodeKey(k.encode()); err != nil || again.encode() != k.encode() {
				t.Errorf("key record %q is not stable", v)
			}
		}
		if r, err := decodeRoom(v); err == nil {
			if again, err := decodeRoom(r.encode()); err != nil || again.encode() != r.encode() {
				t.Errorf("room record %q is not stable", v)
			}
		}
		c := clock{view: &view{}, table: newLeaseTable(&Store{}), stale: new(bool)}
		a, out := newAnswer(c), &halleyv1.Located{}
		a.user(out, v)
		a.key(out, v)
		a.room(out, v)
	})
}

func TestConnectionIDsAreShortAndComeBack(t *testing.T) {
	for _, tt := range []struct {
		id   string
		most int
	}{
		{"00112233aabbccdd.1", 10}, {"00112233aabbccdd.300", 11}, {"00112233AABBCCDD.1", 64}, {"00112233aabbccdd.01", 64}, {"x.1", 64},
		{"00112233aabbccdd.-1", 64}, {"00112233aabbccdd.18446744073709551615", 20}, {"", 1},
	} {
		p := packConn(tt.id)
		if got := unpackConn(p); got != tt.id || len(p) > tt.most {
			t.Errorf("%q: got %q in %d bytes, want it in at most %d", tt.id, got, len(p), tt.most)
		}
	}
}

func TestFieldsNameWhatTheyAreMadeOf(t *testing.T) {
	for _, tt := range []struct{ tenant, n string }{
		{"default", "u"}, {"acme", "u"}, {"acme", "0f8fad5b-d9cb-469f-a165-70867728950e"}, {"default", "00000000-0000-0000-0000-000000000000"},
		{"default", "0F8FAD5B-D9CB-469F-A165-70867728950E"},
	} {
		for kind, f := range map[byte]string{kindUser: userField(tt.tenant, tt.n), kindKey: keyField(tt.tenant, tt.n), kindRoom: roomField(tt.tenant, tt.n)} {
			if k, tenant, n := splitField(f); k != kind || tenant != tt.tenant || n != tt.n {
				t.Errorf("%q: got %c %q %q, want %c %q %q", f, k, tenant, n, kind, tt.tenant, tt.n)
			}
		}
	}
}
