package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// GroupInfo is what can be said of a group; what is left out stays.
type GroupInfo struct {
	Title        *string `json:"title,omitempty" doc:"At most 255 bytes."`
	Avatar       *string `json:"avatar,omitempty" doc:"At most 1,024 bytes, a URL as a rule."`
	Announcement *string `json:"announcement,omitempty" doc:"At most 16 KiB."`
	JoinPolicy   *string `json:"join_policy,omitempty" enum:"by_admins,by_members,open" doc:"Who adds members."`
	MuteAll      *bool   `json:"mute_all,omitempty" doc:"Only owner and admins may send."`
	HistoryOpen  *bool   `json:"history_open,omitempty" doc:"Members see what was before they joined."`
}

func (g *GroupInfo) info() (*entry.Info, error) {
	i := &entry.Info{Title: g.Title, Avatar: g.Avatar, Announcement: g.Announcement, MuteAll: g.MuteAll, HistoryOpen: g.HistoryOpen}
	if g.JoinPolicy != nil {
		p, ok := wire.ParseJoinPolicy(*g.JoinPolicy)
		if !ok {
			return nil, errcode.InvalidRequest.Errorf("join_policy: by_admins, by_members or open")
		}
		i.JoinPolicy = &p
	}
	if *i == (entry.Info{}) {
		return nil, nil
	}
	return i, nil
}

// Past is in the calls by which a group's members of the past are imported.
type Past struct {
	AcceptedAt int64 `json:"accepted_at,omitempty" doc:"When it was, for groups that are imported; left out: now. Times of a conversation never go back."`
}

// at returns when it was accepted, milliseconds since 1970; 0 is now.
func (p Past) at(now time.Time) (int64, error) {
	if p.AcceptedAt < 0 || p.AcceptedAt > now.UnixMilli() {
		return 0, errcode.InvalidRequest.Errorf("accepted_at: a time that is past")
	}
	return p.AcceptedAt, nil
}

