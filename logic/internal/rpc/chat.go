package rpc

import (
	"context"
	"encoding/json"
	"math"
	"slices"

	"github.com/halley-im/halley/logic/internal/conversation"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// seq is a whole number that clients have as a double; of times too.
type seq int64

// UnmarshalJSON takes whatever a JSON writer makes of a whole number.
func (s *seq) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	// 2^53 and above a double may be another number than was meant.
	if f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return errcode.InvalidRequest
	}
	*s = seq(f)
	return nil
}

type accepted struct {
	ID           string `json:"id"`
	AcceptedAt   int64  `json:"accepted_at"`
	Conversation string `json:"conversation,omitempty"`
}

func acceptance(a conversation.Accepted, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return accepted{ID: a.ID, AcceptedAt: a.AcceptedAtMs, Conversation: a.Conversation}, nil
}

// result returns what a question was answered, without turning a nil pointer into a result.
func result[T any](v *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (c *call) tenant() string { return c.session().GetTenant() }
func (c *call) uid() string    { return c.session().GetUid() }

func (c *call) origin() conversation.Origin {
	return conversation.Origin{Address: c.session().GetRemoteAddr()}
}

// asks makes a run of a handler that only reads conversations: it counts the question.
func asks[A any](h func(context.Context, *call, *A) (any, error)) func(context.Context, *call, json.RawMessage) (any, error) {
	return handle(func(ctx context.Context, c *call, a *A) (any, error) {
		if err := c.s.d.Chat.AdmitReader(ctx, c.tenant(), c.uid()); err != nil {
			return nil, err
		}
		return h(ctx, c, a)
	})
}

// messageArgs are the arguments of all methods that propose an entry; each method has some of them.
type messageArgs struct {
	Conversation string          `json:"conversation"`
	ClientMsgID  string          `json:"client_msg_id"`
	Seq          seq             `json:"seq"`
	Body         json.RawMessage `json:"body"`
	Mentions     []string        `json:"mentions"`
	MentionAll   bool            `json:"mention_all"`
	Reaction     string          `json:"reaction"`
	Off          bool            `json:"off"`
}

// proposes makes a run of a method that proposes an entry of a kind, with the detail that fill adds.
func proposes(kind entry.Kind, fill func(*messageArgs, *entry.Proposal)) func(context.Context, *call, json.RawMessage) (any, error) {
	return handle(func(ctx context.Context, c *call, a *messageArgs) (any, error) {
		p := entry.Proposal{
			Tenant: c.tenant(), Conversation: a.Conversation, Kind: kind, Sender: c.uid(), ClientMsgID: a.ClientMsgID, Target: int64(a.Seq),
		}
		if fill != nil {
			fill(a, &p)
		}
		return acceptance(c.s.d.Chat.Propose(ctx, c.origin(), p))
	})
}

func sayWhat(a *messageArgs, p *entry.Proposal) {
	p.Body, p.Detail = a.Body, entry.Detail{Mentions: a.Mentions, MentionAll: a.MentionAll}
}

func send(a *messageArgs, p *entry.Proposal) {
	sayWhat(a, p)
	p.Target = 0
}

func react(a *messageArgs, p *entry.Proposal) {
	p.Detail = entry.Detail{Reaction: a.Reaction, Off: a.Off}
}

func pin(a *messageArgs, p *entry.Proposal) { p.Detail = entry.Detail{Off: a.Off} }

// pageArgs are the arguments of what is read in pages.
type pageArgs struct {
	Conversation string `json:"conversation"`
	Seq          seq    `json:"seq"`
	Reaction     string `json:"reaction"`
	Cursor       string `json:"cursor"`
	Limit        uint32 `json:"limit"`
	ReadSeq      seq    `json:"read_seq"`
	DeliveredSeq seq    `json:"delivered_seq"`
	From         seq    `json:"from"`
	To           seq    `json:"to"`
	Before       seq    `json:"before"`
	Off          bool   `json:"off"`
}

func reactors(ctx context.Context, c *call, a *pageArgs) (any, error) {
	return result(c.s.d.Chat.Reactors(ctx, c.tenant(), c.uid(), a.Conversation, int64(a.Seq), a.Reaction, a.Cursor, a.Limit))
}

func deleteMessage(ctx context.Context, c *call, a *pageArgs) (any, error) {
	return acceptance(c.s.d.Chat.Delete(ctx, c.origin(), c.tenant(), c.uid(), a.Conversation, int64(a.Seq)))
}

func listConversations(ctx context.Context, c *call, a *pageArgs) (any, error) {
	return result(c.s.d.Chat.List(ctx, c.tenant(), c.uid(), a.Cursor, a.Limit))
}

func history(ctx context.Context, c *call, a *pageArgs) (any, error) {
	return result(c.s.d.Chat.History(ctx, c.tenant(), c.uid(), conversation.Range{
		Conversation: a.Conversation, From: int64(a.From), To: int64(a.To), Before: int64(a.Before), Limit: a.Limit,
	}))
}

func conversationMembers(ctx context.Context, c *call, a *pageArgs) (any, error) {
	return result(c.s.d.Chat.Members(ctx, c.tenant(), c.uid(), a.Conversation, a.Cursor, a.Limit, int64(a.ReadSeq)))
}

func readConversation(ctx context.Context, c *call, a *pageArgs) (any, error) {
	return acceptance(c.s.d.Chat.Read(ctx, c.origin(), c.tenant(), c.uid(), a.Conversation, int64(a.ReadSeq), int64(a.DeliveredSeq)))
}

func getConversation(ctx context.Context, c *call, a *pageArgs) (any, error) {
	return result(c.s.d.Chat.Mine(ctx, c.tenant(), c.uid(), a.Conversation))
}

func pinned(ctx context.Context, c *call, a *pageArgs) (any, error) {
	return result(c.s.d.Chat.Pinned(ctx, c.tenant(), c.uid(), a.Conversation))
}

type settings struct {
	Conversation string  `json:"conversation"`
	Mute         *bool   `json:"mute"`
	Pin          *bool   `json:"pin"`
	Hide         *bool   `json:"hide"`
	Draft        *string `json:"draft"`
	Clear        *seq    `json:"clear"`
}

func setConversation(ctx context.Context, c *call, a *settings) (any, error) {
	return acceptance(c.s.d.Chat.Set(ctx, c.origin(), c.tenant(), c.uid(), a.Conversation, conversation.Settings{
		Mute: a.Mute, Pin: a.Pin, Hide: a.Hide, Draft: a.Draft, Clear: (*int64)(a.Clear),
	}))
}

type syncArgs struct {
	Conversations map[string]seq `json:"conversations"`
	UserChange    seq            `json:"user_change"`
	Above         string         `json:"above"`
	UpTo          string         `json:"up_to"`
}

func syncChat(ctx context.Context, c *call, a *syncArgs) (any, error) {
	have := make(map[string]int64, len(a.Conversations))
	for id, n := range a.Conversations {
		have[id] = int64(n)
	}
	page, err := c.s.d.Chat.Sync(ctx, c.tenant(), c.uid(), conversation.Have{
		Conversations: have, UserChange: int64(a.UserChange), Above: a.Above, UpTo: a.UpTo,
	})
	if err != nil {
		return nil, err
	}
	if err := c.enterGroups(ctx, page.Rooms); err != nil {
		return nil, err
	}
	return page, nil
}

// mostEntered is the most rooms that a session is put into at once; the next page, or the next sync, has the rest.
const mostEntered = 1000

// enterGroups puts the session into the rooms of its user's large groups. Here, and not when it connects: a client syncs after
// that, and whenever it may have missed something, and what sync reads tells the rooms, too; so a crowd that comes back asks the
// database once. What counts is what is read after the join: entries before it are in the page, later ones come live.
func (c *call) enterGroups(ctx context.Context, rooms []string) error {
	var join []string
	for _, r := range rooms {
		if !c.in(r) && len(join) < mostEntered {
			join = append(join, r)
		}
	}
	// He may have been taken out while he was put in.
	gone, err := c.s.d.Chat.Gone(ctx, c.tenant(), c.uid(), slices.DeleteFunc(slices.Clone(c.req.GetRooms()), func(r string) bool {
		return slices.Contains(rooms, r)
	}))
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		c.change().Leave = gone
	}
	if len(join) > 0 {
		c.change().Join = join
		c.again = true
	}
	return nil
}

