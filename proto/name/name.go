// Package name checks the identities that users and backends choose: tenants, uids, session keys, rooms.
package name

import (
	"strings"
	"unicode/utf8"

	"github.com/halley-im/halley/proto/errcode"
)

// DefaultTenant is the tenant of whoever names none.
const DefaultTenant = "default"

// Longest names in bytes.
const (
	MaxTenant = 32
	MaxUID    = 64
	MaxKey    = 64
	MaxRoom   = 255
)

// Room types that belong to the system: no token, op 12, room method, push or pattern of a client or backend
// may name them.
const (
	RoomTypePresence     = "presence"
	RoomTypeConversation = "conversation"
	RoomTypeMeeting      = "meeting"
)

// Tenant checks a tenant: 1 to 32 bytes of [a-z0-9-].
func Tenant(s string) error {
	if len(s) == 0 || len(s) > MaxTenant {
		return errcode.InvalidRequest.Errorf("tenant: 1 to %d bytes", MaxTenant)
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return errcode.InvalidRequest.Errorf("tenant: only a-z, 0-9 and -")
		}
	}
	return nil
}

// UID checks a user id: 1 to 64 bytes of [A-Za-z0-9._@:-].
func UID(s string) error { return ident("uid", s, MaxUID) }

// Key checks a session key: 1 to 64 bytes of [A-Za-z0-9._@:-].
func Key(s string) error { return ident("key", s, MaxKey) }

// Device checks a device id or platform, which may be empty: up to 64 bytes of [A-Za-z0-9._@:-].
func Device(what, s string) error {
	if s == "" {
		return nil
	}
	return ident(what, s, MaxKey)
}

func ident(what, s string, most int) error {
	if len(s) == 0 || len(s) > most {
		return errcode.InvalidRequest.Errorf("%s: 1 to %d bytes", what, most)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '_', c == '@', c == ':', c == '-':
		default:
			return errcode.InvalidRequest.Errorf("%s: only A-Z, a-z, 0-9 and . _ @ : -", what)
		}
	}
	return nil
}

// Room checks a room that a client or backend names: "type://id", 1 to 255 bytes of UTF-8 without control
// characters, not of a type that belongs to the system.
func Room(s string) error {
	if len(s) == 0 || len(s) > MaxRoom || !utf8.ValidString(s) {
		return errcode.InvalidRequest.Errorf("room: 1 to %d bytes of UTF-8", MaxRoom)
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f {
			return errcode.InvalidRequest.Errorf("room: no control characters")
		}
	}
	typ, id, ok := strings.Cut(s, "://")
	if !ok || typ == "" || id == "" {
		return errcode.InvalidRequest.Errorf(`room: must be "type://id"`)
	}
	if RoomReserved(s) {
		return errcode.RoomReserved
	}
	return nil
}

// Call checks a call's id, which its caller makes: a UUID in its canonical form, lower case.
func Call(s string) error {
	if len(s) != 36 {
		return errcode.InvalidRequest.Errorf("call: a UUID of 36 characters")
	}
	for i := range len(s) {
		c := s[i]
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return errcode.InvalidRequest.Errorf("call: a UUID in lower case")
		}
	}
	return nil
}

// Command checks the id that a client gives a command: 1 to 64 printable bytes of ASCII.
func Command(s string) error {
	if len(s) == 0 || len(s) > MaxKey {
		return errcode.InvalidRequest.Errorf("command: 1 to %d bytes", MaxKey)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return errcode.InvalidRequest.Errorf("command: printable ASCII without blanks")
		}
	}
	return nil
}

// RoomType returns the part of a room before "://".
func RoomType(room string) string {
	typ, _, _ := strings.Cut(room, "://")
	return typ
}

// RoomReserved reports whether a room's type belongs to the system.
func RoomReserved(room string) bool {
	switch RoomType(room) {
	case RoomTypePresence, RoomTypeConversation, RoomTypeMeeting:
		return true
	}
	return false
}

// OpenRoom returns the room of the sessions that show a group just now, which are told of typing and markers. It is another one than
// conversation://ID, in which all members' sessions of a large group are: leaving that one would lose them messages. No conversation's id begins with "open/".
func OpenRoom(id string) string { return openRoom + id }

// IsOpenRoom reports whether a room is one of OpenRoom's.
func IsOpenRoom(room string) bool {
	return len(room) > len(openRoom) && room[:len(openRoom)] == openRoom
}

// RoomConversation returns the conversation whose room it is, that of its members or OpenRoom's; empty: it is none's.
func RoomConversation(room string) string {
	if IsOpenRoom(room) {
		return room[len(openRoom):]
	}
	id, _ := strings.CutPrefix(room, RoomTypeConversation+"://")
	if id == room {
		return ""
	}
	return id
}

const openRoom = RoomTypeConversation + "://open/"

// PresenceRoom returns the room whose members watch uid.
func PresenceRoom(uid string) string { return RoomTypePresence + "://" + uid }