type (
	createInput struct {
		Body struct {
			ClientMsgID string   `json:"client_msg_id,omitempty" doc:"A repeat under the same one, of the same owner, makes no second group. Left out: made of the Idempotency-Key, or random."`
			Owner       string   `json:"owner,omitempty" doc:"Left out: the system's group, which has none."`
			Members     []string `json:"members,omitempty" doc:"Others, at most 500; more are added later."`
			Past
			GroupInfo
		}
	}
	infoInput struct {
		ConversationPath
		Body struct {
			Speaker
			GroupInfo
		}
	}
	namedInput struct {
		ConversationPath
		Body struct {
			Speaker
			Past
			Members []string `json:"members" minItems:"1" maxItems:"500" doc:"Users."`
		}
	}
	roleInput struct {
		ConversationPath
		Body struct {
			Speaker
			Past
			Members []string `json:"members" minItems:"1" maxItems:"500" doc:"Members; one for owner."`
			Role    string   `json:"role" enum:"member,admin,owner" doc:"owner hands the group over."`
		}
	}
	muteInput struct {
		ConversationPath
		Body struct {
			Speaker
			Members []string `json:"members" minItems:"1" maxItems:"500" doc:"Members."`
			Until   int64    `json:"until" minimum:"0" doc:"Until when they may not send; 0: they may."`
		}
	}
	actInput struct {
		ConversationPath
		Body struct {
			Speaker
			Past
		}
	}
	requestInput struct {
		ConversationPath
		Body struct {
			UID  string `json:"uid" doc:"Who wants to be a member."`
			Note string `json:"note,omitempty" doc:"At most 1,024 bytes."`
		}
	}
	answerInput struct {
		ConversationPath
		Body struct {
			From        string `json:"from" doc:"Owner or admin who answers."`
			ClientMsgID string `json:"client_msg_id,omitempty"`
			UID         string `json:"uid" doc:"Whose request."`
			Accept      bool   `json:"accept"`
		}
	}
	typingInput struct {
		ConversationPath
		Body struct {
			UID string `json:"uid" doc:"Who types."`
			Off bool   `json:"off,omitempty" doc:"He types no longer."`
		}
	}
	readInput struct {
		ConversationPath
		Body struct {
			UID          string `json:"uid" doc:"Whose markers."`
			ReadSeq      int64  `json:"read_seq,omitempty" minimum:"0" doc:"He has read up to here."`
			DeliveredSeq int64  `json:"delivered_seq,omitempty" minimum:"0" doc:"His devices have got up to here."`
		}
	}
	conversationInput    struct{ ConversationPath }
	getConversationInput struct {
		ConversationPath
		UID string `query:"uid" doc:"As this member has it: with what he has not read, mentions, his role and settings."`
	}
	conversationOutput struct{ Body conversation.Conversation }
	entriesInput       struct {
		ConversationPath
		UID    string `query:"uid" doc:"As this member sees it; left out: all."`
		From   int64  `query:"from" minimum:"0" doc:"First seq, going forward."`
		To     int64  `query:"to" minimum:"0" doc:"Last seq."`
		Before int64  `query:"before" minimum:"0" doc:"Going backward: entries before this seq; neither this nor from and to: the last ones."`
		Limit  uint32 `query:"limit" default:"50" minimum:"1" maximum:"200" doc:"The most entries; fewer where they are large."`
	}
	entriesOutput    struct{ Body conversation.Entries }
	convMembersInput struct {
		ConversationPath
		ReadSeq int64  `query:"read_seq" minimum:"0" doc:"Only those who have read up to here."`
		Cursor  string `query:"cursor" doc:"Field next of the page before."`
		Limit   uint32 `query:"limit" default:"100" minimum:"1" maximum:"200"`
	}
	convMembersOutput struct{ Body conversation.MemberPage }
	reactorsInput     struct {
		MessagePath
		Reaction string `query:"reaction" required:"true"`
		Cursor   string `query:"cursor" doc:"Field next of the page before."`
		Limit    uint32 `query:"limit" default:"100" minimum:"1" maximum:"200"`
	}
	uidsOutput  struct{ Body conversation.UIDs }
	groupsInput struct {
		Cursor string `query:"cursor" doc:"Field next of the page before."`
		Limit  uint32 `query:"limit" default:"100" minimum:"1" maximum:"200"`
	}
	auditInput struct {
		MessagePath
		Cursor string `query:"cursor" doc:"Field next of the page before."`
		Limit  uint32 `query:"limit" default:"50" minimum:"1" maximum:"200"`
	}
	auditOutput struct{ Body conversation.Audit }
)

func (a *api) registerConversations() {
	read := route{scope: apikey.Chat | apikey.Read}
	get := func(id, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{"conversations"}}
	}
	const one = "/v1/conversations/{conversation}"
	handle(a, read, get("get-conversation", one, "A conversation"), a.getConversation)
	handle(a, read, get("list-entries", one+"/entries", "Messages and changes of a conversation"), a.entries)
	handle(a, read, get("list-conversation-members", one+"/members", "Members of a conversation, or who has read"), a.conversationMembers)
	handle(a, read, get("list-pinned", one+"/pins", "Messages on the board"), a.pinned)
	handle(a, read, get("list-reactors", one+"/messages/{seq}/reactions", "Who gave a reaction"), a.reactors)

	admin := route{scope: apikey.Admin}
	handle(a, admin, get("list-groups", "/v1/conversations", "All groups of the tenant"), a.listGroups)
	handle(a, admin, get("audit-message", one+"/messages/{seq}/audit", "What a message said before its edits and its recall"), a.audit)

	write := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{"groups"}, Description: sentText}
	}
	rt := route{scope: apikey.Chat, replay: true}
	handle(a, rt, write("create-group", http.MethodPost, "/v1/conversations", "Make a group"), a.createGroup)
	handle(a, rt, write("change-group", http.MethodPatch, one, "Change what is said of a group"), a.changeGroup)
	handle(a, rt, write("dissolve-group", http.MethodPost, one+"/dissolve", "End a group"), a.dissolve)
	handle(a, rt, write("add-group-members", http.MethodPost, one+"/members", "Add members"), a.addMembers)
	handle(a, rt, write("remove-group-members", http.MethodPost, one+"/members/remove", "Take members out"), a.removeMembers)
	handle(a, rt, write("set-role", http.MethodPost, one+"/members/role", "Give members a role, or hand the group over"), a.setRole)
	handle(a, rt, write("mute-members", http.MethodPost, one+"/members/mute", "Forbid members to send"), a.muteMembers)
	handle(a, rt, write("leave-group", http.MethodPost, one+"/leave", "A member leaves"), a.leave)
	done := func(id, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, Tags: []string{"groups"}}
	}
	handle(a, rt, done("request-to-join", one+"/requests", "Ask owner and admins to be added to a group"), a.requestToJoin)
	answer := done("answer-request", one+"/requests/answer", "Answer such a request")
	answer.Description = "Accepting is answered when the user is a member; what the group refuses has its code. 503 unknown: repeat it with the same client_msg_id or Idempotency-Key."
	handle(a, rt, answer, a.answerRequest)
	handle(a, rt, done("set-markers", one+"/read", "Raise a member's read and delivered markers"), a.setMarkers)
	handle(a, route{scope: apikey.Chat}, done("tell-typing", one+"/typing", "Tell the others that a member types"), a.tellTyping)
}

