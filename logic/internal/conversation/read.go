package conversation

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
	entry "github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// Pages.
const (
	// MostPerPage is the most that a caller may ask for.
	MostPerPage   = 200
	defaultPage   = 50
	defaultMember = 100
)

func pageSize(limit uint32, otherwise int) (int, error) {
	switch {
	case limit == 0:
		return otherwise, nil
	case limit > MostPerPage:
		return 0, errcode.InvalidRequest.Errorf("limit: at most %d", MostPerPage)
	}
	return int(limit), nil
}

// List returns a page of uid's conversations, those with the newest message first.
func (s *Service) List(ctx context.Context, tenant, uid, cursor string, limit uint32) (*Page, error) {
	if s.d.Store == nil {
		return nil, errNoStore
	}
	n, err := pageSize(limit, defaultPage)
	if err != nil {
		return nil, err
	}
	behind, err := parseCursor(cursor)
	if err != nil {
		return nil, err
	}
	list, next, err := s.d.Store.Conversations(ctx, tenant, uid, behind, n)
	if err != nil {
		return nil, storeError(err)
	}
	page := &Page{Conversations: make([]Conversation, 0, len(list))}
	var size int64
	for i := range list {
		if size += summaryWidth(&list[i]); size > s.cfg.PageBytes && i > 0 {
			last := list[i-1].Cursor()
			next = &last
			break
		}
		page.Conversations = append(page.Conversations, summaryView(&list[i]))
	}
	if next != nil {
		page.Next = formatCursor(next)
	}
	return page, nil
}

func formatCursor(c *store.Cursor) string {
	return strconv.FormatInt(c.ActivityMs, 10) + "." + c.Conversation
}

func parseCursor(text string) (store.Cursor, error) {
	if text == "" {
		return store.Cursor{}, nil
	}
	at, id, _ := strings.Cut(text, ".")
	ms, err := strconv.ParseInt(at, 10, 64)
	if err != nil || entry.CheckID(id) != nil {
		return store.Cursor{}, errcode.InvalidRequest.Errorf("cursor: not one of ours")
	}
	return store.Cursor{ActivityMs: ms, Conversation: id}, nil
}

// Range asks for entries: from From to To, both included, or, where From and To are 0, the last ones before Before; 0: from the end.
type Range struct {
	Conversation     string
	From, To, Before int64
	Limit            uint32
}

// maxSeq is the largest whole number that every JSON reader takes.
const maxSeq = 1<<53 - 1

// History returns entries that uid may see; uid empty: all of them. A page may be shorter than asked for: it is bounded in bytes too.
// Then it ends early where it goes forward, and begins late where it goes back.
func (s *Service) History(ctx context.Context, tenant, uid string, q Range) (*Entries, error) {
	n, err := pageSize(q.Limit, defaultPage)
	if err != nil {
		return nil, err
	}
	for _, v := range []int64{q.From, q.To, q.Before} {
		if v < 0 || v > maxSeq {
			return nil, errcode.InvalidRequest.Errorf("from, to and before: a seq, or 0")
		}
	}
	forward := q.From > 0 || q.To > 0
	if forward && (q.Before > 0 || q.To > 0 && q.To < q.From) {
		return nil, errcode.InvalidRequest.Errorf("either from and to, or before")
	}
	c, first, err := s.visible(ctx, tenant, uid, q.Conversation)
	if err != nil || first == 0 {
		return &Entries{Entries: entryViews(nil)}, err
	}
	var list []store.Entry
	if forward {
		to := q.To
		if to == 0 {
			to = c.LastSeq
		}
		list, err = s.d.Store.Entries(ctx, tenant, q.Conversation, max(first, q.From), min(to, c.LastSeq), n)
	} else {
		before := q.Before
		if before == 0 || before > c.LastSeq {
			before = c.LastSeq + 1
		}
		list, err = s.d.Store.EntriesBefore(ctx, tenant, q.Conversation, first, before, n)
	}
	if err != nil {
		return nil, storeError(err)
	}
	room := s.cfg.PageBytes
	if forward {
		list = list[:fit(list, &room, true)]
	} else {
		list = list[len(list)-fitBack(list, &room, true):]
	}
	return &Entries{Entries: entryViews(list)}, nil
}

