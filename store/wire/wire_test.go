package wire_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/proto/errcode"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

func ptr[T any](v T) *T { return &v }

// full returns entries that together have every field.
func full() []store.Entry {
	return []store.Entry{
		{
			Seq: 7, Kind: conversation.Message, Sender: "ann", ClientMsgID: "c1", MsgNo: 5, ChangedSeq: 9, AtMs: 1_700_000_000_123,
			Flags: conversation.Edited | conversation.Pinned | conversation.Reacted, Body: []byte(`{"text":"a <b> & c"}`),
			Detail:    conversation.Detail{Mentions: []string{"bob"}, MentionAll: true},
			Reactions: []store.Reaction{{Reaction: "x", Count: 1, UIDs: []string{"bob"}}, {Reaction: "y", Count: 80}},
		},
		{Seq: 8, Kind: conversation.Message, Sender: "ann", ClientMsgID: "c2", MsgNo: 6, ChangedSeq: 8, Flags: conversation.Recalled},
		{Seq: 9, Kind: conversation.Reaction, Sender: "bob", Target: 7, ChangedSeq: 9, Detail: conversation.Detail{Reaction: "x", Off: true}},
		{Seq: 10, Kind: conversation.RoleChanged, ChangedSeq: 10, Detail: conversation.Detail{Members: []string{"bob", "cat"}, Role: conversation.Admin}},
		{Seq: 11, Kind: conversation.Muted, ChangedSeq: 11, Detail: conversation.Detail{Members: []string{"bob"}, MutedUntilMs: 1_800_000_000_000}},
		{Seq: 12, Kind: conversation.InfoChanged, ChangedSeq: 12, Detail: conversation.Detail{Info: &conversation.Info{
			Title: ptr("t"), Avatar: ptr("a"), Announcement: ptr(""), JoinPolicy: ptr(conversation.JoinOpen), MuteAll: ptr(false), HistoryOpen: ptr(true),
		}}},
	}
}

