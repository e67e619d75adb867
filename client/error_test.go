package client

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/halley-im/halley/proto/errcode"
)

// FuzzOnly holds the quick way against encoding/json's.
func FuzzOnly(f *testing.F) {
	for _, s := range []string{
		`{"sync":{}}`, ` { "error" : {"code":"x"} } `, `{}`, `{"a":1,"b":2}`, `{"a\"b":1}`, `{"a":}`, `{"":1}`, `{`, `}`, ``, `[1]`, `{"a"}`, `"a":1`,
		`{"a":"}"}`, `{"a" :null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		name, raw, err := only(b)
		var m map[string]json.RawMessage
		if json.Unmarshal(b, &m) != nil || len(m) != 1 {
			// Not what a server sends. If it wasn't noticed, it is when the value is read; a name that is told twice has two values.
			if err == nil && json.Valid(raw) && json.Valid(b) {
				t.Errorf("%q passes as %q: %q", b, name, raw)
			}
			return
		}
		for want, value := range m {
			if bytes.ContainsAny(b, `\`) || bytes.Count(b, []byte(`"`+want+`"`)) != 1 {
				return // Names with escapes there are none.
			}
			if err != nil || name != want || !bytes.Equal(raw, value) {
				t.Errorf("%q: got %q: %q, %v, want %q: %q", b, name, raw, err, want, value)
			}
		}
	})
}

func TestCloseCodesSayWhetherToComeBack(t *testing.T) {
	for _, c := range errcode.All() {
		if got := (&CloseError{Code: c.Close}).err(); got.Retry != c.Retry && c.Close != 4000 {
			t.Errorf("%d (%s): retry is %v", c.Close, c.Name, got.Retry)
		}
		if got := (&CloseError{Code: 1006, Reason: c.Name}).err(); got.Code != c.Name {
			t.Errorf("the reason %s became %s", c.Name, got.Code)
		}
	}
	if e := (&CloseError{Code: 4321}).err(); e.Retry {
		t.Error("comes back after a permanent code that it doesn't know")
	}
	if e := (&CloseError{Code: 4777}).err(); !e.Retry {
		t.Error("stays away after a passing code that it doesn't know")
	}
}
