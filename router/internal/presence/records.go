package presence

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// What the fields of a bucket's hash hold. The forms are binary and short, since at ten million sessions each
// byte costs as many megabytes; numbers are varints, strings have their length before them.

var errRecord = errors.New("presence: a record in Redis can't be read")

// session is one session of a uid, or of a key without uid.
type session struct {
	epoch epoch
	conn  string // packed, see packConn
	key   string
	// since is when it was registered, by Redis' clock; after a rewrite when it was accepted, by comet's.
	since     int64
	connected int64
	issued    int64
	device    string
	platform  string
	addr      string
	signed    bool
	// leaving: it gave way to another one and is being closed. It counts for nothing, but stays until it is
	// deregistered, so that a repeated Register names it again.
	leaving bool
	// over: it gave way to a limit, not to another one of its key or device.
	over bool
}

const (
	sessionSigned = 1 << iota
	sessionLeaving
	sessionAddr4
	sessionAddr16
	sessionIssued
	sessionOver
)

func (s *session) append(b []byte) []byte {
	var flags byte
	if s.signed {
		flags |= sessionSigned
	}
	if s.leaving {
		flags |= sessionLeaving
	}
	if s.over {
		flags |= sessionOver
	}
	addr := s.addr
	if a, err := netip.ParseAddr(addr); err == nil && a.String() == addr && a.Zone() == "" {
		if a.Is4() {
			flags |= sessionAddr4
		} else {
			flags |= sessionAddr16
		}
		addr = string(a.AsSlice())
	}
	if s.issued != 0 {
		flags |= sessionIssued
	}
	b = append(b, flags)
	b = append(b, s.epoch[:]...)
	b = appendString(b, s.conn)
	b = appendString(b, short(s.key))
	b = binary.AppendUvarint(b, uint64(s.since))
	b = binary.AppendVarint(b, s.connected-s.since)
	if s.issued != 0 {
		b = binary.AppendVarint(b, s.issued-s.since)
	}
	b = appendString(b, short(s.device))
	b = appendString(b, s.platform)
	switch {
	case flags&(sessionAddr4|sessionAddr16) != 0:
		b = append(b, addr...)
	default:
		b = appendString(b, addr)
	}
	return b
}

func readSession(r *reader) session {
	var s session
	flags := r.byte()
	s.signed = flags&sessionSigned != 0
	s.leaving, s.over = flags&sessionLeaving != 0, flags&sessionOver != 0
	copy(s.epoch[:], r.take(16))
	s.conn = r.string()
	s.key = long(r.string())
	s.since = int64(r.uvarint())
	s.connected = s.since + r.varint()
	if flags&sessionIssued != 0 {
		s.issued = s.since + r.varint()
	}
	s.device = long(r.string())
	s.platform = r.string()
	switch {
	case flags&sessionAddr4 != 0:
		s.addr = addrString(r.take(4))
	case flags&sessionAddr16 != 0:
		s.addr = addrString(r.take(16))
	default:
		s.addr = r.string()
	}
	return s
}

func addrString(raw string) string {
	a, _ := netip.AddrFromSlice([]byte(raw))
	return a.String()
}

// newSession returns m as it is stored, registered at since.
func newSession(m *halleyv1.Session, e epoch, since int64) session {
	return session{
		epoch: e, conn: packConn(m.GetConn().GetId()), key: m.GetKey(), since: since, connected: m.GetConnectedAtMs(),
		issued: m.GetIssuedAtMs(), device: m.GetDeviceId(), platform: m.GetPlatform(), addr: m.GetRemoteAddr(),
		signed: m.GetSigned(),
	}
}

// same reports whether both say the same of a session, but for when it was registered and whether it leaves.
func (s *session) same(o *session) bool {
	a, b := *s, *o
	a.since, a.leaving, a.over = b.since, b.leaving, b.over
	return a == b
}

// rivals reports whether a session and one with this key and device can't be at the same time.
func (s *session) rivals(key, device string) bool {
	return s.key == key || s.device != "" && s.device == device
}

