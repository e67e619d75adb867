package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	entry "github.com/halley-im/halley/store/conversation"
)

// Sent is what became of something that was proposed to a conversation.
type Sent struct {
	ID           string `json:"id" doc:"Names it; a repeat under the same client_msg_id has the same."`
	Conversation string `json:"conversation"`
	AcceptedAt   int64  `json:"accepted_at"`
	Seq          int64  `json:"seq,omitempty" doc:"The entry's place; not there with 202: accepted, and not known to be stored yet."`
	ServerTime   int64  `json:"server_time,omitempty" doc:"The entry's time."`
}

// ConversationPath is the parameter of paths of a conversation; its slashes are percent-encoded there.
type ConversationPath struct {
	Conversation string `path:"conversation" doc:"The conversation's id, percent-encoded: d/UID/UID with the smaller uid first, g/UUID, or i/UID." example:"d%2Fann%2Fbob"`
}

// MessagePath is the parameter of paths of a message.
type MessagePath struct {
	ConversationPath
	Seq int64 `path:"seq" minimum:"1" doc:"The message's seq."`
}

// Speaker is who asks for something, and by which id.
type Speaker struct {
	From        string `json:"from,omitempty" doc:"The user who does it, under his rights; left out: the system, which may do everything."`
	ClientMsgID string `json:"client_msg_id,omitempty" doc:"1 to 64 bytes; all that bear the same one, from one sender in one conversation, have one outcome. Left out: made of the Idempotency-Key, or random."`
}

type (
	sentOutput struct {
		Status int
		Body   Sent
	}
	sendInput struct {
		ConversationPath
		Body struct {
			Speaker
			Body       json.RawMessage `json:"body" doc:"Any JSON value, at most 32 KiB and 100 levels deep."`
			Mentions   []string        `json:"mentions,omitempty" doc:"Users whom it mentions."`
			MentionAll bool            `json:"mention_all,omitempty" doc:"It mentions everybody; in groups for owner and admins only."`
		}
	}
	editInput struct {
		MessagePath
		Body struct {
			Speaker
			Body       json.RawMessage `json:"body" doc:"The new body."`
			Mentions   []string        `json:"mentions,omitempty"`
			MentionAll bool            `json:"mention_all,omitempty"`
		}
	}
	recallInput struct {
		MessagePath
		Body struct{ Speaker }
	}
	reactInput struct {
		MessagePath
		Body struct {
			Speaker
			Reaction string `json:"reaction" doc:"1 to 64 bytes, an emoji as a rule." example:"👍"`
			Off      bool   `json:"off,omitempty" doc:"Take it away."`
		}
	}
	pinInput struct {
		MessagePath
		Body struct {
			Speaker
			Off bool `json:"off,omitempty" doc:"Take it down."`
		}
	}
	importInput struct {
		ConversationPath
		Body struct {
			Messages []OldMessage `json:"messages" minItems:"1" maxItems:"500" doc:"In their order."`
		}
	}
	importOutput struct {
		Status int
		Body   struct {
			Messages []SentItem `json:"messages" doc:"One for each, in their order."`
		}
	}
)

// OldMessage is a message that is imported.
type OldMessage struct {
	Speaker
	Body       json.RawMessage `json:"body" doc:"Any JSON value, at most 32 KiB and 100 levels deep."`
	AcceptedAt int64           `json:"accepted_at" doc:"When it was sent. Times of a conversation never go back: an earlier one than the last entry's becomes that."`
	Mentions   []string        `json:"mentions,omitempty"`
}

// SentItem is one message's outcome of an import: the fields of Sent, or error.
type SentItem struct {
	ID    string     `json:"id"`
	Seq   int64      `json:"seq,omitempty" doc:"Not there, and no error: not known to be stored yet."`
	Error *ItemError `json:"error,omitempty"`
}

const sentText = "200 once it is stored; 202 if that isn't known within 2 s: clients get it all the same. What the conversation refuses has its code. 503 unknown: repeat it with the same client_msg_id or Idempotency-Key."

