package presence

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/halley-im/halley/proto/name"
)

// Every key of presence is made here. A bucket's keys share the hash tag {pNNN}, the leases' the tag {lease},
// so that a script touches one slot.
//
//	PREFIX:{pNNN}:b          hash: the bucket's entries, markers and version
//	    u TENANT NUL UID       userRecord: a uid's sessions, what was announced of it, when it was last seen
//	    k TENANT NUL KEY       keyRecord: the connection that holds a session key
//	    r TENANT NUL ROOM      roomRecord: comets with their counts
//	    e EPOCH                marker: all that the epoch holds of this bucket is here
//	    v                      random, new whenever a marker was set that was missing
//	PREFIX:{pNNN}:dead       zset: epoch → time of its tombstone
//	PREFIX:{pNNN}:gone       zset: connection → time of its tombstone
//	PREFIX:{pNNN}:due        zset: work → due time; members as b's fields u and r, and o EPOCH r…: a comet's empty room
//	PREFIX:{pNNN}:ep         set: epochs that have anything here
//	PREFIX:{pNNN}:l:EPOCH    set: b's fields in which the epoch has something
//	PREFIX:{pNNN}:w:EPOCH:N  set: what the rewrite N has named so far
//	PREFIX:{pNNN}:m:ROOM     hash: uid → epochs of the comets on which it is in the room
//	PREFIX:{pNNN}:t:TYPE     zset: rooms of a type, by sessions
//	PREFIX:{lease}:…         see leases.go
//
// In fields the tenant "default" is left out and a canonical UUID is 17 bytes: names are most of what presence
// takes in memory.
type keys struct {
	prefix string
	bucket [name.Buckets]bucketKeys
	lease  leaseKeys
}

type bucketKeys struct{ tag, main, dead, gone, due, epochs string }

type leaseKeys struct{ due, info, dead, reap, state, enrolled, renewals string }

func newKeys(prefix string) *keys {
	k := &keys{prefix: prefix}
	for i := range k.bucket {
		tag := fmt.Sprintf("%s:{p%03d}:", prefix, i)
		k.bucket[i] = bucketKeys{
			tag: tag, main: tag + "b", dead: tag + "dead", gone: tag + "gone", due: tag + "due", epochs: tag + "ep",
		}
	}
	tag := prefix + ":{lease}:"
	k.lease = leaseKeys{
		due: tag + "due", info: tag + "info", dead: tag + "dead", reap: tag + "reap", state: tag + "state",
		enrolled: tag + "enrolled", renewals: tag + "renewals",
	}
	return k
}

func (k *keys) list(bucket int, e epoch) string { return k.bucket[bucket].tag + "l:" + e.raw() }

func (k *keys) rewrite(bucket int, e epoch, number uint64) string {
	return k.bucket[bucket].tag + "w:" + e.raw() + ":" + strconv.FormatUint(number, 10)
}

func (k *keys) members(bucket int, roomField string) string {
	return k.bucket[bucket].tag + "m:" + roomField[1:]
}

func (k *keys) top(bucket int, tenant, roomType string) string {
	return k.bucket[bucket].tag + "t:" + shortTenant(tenant) + "\x00" + roomType
}

// Kinds of fields, their first byte.
const (
	kindUser  = 'u'
	kindKey   = 'k'
	kindRoom  = 'r'
	kindEmpty = 'o'
)

const versionField = "v"

func userField(tenant, uid string) string {
	return "u" + shortTenant(tenant) + "\x00" + short(uid)
}

func keyField(tenant, key string) string {
	return "k" + shortTenant(tenant) + "\x00" + short(key)
}

func roomField(tenant, room string) string {
	return "r" + shortTenant(tenant) + "\x00" + room
}

// emptyWork is the due work that removes e's empty record from a room.
func emptyWork(e epoch, roomField string) string { return "o" + e.raw() + roomField }

func markerField(e epoch) string { return "e" + e.raw() }

// splitField returns what a field names.
func splitField(f string) (kind byte, tenant, n string) {
	if f == "" {
		return 0, "", ""
	}
	t, n, ok := strings.Cut(f[1:], "\x00")
	if !ok {
		return 0, "", ""
	}
	if t == "" {
		t = name.DefaultTenant
	}
	if f[0] != kindRoom {
		n = long(n)
	}
	return f[0], t, n
}

func shortTenant(t string) string {
	if t == name.DefaultTenant {
		return ""
	}
	return t
}

// shortMark begins a UUID in 16 bytes; no name begins with it.
const shortMark = '\x01'

// short packs a canonical UUID into 17 bytes and leaves any other name as it is.
func short(s string) string {
	if len(s) != 36 {
		return s
	}
	var b [17]byte
	b[0] = shortMark
	if !parseUUID(b[1:], s) {
		return s
	}
	return string(b[:])
}

func long(s string) string {
	if len(s) == 17 && s[0] == shortMark {
		return formatUUID(s[1:])
	}
	return s
}

// parseUUID writes the 16 bytes of a UUID in lower case; false for any other form.
func parseUUID(dst []byte, s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	for i, n := 0, 0; i < 36; n++ {
		if s[i] == '-' {
			i++
		}
		h, l := nibble(s[i]), nibble(s[i+1])
		if h > 15 || l > 15 {
			return false
		}
		dst[n] = h<<4 | l
		i += 2
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

func formatUUID(raw string) string {
	var b [36]byte
	src := []byte(raw)
	hex.Encode(b[0:8], src[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], src[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], src[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], src[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], src[10:16])
	return string(b[:])
}

// epoch is a comet's epoch in presence: a UUID's 16 bytes.
type epoch [16]byte

// parseEpoch returns an epoch's bytes; false if s isn't a UUID in lower case.
func parseEpoch(s string) (epoch, bool) {
	var e epoch
	ok := parseUUID(e[:], s)
	return e, ok
}

func (e epoch) raw() string { return string(e[:]) }

func (e epoch) String() string { return formatUUID(string(e[:])) }
