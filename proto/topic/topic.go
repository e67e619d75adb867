// Package topic names the Kafka topics and makes the keys of their records. Every record whose order matters
// relative to another one has the same key; a topic's number of partitions never changes, since that moves
// keys.
package topic

import halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"

// Topics.
const (
	Urgent   = "halley.urgent"   // PushRecord: calls, control deliveries
	Push     = "halley.push"     // PushRecord
	Bulk     = "halley.bulk"     // PushRecord: whatever the caller put there, and every push to all
	Chat     = "halley.chat"     // ChatRecord: proposals by conversation, user changes by uid
	Hooks    = "halley.hooks"    // HookRecord, on their way to webhooks' receivers
	Upstream = "halley.upstream" // UpstreamRecord: clients' frames for the host's backend
	Revoked  = "halley.revoked"  // RevokedRecord; one partition
	Dead     = "halley.dead"     // records that could not be decoded, as they were, with headers that say why
)

// Headers of a record in Dead.
const (
	HeaderReason    = "halley-reason"
	HeaderTopic     = "halley-topic"
	HeaderPartition = "halley-partition"
	HeaderOffset    = "halley-offset"
	HeaderCut       = "halley-cut" // the record's bytes, where Kafka refused it whole: key and value are cut, its own headers left out
)

// Group returns the consumer group of job for a topic: one group per topic.
func Group(topic string) string { return "halley.job." + topic[len("halley."):] }

// ForLane returns the lane's topic, or "" for a lane without one of PushRecords.
func ForLane(l halleyv1.Lane) string {
	switch l {
	case halleyv1.Lane_LANE_URGENT:
		return Urgent
	case halleyv1.Lane_LANE_PUSH:
		return Push
	case halleyv1.Lane_LANE_BULK:
		return Bulk
	}
	return ""
}

// Key returns the record key of a target: tenant NUL kind NUL name. All records to one target in one topic
// are in one partition. A connection's key is its own, so that closing one never waits for another's.
func Key(tenant string, t *halleyv1.Target) []byte {
	var kind, name string
	switch v := t.GetTarget().(type) {
	case *halleyv1.Target_Uid:
		kind, name = "uid", v.Uid
	case *halleyv1.Target_Key:
		kind, name = "key", v.Key
	case *halleyv1.Target_Room:
		kind, name = "room", v.Room
	case *halleyv1.Target_All:
		kind = "all"
	case *halleyv1.Target_Conn:
		kind, name = "conn", v.Conn.GetId()
	}
	return Join(tenant, kind, name)
}

// ConversationKey returns the record key of a conversation's proposals.
func ConversationKey(tenant, conversation string) []byte { return Join(tenant, "conv", conversation) }

// UserKey returns the record key of changes that concern one uid alone.
func UserKey(tenant, uid string) []byte { return Join(tenant, "uid", uid) }

// CallKey returns the record key of all that is told of a call, to whomever, signals included: in the order in which it happened.
func CallKey(tenant, call string) []byte { return Join(tenant, "call", call) }

// HookKey returns the record key of events that are told in order: those of one conversation ("conv", id), uid ("uid", uid) or call ("call", id).
func HookKey(tenant, kind, name string) []byte { return Join(tenant, kind, name) }

// Join joins parts by a NUL byte, which no identity may contain.
func Join(parts ...string) []byte {
	n := 0
	for _, p := range parts {
		n += len(p) + 1
	}
	b := make([]byte, 0, n)
	for i, p := range parts {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, p...)
	}
	return b
}
