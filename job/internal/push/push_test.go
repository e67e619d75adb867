package push_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/job/internal/push"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

func valid() *halleyv1.PushRecord {
	return &halleyv1.PushRecord{
		Id: "p", Tenant: "default",
		Targets: []*halleyv1.Target{{Target: &halleyv1.Target_Uid{Uid: "anna"}}},
		Content: &halleyv1.PushRecord_Push{Push: &halleyv1.Push{Op: 1000, Body: []byte("hi")}},
	}
}

func target(ts ...*halleyv1.Target) func(*halleyv1.PushRecord) {
	return func(r *halleyv1.PushRecord) { r.Targets = ts }
}

func TestDecodeNamesTheReason(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*halleyv1.PushRecord)
		want   string
	}{
		{"valid", func(*halleyv1.PushRecord) {}, ""},
		{"no tenant", func(r *halleyv1.PushRecord) { r.Tenant = "" }, push.BadTenant},
		{"tenant in capitals", func(r *halleyv1.PushRecord) { r.Tenant = "Acme" }, push.BadTenant},
		{"no content", func(r *halleyv1.PushRecord) { r.Content = nil }, push.NoContent},
		{"empty control", func(r *halleyv1.PushRecord) {
			r.Content = &halleyv1.PushRecord_Control{Control: &halleyv1.Control{}}
		}, push.NoContent},
		{"control", func(r *halleyv1.PushRecord) {
			r.Content = &halleyv1.PushRecord_Control{Control: &halleyv1.Control{Control: &halleyv1.Control_Kick{Kick: &halleyv1.Kick{}}}}
		}, ""},
		{"no target", target(), push.NoTarget},
		{"empty target", target(&halleyv1.Target{}), push.BadTarget},
		{"uid with a space", target(&halleyv1.Target{Target: &halleyv1.Target_Uid{Uid: "a b"}}), push.BadTarget},
		{"key of no length", target(&halleyv1.Target{Target: &halleyv1.Target_Key{}}), push.BadTarget},
		{"room without type", target(&halleyv1.Target{Target: &halleyv1.Target_Room{Room: "lobby"}}), push.BadTarget},
		{"room of the system", target(&halleyv1.Target{Target: &halleyv1.Target_Room{Room: "presence://anna"}}), ""},
		{"all", target(&halleyv1.Target{Target: &halleyv1.Target_All{All: true}}), ""},
		{"not all", target(&halleyv1.Target{Target: &halleyv1.Target_All{}}), push.BadTarget},
		{"connection without epoch", target(&halleyv1.Target{Target: &halleyv1.Target_Conn{Conn: &halleyv1.Conn{Id: "1.1"}}}), push.BadTarget},
		{"connection", target(&halleyv1.Target{Target: &halleyv1.Target_Conn{Conn: &halleyv1.Conn{Id: "1.1", Epoch: "e"}}}), ""},
		{"second target bad", target(valid().Targets[0], &halleyv1.Target{}), push.BadTarget},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := valid()
			tt.change(rec)
			value, err := proto.Marshal(rec)
			if err != nil {
				t.Fatal(err)
			}
			got, reason := push.Decode(value)
			if reason != tt.want {
				t.Fatalf("reason %q, want %q", reason, tt.want)
			}
			if (got != nil) != (tt.want == "") || got != nil && !proto.Equal(got, rec) {
				t.Errorf("decoded %v, want %v", got, rec)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	value, _ := proto.Marshal(valid())
	f.Add(value)
	f.Add([]byte{})
	f.Add([]byte{0xff, 0x01})
	f.Fuzz(func(t *testing.T, value []byte) {
		rec, reason := push.Decode(value)
		if (rec == nil) == (reason == "") {
			t.Fatalf("record %v with reason %q", rec, reason)
		}
		if rec != nil && len(rec.GetTargets()) == 0 {
			t.Fatal("a record without targets passed: it would never end")
		}
	})
}
