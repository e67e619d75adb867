package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

// Errors of a record that can't be carried out, by nobody's fault but its writer's.
var (
	ErrNoContent = errors.New("the record has another content")
	ErrKind      = errors.New("no such kind")
	ErrJSON      = errors.New("not JSON")
)

// ProposalOf returns what a record proposes. Whether that is allowed is the judge's to say; an error means that there is
// nothing to judge: another content, an unknown kind, or a body or detail that is no JSON.
func ProposalOf(rec *halleyv1.ChatRecord) (conversation.Proposal, error) {
	p := rec.GetProposal()
	if p == nil {
		return conversation.Proposal{}, ErrNoContent
	}
	kind := conversation.Kind(p.GetKind())
	// Records say nothing of the way of delivery yet: FanoutChanged is none of theirs.
	if p.GetKind() > 255 || p.GetKind() < 0 || !kind.TakesSeq() && kind != conversation.Marker {
		return conversation.Proposal{}, fmt.Errorf("%w: %d", ErrKind, p.GetKind())
	}
	if len(p.GetBody()) > 0 && !json.Valid(p.GetBody()) {
		return conversation.Proposal{}, fmt.Errorf("body: %w", ErrJSON)
	}
	detail, err := conversation.ParseDetail(p.GetDetail())
	if err != nil {
		return conversation.Proposal{}, fmt.Errorf("detail: %w", ErrJSON)
	}
	return conversation.Proposal{
		Tenant: rec.GetTenant(), Conversation: p.GetConversation(), Kind: kind, Sender: rec.GetSender(), ClientMsgID: p.GetClientMsgId(),
		AcceptedAtMs: rec.GetAcceptedAtMs(), Address: rec.GetAddress(), Imported: rec.GetImported(), Target: p.GetTarget(), Body: p.GetBody(), Detail: detail,
		ReadSeq: p.GetReadSeq(), DeliveredSeq: p.GetDeliveredSeq(),
	}, nil
}

// RecordOf is the way back: the record that proposes p. outcome says whether somebody waits for what becomes of it.
func RecordOf(p *conversation.Proposal, outcome bool) *halleyv1.ChatRecord {
	return &halleyv1.ChatRecord{
		Id: conversation.MessageID(p.Tenant, p.Conversation, p.Sender, p.ClientMsgID), Tenant: p.Tenant, Sender: p.Sender,
		AcceptedAtMs: p.AcceptedAtMs, Address: p.Address, Imported: p.Imported, Outcome: outcome,
		Content: &halleyv1.ChatRecord_Proposal{Proposal: &halleyv1.Proposal{
			Conversation: p.Conversation, Kind: halleyv1.EntryKind(p.Kind), ClientMsgId: p.ClientMsgID, Target: p.Target, Body: p.Body,
			Detail: p.Detail.JSON(), ReadSeq: p.ReadSeq, DeliveredSeq: p.DeliveredSeq,
		}},
	}
}

// UserChangeOf returns the user change of a record. An error means that it has another content, or a value that is no JSON.
func UserChangeOf(rec *halleyv1.ChatRecord) (store.UserChange, error) {
	c := rec.GetUserChange()
	if c == nil {
		return store.UserChange{}, ErrNoContent
	}
	if len(c.GetValue()) > 0 && !json.Valid(c.GetValue()) {
		return store.UserChange{}, fmt.Errorf("value: %w", ErrJSON)
	}
	u := store.UserChange{
		Tenant: rec.GetTenant(), UID: c.GetUid(), Kind: c.GetKind(), Object: c.GetObject(), Guard: c.GetGuard(), AtMs: rec.GetAcceptedAtMs(),
		Value: c.GetValue(), Blocked: c.GetBlocked(),
	}
	if u.Kind == store.ChangeContact {
		if c.GetContactState() < 0 || c.GetContactState() > 255 {
			return store.UserChange{}, fmt.Errorf("contact state: %w: %d", ErrKind, c.GetContactState())
		}
		u.Contact = &store.Contact{Peer: u.Object, State: store.ContactState(c.GetContactState()), Remark: c.GetRemark(), Note: c.GetNote()}
	}
	return u, nil
}

// UserChangeRecord is the way back: the record that changes u, under a random id.
func UserChangeRecord(id string, u *store.UserChange) *halleyv1.ChatRecord {
	c := &halleyv1.UserChange{Uid: u.UID, Kind: u.Kind, Object: u.Object, Guard: u.Guard, Value: u.Value, Blocked: u.Blocked}
	if u.Contact != nil {
		c.ContactState, c.Remark, c.Note = int32(u.Contact.State), u.Contact.Remark, u.Contact.Note
	}
	return &halleyv1.ChatRecord{
		Id: id, Tenant: u.Tenant, Sender: u.UID, AcceptedAtMs: u.AtMs, Content: &halleyv1.ChatRecord_UserChange{UserChange: c},
	}
}

// OutcomeKey returns the key in Redis, below the operator's prefix, where job writes the outcome of a record that somebody waits
// for: a halleyv1.ChatOutcome in binary. id is the record's.
func OutcomeKey(prefix, id string) string { return prefix + ":{outcome:" + id + "}" }