func syncCursor(ctx context.Context, c *call, _ *struct{}) (any, error) {
	return result(c.s.d.Chat.Cursor(ctx, c.tenant(), c.uid()))
}

// openConversation has the session in the room of one group at most: the others it leaves.
func openConversation(ctx context.Context, c *call, a *pageArgs) (any, error) {
	room := ""
	if a.Conversation != "" {
		var err error
		if room, err = c.s.d.Chat.Open(ctx, c.tenant(), c.uid(), a.Conversation); err != nil {
			return nil, err
		}
	}
	var leave []string
	for _, r := range c.req.GetRooms() {
		if r != room && name.IsOpenRoom(r) {
			leave = append(leave, r)
		}
	}
	if len(leave) > 0 {
		c.change().Leave = leave
	}
	if room != "" && !c.in(room) {
		c.change().Join = []string{room}
	}
	return struct{}{}, nil
}

func typing(ctx context.Context, c *call, a *pageArgs) (any, error) {
	if err := c.s.d.Chat.Typing(ctx, c.origin(), c.tenant(), c.uid(), a.Conversation, a.Off); err != nil {
		return nil, err
	}
	return struct{}{}, nil
}

// groupArgs are the arguments of all methods of groups; each method has some of them.
type groupArgs struct {
	Conversation string   `json:"conversation"`
	ClientMsgID  string   `json:"client_msg_id"`
	Members      []string `json:"members"`
	Role         string   `json:"role"`
	Until        seq      `json:"until"`
	Note         string   `json:"note"`
	UID          string   `json:"uid"`
	Accept       bool     `json:"accept"`
	Title        *string  `json:"title"`
	Avatar       *string  `json:"avatar"`
	Announcement *string  `json:"announcement"`
	JoinPolicy   *string  `json:"join_policy"`
	MuteAll      *bool    `json:"mute_all"`
	HistoryOpen  *bool    `json:"history_open"`
}