// fit returns how many entries from the front fit into room, which it takes from; at least one if must is set.
func fit(list []store.Entry, room *int64, must bool) int {
	for i := range list {
		w := width(&list[i])
		if w > *room && !(must && i == 0) {
			return i
		}
		*room -= w
	}
	return len(list)
}

// fitBack is fit from the back.
func fitBack(list []store.Entry, room *int64, must bool) int {
	for i := len(list) - 1; i >= 0; i-- {
		w := width(&list[i])
		if w > *room && !(must && i == len(list)-1) {
			return len(list) - 1 - i
		}
		*room -= w
	}
	return len(list)
}

// visible returns a conversation and the first seq that uid may read in it: 0 for a party to a conversation that has not
// begun. Others get errcode.NotFound or NotMember.
func (s *Service) visible(ctx context.Context, tenant, uid, id string) (entry.Conversation, int64, error) {
	if s.d.Store == nil {
		return entry.Conversation{}, 0, errNoStore
	}
	if err := entry.CheckID(id); err != nil {
		return entry.Conversation{}, 0, err
	}
	if uid == "" {
		c, err := s.d.Store.Conversation(ctx, tenant, id)
		return c, 1, storeError(err)
	}
	parties := entry.Parties(id)
	if parties != nil && !slices.Contains(parties, uid) {
		return entry.Conversation{}, 0, errcode.NotMember
	}
	// Not by the cache: the first seq and the last one have to be right.
	c, m, err := s.d.Store.Membership(ctx, tenant, id, uid)
	switch {
	case err != nil && !isAway(err) && parties != nil:
		return entry.Conversation{}, 0, nil
	case err != nil:
		return c, 0, storeError(err)
	case m.Role == entry.None:
		return c, 0, errcode.NotMember
	}
	return c, m.VisibleFrom(&c), nil
}

// Mine returns one of uid's conversations as he sees it.
func (s *Service) Mine(ctx context.Context, tenant, uid, id string) (*Conversation, error) {
	if _, first, err := s.visible(ctx, tenant, uid, id); err != nil {
		return nil, err
	} else if first == 0 {
		return nil, errcode.NotFound.Errorf("the conversation has not begun")
	}
	list, err := s.d.Store.Summaries(ctx, tenant, uid, []string{id})
	if err != nil {
		return nil, storeError(err)
	}
	if len(list) == 0 {
		// He is a member, and his list doesn't know yet.
		return nil, errNotListed
	}
	v := summaryView(&list[0])
	return &v, nil
}

// Pinned returns the messages on a conversation's board that uid may see; uid empty: all.
func (s *Service) Pinned(ctx context.Context, tenant, uid, id string) (*Entries, error) {
	_, first, err := s.visible(ctx, tenant, uid, id)
	if err != nil || first == 0 {
		return &Entries{Entries: entryViews(nil)}, err
	}
	list, err := s.d.Store.Pinned(ctx, tenant, id, MostPerPage)
	if err != nil {
		return nil, storeError(err)
	}
	list = slices.DeleteFunc(list, func(e store.Entry) bool { return e.Seq < first })
	room := s.cfg.PageBytes
	return &Entries{Entries: entryViews(list[:fit(list, &room, true)])}, nil
}

// Reactors returns who gave a reaction to a message, in pages.
func (s *Service) Reactors(ctx context.Context, tenant, uid, id string, seq int64, reaction, cursor string, limit uint32) (*UIDs, error) {
	n, err := pageSize(limit, defaultMember)
	if err != nil {
		return nil, err
	}
	if seq <= 0 || seq > maxSeq || len(reaction) == 0 || len(reaction) > entry.MaxReaction || !utf8.ValidString(reaction) {
		return nil, errcode.InvalidRequest.Errorf("seq or reaction: not possible")
	}
	if err := checkAfter(cursor); err != nil {
		return nil, err
	}
	_, first, err := s.visible(ctx, tenant, uid, id)
	if err != nil {
		return nil, err
	}
	if first == 0 || seq < first {
		return nil, errcode.NotFound
	}
	list, err := s.d.Store.Reactors(ctx, tenant, id, seq, reaction, cursor, n+1)
	if err != nil {
		return nil, storeError(err)
	}
	return pageOf(list, n), nil
}

