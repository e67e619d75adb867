package turnrest_test

import (
	"testing"
	"time"

	"github.com/halley-im/halley/kit/turnrest"
)

// TestCredentialIsWhatTURNServersExpect holds the password to openssl's: printf 1700000000:ann | openssl dgst -sha1 -hmac north-and-south-by-east -binary | base64.
func TestCredentialIsWhatTURNServersExpect(t *testing.T) {
	user, password := turnrest.Credential([]byte("north-and-south-by-east"), "ann", time.Unix(1_700_000_000, 5))
	if user != "1700000000:ann" || password != "a1GBfoZkgo3oCy/n4p7HLQYd4bk=" {
		t.Errorf("got %s %s", user, password)
	}
}

func TestUserNamesAreReadBack(t *testing.T) {
	for _, tt := range []struct {
		name, uid string
		unix      int64
		ok        bool
	}{
		{"1700000000:ann", "ann", 1_700_000_000, true},
		{"1700000000:a:b", "a:b", 1_700_000_000, true},
		{"1700000000", "", 1_700_000_000, true},
		{"ann", "", 0, false},
		{"", "", 0, false},
		{"-5:ann", "", 0, false},
		{"99999999999999999999:ann", "", 0, false},
	} {
		expires, uid, ok := turnrest.Parse(tt.name)
		if ok != tt.ok || uid != tt.uid || ok && expires.Unix() != tt.unix {
			t.Errorf("%q: got %v %q %v", tt.name, expires, uid, ok)
		}
	}
}