func (s *session) proto(tenant, uid, comet string) *halleyv1.Session {
	return &halleyv1.Session{
		Tenant: tenant, Uid: uid, Key: s.key, DeviceId: s.device, Platform: s.platform, Signed: s.signed,
		Conn:          &halleyv1.Conn{Comet: comet, Epoch: s.epoch.String(), Id: unpackConn(s.conn)},
		ConnectedAtMs: s.connected, RemoteAddr: s.addr, IssuedAtMs: s.issued,
	}
}

// userRecord is a uid's entry.
type userRecord struct {
	// announced and platforms: what the last presence event said, or would have, had anybody watched.
	announced bool
	platforms []string
	// told: somebody who watches was told another state meanwhile, so that the next announcement is one even if it says
	// what the last one said.
	told bool
	// lastSeen is when the last session ended; 0: unknown.
	lastSeen int64
	sessions []session
}

const recordForm = 1

func (u *userRecord) encode() string {
	if len(u.sessions) == 0 && !u.announced && !u.told && u.lastSeen == 0 {
		return ""
	}
	b := make([]byte, 0, 32+96*len(u.sessions))
	flags := byte(recordForm << 4)
	if u.announced {
		flags |= 1
	}
	if u.told {
		flags |= 2
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(u.lastSeen))
	b = binary.AppendUvarint(b, uint64(len(u.platforms)))
	for _, p := range u.platforms {
		b = appendString(b, p)
	}
	for i := range u.sessions {
		b = u.sessions[i].append(b)
	}
	return string(b)
}

func decodeUser(v string) (*userRecord, error) {
	u := &userRecord{}
	if v == "" {
		return u, nil
	}
	r := reader{s: v}
	flags := r.byte()
	if flags>>4 != recordForm {
		return nil, errRecord
	}
	u.announced, u.told = flags&1 != 0, flags&2 != 0
	u.lastSeen = int64(r.uvarint())
	n := r.uvarint()
	if n > uint64(len(v)) {
		return nil, errRecord
	}
	for range n {
		u.platforms = append(u.platforms, r.string())
	}
	for !r.bad && r.s != "" {
		u.sessions = append(u.sessions, readSession(&r))
	}
	if r.bad {
		return nil, errRecord
	}
	return u, nil
}

// isAnnounced reports whether a state is what the last announcement said.
func (u *userRecord) isAnnounced(online bool, platforms []string) bool {
	return online == u.announced && slices.Equal(platforms, u.platforms)
}

// state is what is said of a uid: its platforms, each once, sorted; whether it has a session at all.
func (u *userRecord) state(live func(epoch) bool) (online bool, platforms []string) {
	for i := range u.sessions {
		s := &u.sessions[i]
		if s.leaving || live != nil && !live(s.epoch) {
			continue
		}
		online = true
		if s.platform != "" && !slices.Contains(platforms, s.platform) {
			platforms = append(platforms, s.platform)
		}
	}
	slices.Sort(platforms)
	return online, platforms
}

// find returns the index of a connection's session, or -1.
func (u *userRecord) find(conn string) int {
	return slices.IndexFunc(u.sessions, func(s session) bool { return s.conn == conn })
}

// stands says of a session that gave way, and whose comet has it still, whether it must: STATUS_OK if those that took its place are gone.
// Then it wasn't told, or hasn't been yet.
func (u *userRecord) stands(c clock, i int) halleyv1.RegisterResult_Status {
	s, status := &u.sessions[i], halleyv1.RegisterResult_STATUS_OK
	for j := range u.sessions {
		o := &u.sessions[j]
		switch {
		case j == i, o.leaving, o.since < s.since, s.signed && !o.signed, c.known(o.epoch) && !c.live(o.epoch):
			continue
		case !s.over && !s.rivals(o.key, o.device):
			continue
		}
		if status = gaveWay(s.connected, o.connected); status == halleyv1.RegisterResult_STATUS_REPLACED {
			break
		}
	}
	return status
}

// holds reports whether an epoch has a session here.
func (u *userRecord) holds(e epoch) bool {
	return slices.ContainsFunc(u.sessions, func(s session) bool { return s.epoch == e })
}

// keyRecord is a session key's entry. A session with a uid has the rest in the uid's entry.
type keyRecord struct {
	epoch epoch
	conn  string
	// since and connected are the session's.
	since     int64
	connected int64
	uid       string
	// signed: the session came with a token.
	signed bool
	// full is set where uid is empty.
	full session
}