// checkAfter checks the cursor of a list of users, which is the last one of the page before. What is no text at all the database would not
// take, and that must not look as if it were away.
func checkAfter(cursor string) error {
	if cursor != "" && name.UID(cursor) != nil {
		return errcode.InvalidRequest.Errorf("cursor: not one of ours")
	}
	return nil
}

func pageOf(list []string, n int) *UIDs {
	page := &UIDs{UIDs: list}
	if list == nil {
		page.UIDs = []string{}
	}
	if len(list) > n {
		page.UIDs, page.Next = list[:n], list[n-1]
	}
	return page
}

// Get returns a conversation as such.
func (s *Service) Get(ctx context.Context, tenant, id string) (*Conversation, error) {
	c, _, err := s.visible(ctx, tenant, "", id)
	if err != nil {
		return nil, err
	}
	v := viewOf(&c)
	return &v, nil
}

// Groups returns a page of all groups of a tenant, in no order that means anything.
func (s *Service) Groups(ctx context.Context, tenant, cursor string, limit uint32) (*Page, error) {
	if s.d.Store == nil {
		return nil, errNoStore
	}
	n, err := pageSize(limit, defaultMember)
	if err != nil {
		return nil, err
	}
	if cursor != "" && (entry.CheckID(cursor) != nil || entry.TypeOf(cursor) != entry.Group) {
		return nil, errcode.InvalidRequest.Errorf("cursor: not one of ours")
	}
	list, err := s.d.Store.Groups(ctx, tenant, cursor, n+1)
	if err != nil {
		return nil, storeError(err)
	}
	page := &Page{Conversations: []Conversation{}}
	if len(list) > n {
		list = list[:n]
		page.Next = list[n-1].ID
	}
	for i := range list {
		page.Conversations = append(page.Conversations, viewOf(&list[i]))
	}
	return page, nil
}

// Audit returns a page of what a message said before each of its edits and its recall.
func (s *Service) Audit(ctx context.Context, tenant, id string, seq int64, cursor string, limit uint32) (*Audit, error) {
	n, err := pageSize(limit, defaultPage)
	if err != nil {
		return nil, err
	}
	var after int64
	if cursor != "" {
		if after, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			return nil, errcode.InvalidRequest.Errorf("cursor: not one of ours")
		}
	}
	if _, _, err := s.visible(ctx, tenant, "", id); err != nil {
		return nil, err
	}
	list, err := s.d.Store.Audit(ctx, tenant, id, seq, after, n+1)
	if err != nil {
		return nil, storeError(err)
	}
	out := &Audit{}
	if len(list) > n {
		list = list[:n]
		out.Next = strconv.FormatInt(list[n-1].ChangedSeq, 10)
	}
	out.Replaced = make([]Replaced, len(list))
	for i := range list {
		r := &list[i]
		out.Replaced[i] = Replaced{
			ChangedSeq: r.ChangedSeq, Kind: wire.Kind(r.Kind), ChangedBy: r.ChangedBy, At: r.AtMs, Body: r.Body,
			Mentions: r.Detail.Mentions, MentionAll: r.Detail.MentionAll,
		}
	}
	return out, nil
}

