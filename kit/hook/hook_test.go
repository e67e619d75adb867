package hook_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/kit/hook"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func offline(users int) hook.Offline {
	o := hook.Offline{Tenant: "shop", Conversation: "g/1", Seq: 7, AtMs: 5, Entry: json.RawMessage(`{"seq":7}`)}
	for i := range users {
		o.Users = append(o.Users, hook.OfflineUser{UID: fmt.Sprint("u", i), Unread: 1})
	}
	return o
}

func TestARepeatHasTheSameIDs(t *testing.T) {
	ids := map[string]bool{}
	for range 2 {
		o := offline(1001)
		msgs, err := o.Messages()
		if err != nil || len(msgs) != 3 {
			t.Fatalf("got %d, %v", len(msgs), err)
		}
		for _, m := range msgs {
			var rec halleyv1.HookRecord
			if err := proto.Unmarshal(m.Value, &rec); err != nil {
				t.Fatal(err)
			}
			if rec.GetKey() != "conv/g/1" || rec.GetType() != hook.MessageOffline || len(rec.GetId()) > 64 || string(m.Key) != "shop\x00conv\x00g/1" {
				t.Fatalf("got %v, key %q", &rec, m.Key)
			}
			ids[rec.GetId()] = true
		}
	}
	if len(ids) != 3 {
		t.Errorf("got %d ids, want 3", len(ids))
	}
}

func TestNobodyIsNoRecord(t *testing.T) {
	o := offline(0)
	if msgs, err := o.Messages(); err != nil || len(msgs) != 0 {
		t.Errorf("got %d, %v", len(msgs), err)
	}
}

func TestAnEventThatIsTooLargeIsRefused(t *testing.T) {
	o := offline(1)
	o.Entry = json.RawMessage(`"` + strings.Repeat("x", hook.MaxData) + `"`)
	if _, err := o.Messages(); !errors.Is(err, hook.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}