// clockSkew is how many milliseconds the clocks of two comets may differ by.
const clockSkew = 2000

// keySigned is in the first byte of a key's entry that names a uid.
const keySigned = 1

// judge says whether what is in a key's entry keeps m out: STATUS_OK if it doesn't. Nobody without a token displaces a session that came
// with one: keys are no secret. Else a new session takes the key from any, unless its connection is clearly the older one: its log-in took
// longer than that of the connection made after it, and whoever made both has given it up. One that comet has already takes it from older
// ones, and from such a late log-in: that one found nobody in its way if presence had just lost what it held. What a dead comet has left
// keeps nobody out.
func (k *keyRecord) judge(c clock, m *halleyv1.Session, claim bool) halleyv1.RegisterResult_Status {
	connected := m.GetConnectedAtMs()
	switch {
	case c.known(k.epoch) && !c.live(k.epoch):
		return halleyv1.RegisterResult_STATUS_OK
	case k.signed != m.GetSigned():
		if k.signed {
			return halleyv1.RegisterResult_STATUS_REPLACED
		}
		return halleyv1.RegisterResult_STATUS_OK
	case claim && k.connected > connected+clockSkew:
		return halleyv1.RegisterResult_STATUS_REPLACED
	case claim, k.since <= connected, connected > k.connected+clockSkew:
		return halleyv1.RegisterResult_STATUS_OK
	}
	return gaveWay(connected, k.connected)
}

// gaveWay says for good or not a session whose place another has taken is closed: for good only if that one's connection was made after
// its own. Else the other may be a log-in that came through late, of which nobody knows whether anybody still waits for it.
func gaveWay(connected, others int64) halleyv1.RegisterResult_Status {
	if others > connected {
		return halleyv1.RegisterResult_STATUS_REPLACED
	}
	return halleyv1.RegisterResult_STATUS_RACED
}

func (k *keyRecord) encode() string {
	b := make([]byte, 0, 64)
	flags := byte(recordForm << 4)
	if k.signed && k.uid != "" {
		flags |= keySigned
	}
	b = append(b, flags)
	b = appendString(b, short(k.uid))
	if k.uid == "" {
		return string(k.full.append(b))
	}
	b = append(b, k.epoch[:]...)
	b = appendString(b, k.conn)
	b = binary.AppendUvarint(b, uint64(k.since))
	return string(binary.AppendVarint(b, k.connected-k.since))
}

// decodeKey returns nil for an absent entry.
func decodeKey(v string) (*keyRecord, error) {
	if v == "" {
		return nil, nil
	}
	r := reader{s: v}
	flags := r.byte()
	if flags>>4 != recordForm {
		return nil, errRecord
	}
	k := &keyRecord{uid: long(r.string()), signed: flags&keySigned != 0}
	if k.uid == "" {
		k.full = readSession(&r)
		k.epoch, k.conn, k.since, k.connected, k.signed = k.full.epoch, k.full.conn, k.full.since, k.full.connected, k.full.signed
	} else {
		copy(k.epoch[:], r.take(16))
		k.conn = r.string()
		k.since = int64(r.uvarint())
		k.connected = k.since + r.varint()
	}
	if r.bad || r.s != "" {
		return nil, errRecord
	}
	return k, nil
}

// roomPart is one comet's part of a room.
type roomPart struct {
	epoch  epoch
	number uint64
	count  uint32
	listed bool
	// at is when it was written, by Redis' clock.
	at int64
}

type roomRecord []roomPart

func (r roomRecord) encode() string {
	b := make([]byte, 0, 32*len(r))
	for i := range r {
		p := &r[i]
		var flags byte = recordForm << 4
		if p.listed {
			flags |= 1
		}
		b = append(b, flags)
		b = append(b, p.epoch[:]...)
		b = binary.AppendUvarint(b, p.number)
		b = binary.AppendUvarint(b, uint64(p.count))
		b = binary.AppendUvarint(b, uint64(p.at))
	}
	return string(b)
}