// Members returns a page of members in the order of their uids; with readSeq those who have read up to there. uid asks; empty: the system.
func (s *Service) Members(ctx context.Context, tenant, uid, id, cursor string, limit uint32, readSeq int64) (*MemberPage, error) {
	n, err := pageSize(limit, defaultMember)
	if err != nil {
		return nil, err
	}
	if readSeq < 0 || readSeq > maxSeq {
		return nil, errcode.InvalidRequest.Errorf("read_seq: a seq, or 0")
	}
	if err := checkAfter(cursor); err != nil {
		return nil, err
	}
	_, first, err := s.visible(ctx, tenant, uid, id)
	if err != nil {
		return nil, err
	}
	var list []entry.Membership
	switch {
	case first == 0:
		// It has not begun: who is in it its id says.
		for _, p := range entry.Parties(id) {
			if p > cursor && readSeq == 0 {
				list = append(list, entry.Membership{UID: p, Role: entry.Member})
			}
		}
		return &MemberPage{Members: memberViews(list)}, nil
	case readSeq > 0:
		list, err = s.d.Store.Readers(ctx, tenant, id, readSeq, cursor, n+1)
	default:
		list, err = s.d.Store.Members(ctx, tenant, id, cursor, n+1)
	}
	if err != nil {
		return nil, storeError(err)
	}
	page := &MemberPage{}
	if len(list) > n {
		list = list[:n]
		page.Next = list[n-1].UID
	}
	page.Members = memberViews(list)
	return page, nil
}

// Have is what a device has, and which conversations it asks about.
type Have struct {
	// Conversations is the last seq of each up to which it has everything, UserChange the number of its last user change.
	Conversations map[string]int64
	UserChange    int64
	// Above and UpTo leave out all conversations but those with an id above the one and up to the other; empty: none.
	Above, UpTo string
}

// Sync returns what is newer than what a device of uid has.
func (s *Service) Sync(ctx context.Context, tenant, uid string, have Have) (*SyncPage, error) {
	if s.d.Store == nil {
		return nil, errNoStore
	}
	if have.UserChange < 0 || have.UserChange > maxSeq {
		return nil, errcode.InvalidRequest.Errorf("user_change: a number, or 0")
	}
	for _, seq := range have.Conversations {
		if seq < 0 || seq > maxSeq {
			return nil, errcode.InvalidRequest.Errorf("conversations: seqs, or 0")
		}
	}
	if len(have.Above) > entry.MaxID || len(have.UpTo) > entry.MaxID {
		return nil, errcode.InvalidRequest.Errorf("above and up_to: conversations")
	}
	page, err := s.d.Store.Sync(ctx, tenant, uid, store.SyncQuery{
		Have: have.Conversations, UserChange: have.UserChange, Above: have.Above, UpTo: have.UpTo,
		Limit: s.cfg.SyncEntries, Newest: s.cfg.SyncNewest, MaxGap: s.cfg.SyncGap,
	})
	if err != nil {
		return nil, storeError(err)
	}
	room := s.cfg.PageBytes
	out := &SyncPage{Conversations: []SyncConversation{}, More: page.More}
	for _, id := range page.Rooms {
		out.Rooms = append(out.Rooms, entry.Room(id))
	}
	out.UserChanges, out.More = s.fitChanges(page.UserChanges, &room, page.More)
	for i := range page.Conversations {
		v := &page.Conversations[i]
		must := i == 0 && len(out.UserChanges) == 0
		room -= summaryWidth(&v.Summary)
		list, all := v.Entries, len(v.Entries)
		if v.Reset {
			list = list[all-fitBack(list, &room, must):]
		} else {
			list = list[:fit(list, &room, must)]
		}
		if len(list) < all {
			// The device asks for the rest; a reset one has its newest entries, older ones are history. One of which nothing fits comes next time.
			out.More = out.More || !v.Reset || len(list) == 0 || i < len(page.Conversations)-1
		}
		if len(list) > 0 {
			out.Conversations = append(out.Conversations, SyncConversation{Conversation: summaryView(&v.Summary), Entries: entryViews(list), Reset: v.Reset})
		}
		if len(list) < all {
			break
		}
	}
	return out, nil
}

// fitChanges returns the first changes that fit into room.
func (s *Service) fitChanges(list []store.UserChange, room *int64, more bool) ([]Change, bool) {
	for i := range list {
		w := int64(entryFrame/4 + len(list[i].Object) + len(list[i].Value))
		if w > *room && i > 0 {
			return changeViews(list[:i]), true
		}
		*room -= min(w, math.MaxInt32)
	}
	return changeViews(list), more
}