func (a *api) registerChat() {
	tags := []string{"messages"}
	write := func(id, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, Tags: tags, Description: sentText}
	}
	rt := route{scope: apikey.Chat, replay: true}
	const message = "/v1/conversations/{conversation}/messages"
	handle(a, rt, write("send-message", message, "Send a message to a conversation"), a.send)
	handle(a, rt, write("edit-message", message+"/{seq}/edit", "Put another body in the place of a message's"), a.edit)
	handle(a, rt, write("recall-message", message+"/{seq}/recall", "Empty a message"), a.recall)
	handle(a, rt, write("react-message", message+"/{seq}/reactions", "Add a reaction to a message, or take it away"), a.react)
	handle(a, rt, write("pin-message", message+"/{seq}/pin", "Put a message on the board, or take it down"), a.pin)
	op := write("import-messages", "/v1/conversations/{conversation}/import", "Import history")
	op.Description = "Messages with the times at which they were sent, up to 500 at once, in their order. Senders must be members. A repeat with the same client_msg_ids " +
		"imports nothing twice. Members who are connected get them as any message: import before people come. 200 if all outcomes are known, else 202."
	handle(a, route{scope: apikey.Admin, maxBytes: 16 << 20}, op, a.importHistory)
}

// clientMsgID returns the id that the caller gave, or one that is the same for a repeat under the same Idempotency-Key.
func (c *call) clientMsgID(given string) string {
	if given != "" {
		return given
	}
	if id := c.pushID(""); id != "" {
		return id
	}
	return uuid.NewString()
}

func (c *call) backend() conversation.Origin { return conversation.Origin{Backend: true, Wait: true} }

// proposal begins what a caller wants to be done in a conversation.
func (c *call) proposal(conv string, kind entry.Kind, by *Speaker) entry.Proposal {
	return entry.Proposal{Tenant: c.tenant, Conversation: conv, Kind: kind, Sender: by.From, ClientMsgID: c.clientMsgID(by.ClientMsgID)}
}

// propose writes p and waits for what becomes of it.
func (a *api) propose(ctx context.Context, p entry.Proposal) (*sentOutput, error) {
	acc, err := a.d.Chat.Propose(ctx, callOf(ctx).backend(), p)
	return a.outcome(ctx, acc, err)
}

func (a *api) outcome(ctx context.Context, acc conversation.Accepted, err error) (*sentOutput, error) {
	if err != nil {
		return nil, err
	}
	o := a.d.Chat.Outcomes(ctx, []string{acc.ID})[0]
	if o.Err != nil {
		return nil, o.Err
	}
	out := &sentOutput{Status: http.StatusOK, Body: Sent{
		ID: acc.ID, Conversation: acc.Conversation, AcceptedAt: acc.AcceptedAtMs, Seq: o.Seq, ServerTime: o.AtMs,
	}}
	if !o.Known {
		out.Status = http.StatusAccepted
	}
	return out, nil
}

func (a *api) send(ctx context.Context, in *sendInput) (*sentOutput, error) {
	b := &in.Body
	p := callOf(ctx).proposal(in.Conversation, entry.Message, &b.Speaker)
	p.Body, p.Detail = b.Body, entry.Detail{Mentions: b.Mentions, MentionAll: b.MentionAll}
	return a.propose(ctx, p)
}

func (a *api) edit(ctx context.Context, in *editInput) (*sentOutput, error) {
	b := &in.Body
	p := callOf(ctx).proposal(in.Conversation, entry.Edit, &b.Speaker)
	p.Target, p.Body, p.Detail = in.Seq, b.Body, entry.Detail{Mentions: b.Mentions, MentionAll: b.MentionAll}
	return a.propose(ctx, p)
}

func (a *api) recall(ctx context.Context, in *recallInput) (*sentOutput, error) {
	p := callOf(ctx).proposal(in.Conversation, entry.Recall, &in.Body.Speaker)
	p.Target = in.Seq
	return a.propose(ctx, p)
}

func (a *api) react(ctx context.Context, in *reactInput) (*sentOutput, error) {
	p := callOf(ctx).proposal(in.Conversation, entry.Reaction, &in.Body.Speaker)
	p.Target, p.Detail = in.Seq, entry.Detail{Reaction: in.Body.Reaction, Off: in.Body.Off}
	return a.propose(ctx, p)
}

