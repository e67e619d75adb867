package rpc_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/halley-im/halley/logic/internal/conversation"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
)

// everyMethod is each method of conversations and people, as a client made from the contract asks it.
func everyMethod() []*halleyv1.Request {
	const conv, id = direct, "c1"
	body := structpb.NewStringValue("x")
	return []*halleyv1.Request{
		{Method: &halleyv1.Request_MessageSend{MessageSend: &halleyv1.MessageSend{Conversation: conv, ClientMsgId: id, Body: body, Mentions: []string{"bob"}}}},
		{Method: &halleyv1.Request_MessageEdit{MessageEdit: &halleyv1.MessageEdit{Conversation: conv, ClientMsgId: id, Seq: 1, Body: body}}},
		{Method: &halleyv1.Request_MessageRecall{MessageRecall: &halleyv1.MessageRecall{Conversation: conv, ClientMsgId: id, Seq: 1}}},
		{Method: &halleyv1.Request_MessageReact{MessageReact: &halleyv1.MessageReact{Conversation: conv, ClientMsgId: id, Seq: 1, Reaction: "x"}}},
		{Method: &halleyv1.Request_MessagePin{MessagePin: &halleyv1.MessagePin{Conversation: conv, ClientMsgId: id, Seq: 1}}},
		{Method: &halleyv1.Request_MessageReactors{MessageReactors: &halleyv1.MessageReactors{Conversation: conv, Seq: 1, Reaction: "x"}}},
		{Method: &halleyv1.Request_MessageDelete{MessageDelete: &halleyv1.MessageDelete{Conversation: conv, Seq: 1}}},
		{Method: &halleyv1.Request_ConversationList{ConversationList: &halleyv1.ConversationList{Limit: 3}}},
		{Method: &halleyv1.Request_ConversationGet{ConversationGet: &halleyv1.ConversationGet{Conversation: conv}}},
		{Method: &halleyv1.Request_ConversationHistory{ConversationHistory: &halleyv1.ConversationHistory{Conversation: conv, Before: 2}}},
		{Method: &halleyv1.Request_ConversationMembers{ConversationMembers: &halleyv1.ConversationMembers{Conversation: conv, ReadSeq: 1}}},
		{Method: &halleyv1.Request_ConversationPinned{ConversationPinned: &halleyv1.ConversationPinned{Conversation: conv}}},
		{Method: &halleyv1.Request_ConversationRead{ConversationRead: &halleyv1.ConversationRead{Conversation: conv, ReadSeq: 1}}},
		{Method: &halleyv1.Request_ConversationSet{ConversationSet: &halleyv1.ConversationSet{Conversation: conv, Clear: proto.Float64(1)}}},
		{Method: &halleyv1.Request_ConversationOpen{ConversationOpen: &halleyv1.ConversationOpen{Conversation: conv}}},
		{Method: &halleyv1.Request_Typing{Typing: &halleyv1.Typing{Conversation: conv}}},
		{Method: &halleyv1.Request_Sync{Sync: &halleyv1.Sync{Conversations: map[string]float64{conv: 1}, UserChange: 1, Above: "d/a", UpTo: "i/"}}},
		{Method: &halleyv1.Request_SyncCursor{SyncCursor: &halleyv1.SyncCursor{}}},
		{Method: &halleyv1.Request_GroupCreate{GroupCreate: &halleyv1.GroupCreate{ClientMsgId: id, Title: "t", Members: []string{"bob"}}}},
		{Method: &halleyv1.Request_GroupAdd{GroupAdd: &halleyv1.GroupAdd{Conversation: someGroup, ClientMsgId: id, Members: []string{"eve"}}}},
		{Method: &halleyv1.Request_GroupRemove{GroupRemove: &halleyv1.GroupRemove{Conversation: someGroup, ClientMsgId: id, Members: []string{"eve"}}}},
		{Method: &halleyv1.Request_GroupLeave{GroupLeave: &halleyv1.GroupLeave{Conversation: someGroup, ClientMsgId: id}}},
		{Method: &halleyv1.Request_GroupRole{GroupRole: &halleyv1.GroupRole{Conversation: someGroup, ClientMsgId: id, Members: []string{"eve"}, Role: "admin"}}},
		{Method: &halleyv1.Request_GroupMute{GroupMute: &halleyv1.GroupMute{Conversation: someGroup, ClientMsgId: id, Members: []string{"eve"}, Until: 1_900_000_000_000}}},
		{Method: &halleyv1.Request_GroupInfo{GroupInfo: &halleyv1.GroupInfo{Conversation: someGroup, ClientMsgId: id, JoinPolicy: proto.String("open")}}},
		{Method: &halleyv1.Request_GroupDissolve{GroupDissolve: &halleyv1.GroupDissolve{Conversation: someGroup, ClientMsgId: id}}},
		{Method: &halleyv1.Request_GroupAsk{GroupAsk: &halleyv1.GroupAsk{Conversation: someGroup}}},
		{Method: &halleyv1.Request_GroupAnswer{GroupAnswer: &halleyv1.GroupAnswer{Conversation: someGroup, ClientMsgId: id, Uid: "joe", Accept: true}}},
		{Method: &halleyv1.Request_UserGet{UserGet: &halleyv1.UserGet{Uids: []string{"bob"}}}},
		{Method: &halleyv1.Request_UserSearch{UserSearch: &halleyv1.UserSearch{Query: "b"}}},
		{Method: &halleyv1.Request_UserUpdate{UserUpdate: &halleyv1.UserUpdate{Name: proto.String("Ann"), Visibility: proto.String("all")}}},
		{Method: &halleyv1.Request_ContactList{ContactList: &halleyv1.ContactList{}}},
		{Method: &halleyv1.Request_ContactAsk{ContactAsk: &halleyv1.ContactAsk{Uid: "bob", Note: "n", Remark: "r"}}},
		{Method: &halleyv1.Request_ContactAnswer{ContactAnswer: &halleyv1.ContactAnswer{Uid: "eve", Accept: true}}},
		{Method: &halleyv1.Request_ContactRemark{ContactRemark: &halleyv1.ContactRemark{Uid: "eve", Remark: "E"}}},
		{Method: &halleyv1.Request_ContactRemove{ContactRemove: &halleyv1.ContactRemove{Uid: "eve"}}},
		{Method: &halleyv1.Request_BlockList{BlockList: &halleyv1.BlockList{}}},
		{Method: &halleyv1.Request_BlockSet{BlockSet: &halleyv1.BlockSet{Uid: "eve", Off: true}}},
	}
}

