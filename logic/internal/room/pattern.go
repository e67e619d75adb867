package room

import (
	"strings"
	"unicode/utf8"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/name"
)

// A pattern says which rooms may be joined: a room ("chat://lobby"), or all that begin alike, where it ends in an asterisk
// ("chat://*", "chat://team-7-*", "*"). No pattern reaches rooms of the system's types.

// CheckPattern checks a pattern of a token or of configuration.
func CheckPattern(p string) error {
	prefix, open := strings.CutSuffix(p, "*")
	if !open {
		return name.Room(p)
	}
	if len(p) > name.MaxRoom || !utf8.ValidString(p) {
		return errcode.InvalidRequest.Errorf("room pattern: at most %d bytes of UTF-8", name.MaxRoom)
	}
	for _, r := range prefix {
		if r < 0x20 || r == 0x7f {
			return errcode.InvalidRequest.Errorf("room pattern: no control characters")
		}
	}
	if typ, _, ok := strings.Cut(prefix, "://"); ok && (typ == "" || name.RoomReserved(prefix)) {
		return errcode.RoomReserved.Errorf("room pattern: the type is empty or belongs to the system")
	}
	return nil
}

// matches reports whether room, which is known to be one that a client may name, falls under p.
func matches(p, room string) bool {
	if prefix, open := strings.CutSuffix(p, "*"); open {
		return strings.HasPrefix(room, prefix)
	}
	return p == room
}