func (a *api) pin(ctx context.Context, in *pinInput) (*sentOutput, error) {
	p := callOf(ctx).proposal(in.Conversation, entry.Pin, &in.Body.Speaker)
	p.Target, p.Detail = in.Seq, entry.Detail{Off: in.Body.Off}
	return a.propose(ctx, p)
}

func (a *api) importHistory(ctx context.Context, in *importInput) (*importOutput, error) {
	c, list := callOf(ctx), in.Body.Messages
	latest := a.now().UnixMilli()
	ps := make([]entry.Proposal, len(list))
	for i := range list {
		m := &list[i]
		if m.AcceptedAt <= 0 || m.AcceptedAt > latest {
			return nil, errcode.InvalidRequest.Errorf("messages[%d].accepted_at: a time that is past", i)
		}
		id := m.ClientMsgID
		if id == "" {
			if id = c.pushID(strconv.Itoa(i)); id == "" {
				return nil, errcode.InvalidRequest.Errorf("messages[%d].client_msg_id: needed without an Idempotency-Key, so that a repeat imports nothing twice", i)
			}
		}
		ps[i] = entry.Proposal{
			Tenant: c.tenant, Conversation: in.Conversation, Kind: entry.Message, Sender: m.From, ClientMsgID: id, AcceptedAtMs: m.AcceptedAt, Imported: true,
			Body: m.Body, Detail: entry.Detail{Mentions: m.Mentions},
		}
	}
	accepted, err := a.d.Chat.ProposeMany(ctx, c.backend(), ps)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(accepted))
	for i := range accepted {
		ids[i] = accepted[i].ID
	}
	out := &importOutput{Status: http.StatusOK}
	out.Body.Messages = make([]SentItem, len(ids))
	for i, o := range a.d.Chat.Outcomes(ctx, ids) {
		item := SentItem{ID: ids[i], Seq: o.Seq}
		if o.Err != nil {
			item.Error = itemError(errcode.From(o.Err))
		}
		if !o.Known {
			out.Status = http.StatusAccepted
		}
		out.Body.Messages[i] = item
	}
	return out, nil
}

func itemError(e *errcode.Error) *ItemError {
	text := e.Detail
	if text == "" {
		text = e.Code.Text
	}
	return &ItemError{Code: e.Code.Name, Message: text, Retry: e.Code.Retry, RetryAfterMS: e.RetryAfter.Milliseconds()}
}

// durable writes a push into the inboxes of its users, instead of pushing it.
func (a *api) durable(ctx context.Context, p *Push) (*pushOutput, error) {
	c := callOf(ctx)
	if p.All || len(p.Keys)+len(p.Rooms)+len(p.ExcludeUIDs)+len(p.ExcludeKeys) > 0 || p.Op != nil || p.Lane != "" || p.TTL != 0 || p.Speed != 0 || p.Base64 != nil {
		return nil, errcode.InvalidRequest.Errorf("durable: goes with uids, and text or json, alone")
	}
	if most := a.d.Chat.DurableTargets(); len(p.UIDs) > most {
		return nil, errcode.TooLarge.Errorf("uids: at most %d with durable", most)
	}
	if len(p.UIDs) == 0 {
		return nil, errcode.InvalidRequest.Errorf("uids: at least one")
	}
	body := []byte(p.JSON)
	switch {
	case p.Text != nil && p.JSON != nil:
		return nil, errcode.InvalidRequest.Errorf("body: only one of text and json")
	case p.Text != nil:
		body, _ = json.Marshal(*p.Text) // a string can't fail
	}
	id := c.clientMsgID("")
	ps := make([]entry.Proposal, len(p.UIDs))
	for i, uid := range p.UIDs {
		if err := name.UID(uid); err != nil {
			return nil, err
		}
		ps[i] = entry.Proposal{Tenant: c.tenant, Conversation: entry.InboxID(uid), Kind: entry.Message, ClientMsgID: id, Body: body}
	}
	acc, err := a.d.Chat.ProposeMany(ctx, conversation.Origin{Backend: true}, ps)
	if err != nil {
		return nil, err
	}
	return &pushOutput{Pushed{ID: id, AcceptedAt: acc[0].AcceptedAtMs}}, nil
}
