package sequence

import (
	"errors"

	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
	"github.com/halley-im/halley/store/wire"
)

// Reasons why a record is put aside.
const (
	BadProtobuf = "malformed"
	BadTenant   = "bad_tenant"
	NoContent   = "no_content"
	BadKind     = "bad_kind"
	BadJSON     = "bad_json"
)

// source is the record that something comes from.
type source struct {
	rec *halleyv1.ChatRecord
	seq uint64 // its number in the partition
	// marker is the marker that was accepted, where the change follows from one; others are told of it with the change.
	marker *marker
}

// letter is a record to be put aside.
type letter struct {
	msg    *kafka.Message
	seq    uint64
	reason string
}

// batch is what was read at once, by what is to be done with it.
type batch struct {
	proposals []conversation.Proposal
	sources   []source
	changes   []store.UserChange
	changers  []source
	letters   []letter
}

func (b *batch) add(seq uint64, m *kafka.Message) {
	rec := &halleyv1.ChatRecord{}
	reason := ""
	switch {
	case proto.Unmarshal(m.Value, rec) != nil:
		reason = BadProtobuf
	case name.Tenant(rec.GetTenant()) != nil:
		reason = BadTenant
	case rec.GetUserChange() != nil:
		u, err := wire.UserChangeOf(rec)
		if reason = reasonOf(err); reason == "" {
			b.changes, b.changers = append(b.changes, u), append(b.changers, source{rec: rec, seq: seq})
			return
		}
	default:
		p, err := wire.ProposalOf(rec)
		if reason = reasonOf(err); reason == "" {
			b.proposals, b.sources = append(b.proposals, p), append(b.sources, source{rec: rec, seq: seq})
			return
		}
	}
	b.letters = append(b.letters, letter{m, seq, reason})
}

func reasonOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, wire.ErrKind):
		return BadKind
	case errors.Is(err, wire.ErrJSON):
		return BadJSON
	}
	return NoContent
}