const someGroup = "g/11111111-1111-1111-1111-111111111111"

func contract(t testing.TB, m *halleyv1.Request) string {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every method of the contract is in the table: what is asked is understood, and answered by its own name or by a code that fits.
func TestMethodsOfConversationsAreThoseOfTheContract(t *testing.T) {
	r := newChatRig(t)
	r.say("ann", direct, "1")
	r.as("eve", `{"contact.ask":{"uid":"ann"}}`)
	all := everyMethod()
	for _, m := range all {
		b := contract(t, m)
		reply, _ := r.ask(member("ann"), b)
		method := m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().Get(0))
		switch got := reply.ProtoReflect().WhichOneof(reply.ProtoReflect().Descriptor().Oneofs().Get(0)); {
		case strings.Contains(b, someGroup):
			wantCode(t, reply.GetError(), "not_found")
		case got == nil || got.Name() != method.Name():
			t.Errorf("%s: got %v", b, reply)
		}
	}
	// None is forgotten: those of the contract are these and the ones of rooms, sessions, presence and calls.
	methods := (&halleyv1.Request{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	if n := len(all) + len(everyCallMethod()) + 7; methods.Len() != n {
		t.Errorf("the contract has %d methods, %d are tried", methods.Len(), n)
	}
}

func (r *chatRig) contacts(uid string) (out []string) {
	r.t.Helper()
	for _, c := range r.as(uid, `{"contact.list":{}}`).GetContactList().GetContacts() {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", c.GetUid(), c.GetState(), c.GetRemark(), c.GetNote())))
	}
	return out
}

func TestContacts(t *testing.T) {
	r := newChatRig(t)
	for i, step := range []struct {
		uid, body, code string
		ann, bob        []string
	}{
		{"ann", `{"contact.answer":{"uid":"bob","accept":true}}`, "not_found", nil, nil},
		{"ann", `{"contact.remark":{"uid":"bob","remark":"x"}}`, "not_found", nil, nil},
		{"ann", `{"contact.ask":{"uid":"ann"}}`, "invalid_request", nil, nil},
		{"ann", `{"contact.ask":{"uid":"bob","note":"hi","remark":"Bobby"}}`, "", []string{"bob requested Bobby hi"}, []string{"ann asked  hi"}},
		{"ann", `{"contact.answer":{"uid":"bob","accept":true}}`, "not_found", []string{"bob requested Bobby hi"}, []string{"ann asked  hi"}},
		{"bob", `{"contact.answer":{"uid":"ann"}}`, "", nil, nil},
		{"ann", `{"contact.ask":{"uid":"bob"}}`, "", []string{"bob requested"}, []string{"ann asked"}},
		{"ann", `{"contact.remove":{"uid":"bob"}}`, "", nil, nil},
		{"bob", `{"contact.ask":{"uid":"ann","note":"me"}}`, "", []string{"bob asked  me"}, []string{"ann requested  me"}},
		{"ann", `{"contact.answer":{"uid":"bob","accept":true,"remark":"B"}}`, "", []string{"bob accepted B me"}, []string{"ann accepted  me"}},
		{"bob", `{"contact.remark":{"uid":"ann","remark":"A"}}`, "", []string{"bob accepted B me"}, []string{"ann accepted A me"}},
		{"ann", `{"contact.ask":{"uid":"bob"}}`, "", []string{"bob accepted B me"}, []string{"ann accepted A me"}},
		{"bob", `{"contact.remove":{"uid":"ann"}}`, "", nil, nil},
		{"ann", `{"contact.ask":{"uid":"bob"}}`, "", []string{"bob requested"}, []string{"ann asked"}},
		{"bob", `{"contact.ask":{"uid":"ann"}}`, "", []string{"bob accepted"}, []string{"ann accepted"}}, // both want to
	} {
		// Clocks of logics differ: what follows counts all the same.
		r.at = r.at.Add(time.Duration(1000-1900*(i%2)) * time.Millisecond)
		if step.code == "" {
			r.as(step.uid, "%s", step.body)
		} else {
			r.refused(step.code, step.uid, "%s", step.body)
		}
		if ann, bob := r.contacts("ann"), r.contacts("bob"); !slices.Equal(ann, step.ann) || !slices.Equal(bob, step.bob) {
			t.Fatalf("step %d, %s: got ann %q, bob %q", i, step.body, ann, bob)
		}
	}
}

func TestWhereProfilesAreTheHostsNobodyNamesHimself(t *testing.T) {
	r := newChatRig(t, func(c *conversation.Config, _ *conversation.Deps) { c.HostProfiles = true })
	r.refused("forbidden", "ann", `{"user.update":{"name":"Bob"}}`)
	r.refused("forbidden", "ann", `{"user.update":{"avatar":"bob.png","visibility":"all"}}`)
	equal(t, "mine", r.as("ann", `{"user.update":{"visibility":"all"}}`).GetUserUpdate(), &halleyv1.User{Uid: "ann", Visibility: "all"})
}

func TestPeopleAreFoundAndShowWhatIsTheirs(t *testing.T) {
	r := newChatRig(t)
	me := r.as("ann", `{"user.update":{"name":"Anna","avatar":"a.png"}}`).GetUserUpdate()
	equal(t, "mine", me, &halleyv1.User{Uid: "ann", Name: "Anna", Avatar: "a.png", Visibility: "contacts"})
	if err := r.db.PutUsers(t.Context(), []store.User{
		{Tenant: "default", UID: "bob", Name: "ANNABEL", Profile: []byte(`{"title":"Dr."}`)}, {Tenant: "other", UID: "annika"}, {Tenant: "default", UID: "annex", Disabled: true},
	}); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[string]string{"ann": "contacts ", "bob": " contacts"} {
		var got []string
		for _, u := range r.as(uid, `{"user.search":{"query":"ann"}}`).GetUserSearch().GetUsers() {
			got = append(got, u.GetVisibility())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s sees %q", uid, got)
		}
	}
	got := r.as("ann", `{"user.get":{"uids":["bob","nobody","annika"]}}`).GetUserGet().GetUsers()
	if len(got) != 1 || got[0].GetProfile().GetStructValue().GetFields()["title"].GetStringValue() != "Dr." || got[0].GetVisibility() != "" {
		t.Errorf("got %v", got)
	}
	for _, body := range []string{
		`{"user.get":{}}`, `{"user.get":{"uids":["a b"]}}`, `{"user.search":{}}`, `{"user.search":{"query":"x","limit":51}}`, `{"user.update":{"visibility":"x"}}`,
		fmt.Sprintf(`{"user.update":{"name":%q}}`, strings.Repeat("x", 256)),
	} {
		r.refused("invalid_request", "ann", "%s", body)
	}
}

func TestPresenceIsShownAsItsUserChose(t *testing.T) {
	r := newChatRig(t)
	r.router.OnPresence = func(q *halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
		res := &halleyv1.GetPresenceResponse{}
		for _, uid := range q.GetUids() {
			res.States = append(res.States, &halleyv1.Presence{Uid: uid, LastSeen: 7, Platforms: []string{"web"}})
		}
		return res, nil
	}
	for uid, v := range map[string]string{"all": "all", "none": "nobody", "friend": "contacts", "stranger": "contacts", "ann": "nobody"} {
		r.as(uid, `{"user.update":{"visibility":%q}}`, v)
	}
	r.as("ann", `{"contact.ask":{"uid":"friend"}}`)
	r.as("ann", `{"contact.ask":{"uid":"stranger"}}`)
	r.as("friend", `{"contact.answer":{"uid":"ann","accept":true}}`)
	r.as("ex", `{"user.update":{"visibility":"all"}}`)
	for _, uid := range []string{"ex", "foe"} {
		r.as(uid, `{"block.set":{"uid":"ann"}}`)
	}
	reply, res := r.ask(member("ann"), `{"presence.watch":{"uids":["all","none","friend","stranger","unknown","ann","ex","foe"]}}`)
	var seen []string
	for _, p := range reply.GetPresenceWatch().GetStates() {
		if p.GetLastSeen() > 0 && len(p.GetPlatforms()) > 0 {
			seen = append(seen, p.GetUid())
		}
	}
	if want := []string{"all", "ann", "friend", "unknown"}; !slices.Equal(sorted(seen), want) || len(reply.GetPresenceWatch().GetStates()) != 8 {
		t.Errorf("got %v, want %v", seen, want)
	}
	if want := []string{"presence://all", "presence://ann", "presence://friend", "presence://unknown"}; !slices.Equal(sorted(res.GetEffects().GetJoin()), want) {
		t.Errorf("joins: got %v", res.GetEffects())
	}
}

// TestWhoMayNotSeeAUserAnyMoreWatchesHimNoMore: by what he chose, by the end of a contact, and by a watch that came in between.
func TestWhoMayNotSeeAUserAnyMoreWatchesHimNoMore(t *testing.T) {
	r := newChatRig(t)
	r.router.OnPresence = func(q *halleyv1.GetPresenceRequest) (*halleyv1.GetPresenceResponse, error) {
		return &halleyv1.GetPresenceResponse{States: make([]*halleyv1.Presence, len(q.GetUids()))}, nil
	}
	r.as("ann", `{"contact.ask":{"uid":"friend"}}`)
	r.as("ann", `{"contact.ask":{"uid":"asked"}}`)
	r.as("friend", `{"contact.answer":{"uid":"ann","accept":true}}`)
	ended := func() (out []string) {
		for _, rec := range r.kafka.Records(t)[r.told:] {
			r.told++
			if leave := rec.GetControl().GetRooms().GetLeave(); leave != nil {
				to := rec.GetTargets()[0]
				out = append(out, fmt.Sprint(to.GetUid(), to.GetRoom(), " ", leave, " but ", rec.GetExcludeUids()))
			}
		}
		return sorted(out)
	}
	for _, tt := range []struct {
		body string
		want []string
	}{
		{`{"user.update":{"visibility":"all"}}`, nil},
		{`{"user.update":{"name":"Ann"}}`, nil},
		{`{"user.update":{"visibility":"contacts"}}`, []string{"presence://ann [presence://ann] but [ann friend]"}},
		{`{"contact.remove":{"uid":"asked"}}`, []string{"asked [presence://ann] but []"}},
		{`{"contact.remove":{"uid":"friend"}}`, []string{"friend [presence://ann] but []"}},
		{`{"user.update":{"visibility":"nobody"}}`, []string{"presence://ann [presence://ann] but [ann]"}},
	} {
		r.as("ann", "%s", tt.body)
		if got := ended(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.body, got, tt.want)
		}
	}
	q := member("friend")
	q.Rooms = []string{"presence://ann"}
	if _, res := r.ask(q, `{"presence.watch":{"uids":["ann"]}}`); !slices.Equal(res.GetEffects().GetLeave(), q.Rooms) {
		t.Errorf("who watched him when he asked again: got %v", res.GetEffects())
	}
}

// events returns the events pushed since the last call, with whom they went to.
func (r *chatRig) events() (out []string) {
	r.t.Helper()
	for _, rec := range r.kafka.Records(r.t)[r.told:] {
		r.told++
		ev := &halleyv1.Event{}
		if err := protojson.Unmarshal(rec.GetPush().GetBody(), ev); err != nil {
			r.t.Fatal(err)
		}
		target := rec.GetTargets()[0]
		out = append(out, target.GetUid()+target.GetRoom()+strings.Join(rec.GetExcludeUids(), "-")+" "+string(rec.GetPush().GetBody()))
	}
	return out
}

func TestTypingIsTold(t *testing.T) {
	r := newChatRig(t)
	r.say("ann", direct, "1")
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1","members":["bob"]}}`).GetGroupCreate().GetConversation()
	room := "conversation://open/" + g
	r.as("ann", `{"typing":{"conversation":"d/ann/bob"}}`)
	r.as("ann", `{"typing":{"conversation":%q,"off":true}}`, g)
	// Job tells of markers.
	r.as("bob", `{"conversation.read":{"conversation":"d/ann/bob","read_seq":1}}`)
	r.as("bob", `{"typing":{"conversation":"d/bob/bob"}}`)
	want := []string{
		`bob {"typing":{"conversation":"d/ann/bob","uid":"ann"}}`, room + `ann {"typing":{"conversation":"` + g + `","uid":"ann","off":true}}`,
	}
	if got := r.events(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	// A session hears of the group that it has open, and of no other.
	for _, tt := range []struct {
		rooms       []string
		conv        string
		join, leave []string
	}{
		{nil, g, []string{room}, nil}, {[]string{room}, g, nil, nil}, {[]string{"conversation://open/g/x", "chat://a"}, g, []string{room}, []string{"conversation://open/g/x"}},
		{[]string{room, "conversation://" + g}, direct, nil, []string{room}}, {[]string{room}, "", nil, []string{room}},
	} {
		_, res := r.ask(member("bob", tt.rooms...), fmt.Sprintf(`{"conversation.open":{"conversation":%q}}`, tt.conv))
		if e := res.GetEffects(); !slices.Equal(e.GetJoin(), tt.join) || !slices.Equal(e.GetLeave(), tt.leave) {
			t.Errorf("%v, %s: got %v", tt.rooms, tt.conv, e)
		}
	}
}

func TestSyncPutsTheSessionIntoItsLargeGroups(t *testing.T) {
	r := newChatRig(t)
	g := r.as("ann", `{"group.create":{"client_msg_id":"g1","members":["bob"]}}`).GetGroupCreate().GetConversation()
	small := r.as("ann", `{"group.create":{"client_msg_id":"g2","members":["bob"]}}`).GetGroupCreate().GetConversation()
	room := "conversation://" + g
	sync := func(rooms ...string) *halleyv1.SessionResponse {
		t.Helper()
		reply, res := r.ask(member("bob", rooms...), `{"sync":{}}`)
		if len(reply.GetSync().GetConversations()) == 0 {
			t.Errorf("got %v", reply)
		}
		return res
	}
	if res := sync("chat://x"); res.GetEffects() != nil || res.GetAgain() {
		t.Errorf("of small groups: got %v", res)
	}
	// What job does when a group grows.
	if _, err := r.db.Append(t.Context(), []entry.Proposal{{
		Tenant: "default", Conversation: g, Kind: entry.FanoutChanged, Fanout: entry.FanoutJoining, AcceptedAtMs: 1,
	}}); err != nil {
		t.Fatal(err)
	}
	if res := sync("conversation://" + small); !slices.Equal(res.GetEffects().GetJoin(), []string{room}) || res.GetEffects().GetLeave() != nil || !res.GetAgain() {
		t.Errorf("got %v", res)
	}
	if res := sync(room, "conversation://open/"+g); res.GetEffects() != nil || res.GetAgain() {
		t.Errorf("when it is in: got %v", res)
	}
	r.as("ann", `{"group.remove":{"conversation":%q,"client_msg_id":"r","members":["bob"]}}`, g)
	open := "conversation://open/" + g
	if res := sync(room, "conversation://"+small, open, "conversation://open/"+small, "chat://x"); !slices.Equal(res.GetEffects().GetLeave(), []string{room, open}) || res.GetAgain() {
		t.Errorf("when it has to go: got %v", res)
	}
	// He is taken for a member for some seconds where it doesn't matter; here it would be for as long as the session lives.
	r.as("ann", `{"group.add":{"conversation":%q,"client_msg_id":"a","members":["bob"]}}`, g)
	r.as("bob", `{"typing":{"conversation":%q}}`, g)
	r.as("ann", `{"group.remove":{"conversation":%q,"client_msg_id":"r2","members":["bob"]}}`, g)
	r.refused("not_member", "bob", `{"conversation.open":{"conversation":%q}}`, g)
}