func createGroup(ctx context.Context, c *call, a *groupArgs) (any, error) {
	d := entry.Detail{Members: a.Members}
	if a.Title != nil && *a.Title != "" {
		d.Info = &entry.Info{Title: a.Title}
	}
	return acceptance(c.s.d.Chat.CreateGroup(ctx, c.origin(), c.tenant(), c.uid(), a.ClientMsgID, d))
}

// changesGroup makes a run of a method that proposes a change of a group.
func changesGroup(kind entry.Kind, fill func(*groupArgs, *entry.Detail) error) func(context.Context, *call, json.RawMessage) (any, error) {
	return handle(func(ctx context.Context, c *call, a *groupArgs) (any, error) {
		p := entry.Proposal{Tenant: c.tenant(), Conversation: a.Conversation, Kind: kind, Sender: c.uid(), ClientMsgID: a.ClientMsgID}
		if fill != nil {
			if err := fill(a, &p.Detail); err != nil {
				return nil, err
			}
		}
		return acceptance(c.s.d.Chat.Propose(ctx, c.origin(), p))
	})
}

func whom(a *groupArgs, d *entry.Detail) error {
	d.Members = a.Members
	return nil
}

func whichRole(a *groupArgs, d *entry.Detail) error {
	role, ok := wire.ParseRole(a.Role)
	if !ok {
		return errcode.InvalidRequest.Errorf("role: member, admin or owner")
	}
	d.Members, d.Role = a.Members, role
	return nil
}

func untilWhen(a *groupArgs, d *entry.Detail) error {
	d.Members, d.MutedUntilMs = a.Members, int64(a.Until)
	return nil
}

func whichInfo(a *groupArgs, d *entry.Detail) error {
	d.Info = &entry.Info{Title: a.Title, Avatar: a.Avatar, Announcement: a.Announcement, MuteAll: a.MuteAll, HistoryOpen: a.HistoryOpen}
	if a.JoinPolicy != nil {
		policy, ok := wire.ParseJoinPolicy(*a.JoinPolicy)
		if !ok {
			return errcode.InvalidRequest.Errorf("join_policy: by_admins, by_members or open")
		}
		d.Info.JoinPolicy = &policy
	}
	if *d.Info == (entry.Info{}) {
		return errcode.InvalidRequest.Errorf("title, avatar, announcement, join_policy, mute_all or history_open")
	}
	return nil
}

func askGroup(ctx context.Context, c *call, a *groupArgs) (any, error) {
	return acceptance(c.s.d.Chat.AskGroup(ctx, c.origin(), c.tenant(), c.uid(), a.Conversation, a.Note))
}

func answerGroup(ctx context.Context, c *call, a *groupArgs) (any, error) {
	return acceptance(c.s.d.Chat.AnswerGroup(ctx, c.origin(), c.tenant(), c.uid(), a.Conversation, a.ClientMsgID, a.UID, a.Accept))
}