func (a *api) getConversation(ctx context.Context, in *getConversationInput) (*conversationOutput, error) {
	if in.UID != "" {
		if err := name.UID(in.UID); err != nil {
			return nil, err
		}
		c, err := a.d.Chat.Mine(ctx, callOf(ctx).tenant, in.UID, in.Conversation)
		if err != nil {
			return nil, err
		}
		return &conversationOutput{*c}, nil
	}
	c, err := a.d.Chat.Get(ctx, callOf(ctx).tenant, in.Conversation)
	if err != nil {
		return nil, err
	}
	return &conversationOutput{*c}, nil
}

func (a *api) entries(ctx context.Context, in *entriesInput) (*entriesOutput, error) {
	if in.UID != "" {
		if err := name.UID(in.UID); err != nil {
			return nil, err
		}
	}
	es, err := a.d.Chat.History(ctx, callOf(ctx).tenant, in.UID, conversation.Range{
		Conversation: in.Conversation, From: in.From, To: in.To, Before: in.Before, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	return &entriesOutput{*es}, nil
}

func (a *api) conversationMembers(ctx context.Context, in *convMembersInput) (*convMembersOutput, error) {
	page, err := a.d.Chat.Members(ctx, callOf(ctx).tenant, "", in.Conversation, in.Cursor, in.Limit, in.ReadSeq)
	if err != nil {
		return nil, err
	}
	return &convMembersOutput{*page}, nil
}

func (a *api) pinned(ctx context.Context, in *conversationInput) (*entriesOutput, error) {
	es, err := a.d.Chat.Pinned(ctx, callOf(ctx).tenant, "", in.Conversation)
	if err != nil {
		return nil, err
	}
	return &entriesOutput{*es}, nil
}

func (a *api) reactors(ctx context.Context, in *reactorsInput) (*uidsOutput, error) {
	page, err := a.d.Chat.Reactors(ctx, callOf(ctx).tenant, "", in.Conversation, in.Seq, in.Reaction, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	return &uidsOutput{*page}, nil
}

func (a *api) createGroup(ctx context.Context, in *createInput) (*sentOutput, error) {
	c, b := callOf(ctx), &in.Body
	info, err := b.info()
	if err != nil {
		return nil, err
	}
	o := c.backend()
	if o.AtMs, err = b.at(a.now()); err != nil {
		return nil, err
	}
	acc, err := a.d.Chat.CreateGroup(ctx, o, c.tenant, b.Owner, c.clientMsgID(b.ClientMsgID), entry.Detail{Members: b.Members, Info: info})
	return a.outcome(ctx, acc, err)
}

func (a *api) changeGroup(ctx context.Context, in *infoInput) (*sentOutput, error) {
	p := callOf(ctx).proposal(in.Conversation, entry.InfoChanged, &in.Body.Speaker)
	var err error
	if p.Detail.Info, err = in.Body.info(); err != nil {
		return nil, err
	}
	return a.propose(ctx, p)
}

func (a *api) act(ctx context.Context, conv string, kind entry.Kind, by *Speaker, past Past, d entry.Detail) (*sentOutput, error) {
	p := callOf(ctx).proposal(conv, kind, by)
	var err error
	if p.AcceptedAtMs, err = past.at(a.now()); err != nil {
		return nil, err
	}
	p.Detail = d
	return a.propose(ctx, p)
}

func (a *api) dissolve(ctx context.Context, in *actInput) (*sentOutput, error) {
	return a.act(ctx, in.Conversation, entry.Dissolved, &in.Body.Speaker, in.Body.Past, entry.Detail{})
}

func (a *api) leave(ctx context.Context, in *actInput) (*sentOutput, error) {
	return a.act(ctx, in.Conversation, entry.Left, &in.Body.Speaker, in.Body.Past, entry.Detail{})
}

func (a *api) addMembers(ctx context.Context, in *namedInput) (*sentOutput, error) {
	return a.act(ctx, in.Conversation, entry.Joined, &in.Body.Speaker, in.Body.Past, entry.Detail{Members: in.Body.Members})
}

func (a *api) removeMembers(ctx context.Context, in *namedInput) (*sentOutput, error) {
	return a.act(ctx, in.Conversation, entry.Removed, &in.Body.Speaker, in.Body.Past, entry.Detail{Members: in.Body.Members})
}

func (a *api) setRole(ctx context.Context, in *roleInput) (*sentOutput, error) {
	role, ok := wire.ParseRole(in.Body.Role)
	if !ok {
		return nil, errcode.InvalidRequest.Errorf("role: member, admin or owner")
	}
	return a.act(ctx, in.Conversation, entry.RoleChanged, &in.Body.Speaker, in.Body.Past, entry.Detail{Members: in.Body.Members, Role: role})
}

func (a *api) muteMembers(ctx context.Context, in *muteInput) (*sentOutput, error) {
	return a.act(ctx, in.Conversation, entry.Muted, &in.Body.Speaker, Past{}, entry.Detail{Members: in.Body.Members, MutedUntilMs: in.Body.Until})
}

// accepted answers what has no outcome of its own.
func accepted(acc conversation.Accepted, err error) (*doneOutput, error) {
	if err != nil {
		return nil, err
	}
	return &doneOutput{Done{AcceptedAt: acc.AcceptedAtMs}}, nil
}

// unwaited is a backend that asks for no outcome.
func unwaited() conversation.Origin { return conversation.Origin{Backend: true} }

func (a *api) requestToJoin(ctx context.Context, in *requestInput) (*doneOutput, error) {
	if err := name.UID(in.Body.UID); err != nil {
		return nil, err
	}
	return accepted(a.d.Chat.AskGroup(ctx, unwaited(), callOf(ctx).tenant, in.Body.UID, in.Conversation, in.Body.Note))
}

func (a *api) answerRequest(ctx context.Context, in *answerInput) (*doneOutput, error) {
	c, b := callOf(ctx), &in.Body
	if err := name.UID(b.From); err != nil {
		return nil, err
	}
	return accepted(a.d.Chat.AnswerGroup(ctx, unwaited(), c.tenant, b.From, in.Conversation, c.clientMsgID(b.ClientMsgID), b.UID, b.Accept))
}

func (a *api) tellTyping(ctx context.Context, in *typingInput) (*doneOutput, error) {
	if err := name.UID(in.Body.UID); err != nil {
		return nil, err
	}
	return a.done(a.d.Chat.Typing(ctx, unwaited(), callOf(ctx).tenant, in.Body.UID, in.Conversation, in.Body.Off))
}

func (a *api) setMarkers(ctx context.Context, in *readInput) (*doneOutput, error) {
	b := &in.Body
	return accepted(a.d.Chat.Read(ctx, unwaited(), callOf(ctx).tenant, b.UID, in.Conversation, b.ReadSeq, b.DeliveredSeq))
}

func (a *api) listGroups(ctx context.Context, in *groupsInput) (*listOutput, error) {
	page, err := a.d.Chat.Groups(ctx, callOf(ctx).tenant, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	return &listOutput{*page}, nil
}

func (a *api) audit(ctx context.Context, in *auditInput) (*auditOutput, error) {
	list, err := a.d.Chat.Audit(ctx, callOf(ctx).tenant, in.Conversation, in.Seq, in.Cursor, in.Limit)
	if err != nil {
		return nil, err
	}
	return &auditOutput{*list}, nil
}