func decodeRoom(v string) (roomRecord, error) {
	if v == "" {
		return nil, nil
	}
	r := reader{s: v}
	out := make(roomRecord, 0, len(v)/24+1)
	for r.s != "" {
		var p roomPart
		flags := r.byte()
		p.listed = flags&1 != 0
		copy(p.epoch[:], r.take(16))
		p.number = r.uvarint()
		p.count = uint32(r.uvarint())
		p.at = int64(r.uvarint())
		if r.bad || flags>>4 != recordForm {
			return nil, errRecord
		}
		out = append(out, p)
	}
	return out, nil
}

func (r roomRecord) find(e epoch) int {
	return slices.IndexFunc(r, func(p roomPart) bool { return p.epoch == e })
}

// count sums the sessions over live comets (live nil: over all) and says whether every one of them lists its uids.
func (r roomRecord) count(live func(epoch) bool) (n uint32, listed bool) {
	listed = true
	for i := range r {
		if r[i].count == 0 || live != nil && !live(r[i].epoch) {
			continue
		}
		n += r[i].count
		listed = listed && r[i].listed
	}
	return n, listed
}

// A uid in a room's list of members is stored with the epochs on which it is, 16 bytes each.

func memberHas(v string, e epoch) bool {
	for i := 0; i+16 <= len(v); i += 16 {
		if v[i:i+16] == string(e[:]) {
			return true
		}
	}
	return false
}

func memberWithout(v string, e epoch) string {
	for i := 0; i+16 <= len(v); i += 16 {
		if v[i:i+16] == string(e[:]) {
			return v[:i] + v[i+16:]
		}
	}
	return v
}

func memberLive(v string, live func(epoch) bool) bool {
	for i := 0; i+16 <= len(v); i += 16 {
		if live(epoch([]byte(v[i : i+16]))) {
			return true
		}
	}
	return false
}

// packConn packs "<16 hex digits>.<n>" into 8 bytes and a varint after the byte 1; anything else stands after
// the byte 0 as it is.
func packConn(id string) string {
	start, num, ok := strings.Cut(id, ".")
	if ok && len(start) == 16 {
		var b [9]byte
		b[0] = 1
		n, err := strconv.ParseUint(num, 10, 64)
		if _, herr := hex.Decode(b[1:], []byte(start)); herr == nil && err == nil &&
			strconv.FormatUint(n, 10) == num && strings.ToLower(start) == start {
			return string(binary.AppendUvarint(b[:], n))
		}
	}
	return "\x00" + id
}

func unpackConn(p string) string {
	if p == "" {
		return ""
	}
	if p[0] == 1 && len(p) > 9 {
		n, _ := binary.Uvarint([]byte(p[9:]))
		b := make([]byte, 16, 28)
		hex.Encode(b, []byte(p[1:9]))
		b = append(b, '.')
		return string(strconv.AppendUint(b, n, 10))
	}
	return p[1:]
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// reader takes a record apart; once bad, everything that it returns is empty.
type reader struct {
	s   string
	bad bool
}

func (r *reader) take(n int) string {
	if n < 0 || n > len(r.s) {
		r.bad, r.s = true, ""
		return ""
	}
	v := r.s[:n]
	r.s = r.s[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.take(1); v != "" {
		return v[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	var x uint64
	for shift := uint(0); shift < 64; shift += 7 {
		c := r.byte()
		if r.bad {
			return 0
		}
		x |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return x
		}
	}
	r.bad, r.s = true, ""
	return 0
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.s)) {
		r.bad, r.s = true, ""
		return ""
	}
	return r.take(int(n))
}

// skip passes over a string.
func (r *reader) skip() {
	n := r.uvarint()
	if n > uint64(len(r.s)) {
		r.bad, r.s = true, ""
		return
	}
	r.s = r.s[n:]
}

// place reads a session, but for what Locate doesn't ask.
func (r *reader) place() (e epoch, conn string, leaving bool) {
	flags := r.byte()
	copy(e[:], r.take(16))
	conn = r.string()
	r.skip()
	r.uvarint()
	r.uvarint()
	if flags&sessionIssued != 0 {
		r.uvarint()
	}
	r.skip()
	r.skip()
	switch {
	case flags&sessionAddr4 != 0:
		r.take(4)
	case flags&sessionAddr16 != 0:
		r.take(16)
	default:
		r.skip()
	}
	return e, conn, flags&sessionLeaving != 0
}