func TestBothFormsOfAnEntrySayTheSame(t *testing.T) {
	for _, e := range full() {
		got := &halleyv1.Entry{}
		b, err := json.Marshal(wire.JSONOf(&e))
		if err != nil {
			t.Fatal(err)
		}
		if err := protojson.Unmarshal(b, got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if want := wire.Entry(&e); !proto.Equal(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	}
}

func TestEventsAreThoseOfTheContract(t *testing.T) {
	for _, e := range full() {
		b, err := wire.StoredEvent("d/ann/bob", &e)
		if err != nil {
			t.Fatal(err)
		}
		ev := event(t, b)
		stored := ev.GetEntry()
		if e.Kind == conversation.Message {
			stored = ev.GetMessageStored()
		}
		if stored.GetConversation() != "d/ann/bob" || !proto.Equal(stored.GetEntry(), wire.Entry(&e)) {
			t.Errorf("got %s", b)
		}
	}
	b, err := wire.RejectedEvent("g/1", "c9", errcode.Muted.Errorf("until noon"))
	if err != nil {
		t.Fatal(err)
	}
	rej := event(t, b).GetMessageRejected()
	if rej.GetConversation() != "g/1" || rej.GetClientMsgId() != "c9" || rej.GetError().GetCode() != "muted" || rej.GetError().GetMessage() != "until noon" {
		t.Errorf("got %s", b)
	}
	u := wire.Listed(&store.Listing{UID: "bob", Conversation: "g/1", Role: conversation.Owner, JoinedSeq: 3}, 12)
	b, err = wire.UserChangeEvent(&u)
	if err != nil {
		t.Fatal(err)
	}
	ch := event(t, b).GetUserChange()
	if !proto.Equal(ch, wire.UserChanged(&u)) || ch.GetNumber() != 12 || ch.GetValue().GetStructValue().GetFields()["role"].GetStringValue() != "owner" {
		t.Errorf("got %s", b)
	}
}

func event(t *testing.T, b []byte) *halleyv1.Event {
	t.Helper()
	ev := &halleyv1.Event{}
	if err := protojson.Unmarshal(b, ev); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return ev
}

func TestBodiesKeepLargeNumbersAndOrder(t *testing.T) {
	const body = `{"z":12345678901234567890,"a":1}`
	b, err := wire.StoredEvent("d/a/b", &store.Entry{Seq: 1, Kind: conversation.Message, Body: []byte(body)})
	if err != nil || !strings.Contains(string(b), body) {
		t.Errorf("got %s, %v", b, err)
	}
}

func TestRecordsBecomeTheProposalTheyWereMadeOf(t *testing.T) {
	p := conversation.Proposal{
		Tenant: "default", Conversation: "g/0198c5a2-7f1e-7c3a-9d55-0242ac120002", Kind: conversation.Created, Sender: "ann", ClientMsgID: "c1",
		AcceptedAtMs: 5, Address: "192.0.2.1", Imported: true, Target: 3, Body: []byte(`{"a":1}`), Detail: conversation.Detail{Members: []string{"bob"}, Info: &conversation.Info{Title: ptr("t")}},
		ReadSeq: 4, DeliveredSeq: 6,
	}
	rec := wire.RecordOf(&p, true)
	got, err := wire.ProposalOf(rec)
	if err != nil || got.Hash() != p.Hash() || !got.Imported || !rec.GetOutcome() {
		t.Fatalf("got %v, %v", got, err)
	}
	again := wire.RecordOf(&got, true)
	if !proto.Equal(rec, again) {
		t.Errorf("got %v, want %v", again, rec)
	}
}

func TestWhatIsNoProposalIsRefused(t *testing.T) {
	for name, c := range map[string]*halleyv1.Proposal{
		"no kind": {}, "large kind": {Kind: 257}, "negative kind": {Kind: -255}, "fanout": {Kind: halleyv1.EntryKind_ENTRY_KIND_FANOUT_CHANGED},
		"body":   {Kind: halleyv1.EntryKind_ENTRY_KIND_MESSAGE, Body: []byte("{")},
		"detail": {Kind: halleyv1.EntryKind_ENTRY_KIND_MESSAGE, Detail: []byte("[]")},
	} {
		if _, err := wire.ProposalOf(&halleyv1.ChatRecord{Content: &halleyv1.ChatRecord_Proposal{Proposal: c}}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := wire.ProposalOf(&halleyv1.ChatRecord{}); err == nil {
		t.Error("no content: taken")
	}
	if _, err := wire.UserChangeOf(&halleyv1.ChatRecord{}); err == nil {
		t.Error("no user change: taken")
	}
}

func TestUserChangesComeBackFromTheirRecords(t *testing.T) {
	for _, u := range []store.UserChange{
		{Tenant: "t", UID: "ann", Kind: store.ChangeMute, Object: "d/ann/bob", Guard: 7, AtMs: 9, Value: []byte(`{"on":true}`)},
		{Tenant: "t", UID: "ann", Kind: store.ChangeBlock, Object: "bob", Guard: 7, AtMs: 9, Blocked: true},
		{Tenant: "t", UID: "ann", Kind: store.ChangeContact, Object: "bob", Contact: &store.Contact{Peer: "bob", State: store.ContactAsked, Remark: "r", Note: "n"}},
	} {
		got, err := wire.UserChangeOf(wire.UserChangeRecord("id", &u))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, u) {
			t.Errorf("got %+v, want %+v", got, u)
		}
	}
}

func TestNamesOfKindsAndRolesAreAllThere(t *testing.T) {
	for k := conversation.Message; k.TakesSeq(); k++ {
		if wire.Kind(k) == "" {
			t.Errorf("kind %d has no name", k)
		}
		if _, ok := halleyv1.EntryKind_name[int32(k)]; !ok {
			t.Errorf("kind %d isn't in the contract", k)
		}
	}
	for r := conversation.None; r <= conversation.Owner; r++ {
		if got, ok := wire.ParseRole(wire.Role(r)); !ok || got != r {
			t.Errorf("role %d: got %d", r, got)
		}
	}
	for p := conversation.JoinByAdmins; p <= conversation.JoinOpen; p++ {
		if got, ok := wire.ParseJoinPolicy(wire.JoinPolicy(p)); !ok || got != p {
			t.Errorf("policy %d: got %d", p, got)
		}
	}
	if _, ok := wire.ParseRole(""); ok {
		t.Error("an empty role was taken")
	}
}
