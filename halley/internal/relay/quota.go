package relay

import (
	"net"
	"sync"
)

// quota counts each user's relays. pion asks before it makes one and tells afterwards, so a place is taken when it asks, and given back if
// nothing came of it: else many connections at once would get more than there is.
type quota struct {
	mu   sync.Mutex
	most int
	used map[string]int
	// pending are places taken by requests under way, made those of relays; both by the client's address and the listener's.
	pending map[string]string
	made    map[string]string
}

func newQuota(most int) *quota {
	return &quota{most: most, used: map[string]int{}, pending: map[string]string{}, made: map[string]string{}}
}

// place names a client's address at a listener of a network.
func place(src net.Addr) string { return src.Network() + " " + src.String() }

// take takes a place for uid; false if he has all of his.
func (q *quota) take(src net.Addr, uid string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, busy := q.pending[place(src)]; busy || q.used[uid] >= q.most {
		return false
	}
	q.used[uid]++
	q.pending[place(src)] = uid
	return true
}

// keep turns the place taken into a relay's.
func (q *quota) keep(src, dst net.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if uid, ok := q.pending[place(src)]; ok {
		delete(q.pending, place(src))
		q.made[place(src)+" "+dst.String()] = uid
	}
}

// failed gives back a place that no relay came of, if one was taken.
func (q *quota) failed(src net.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if uid, ok := q.pending[place(src)]; ok {
		delete(q.pending, place(src))
		q.less(uid)
	}
}

// release gives back a relay's place.
func (q *quota) release(src, dst net.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := place(src) + " " + dst.String()
	if uid, ok := q.made[key]; ok {
		delete(q.made, key)
		q.less(uid)
	}
}

func (q *quota) less(uid string) {
	if q.used[uid]--; q.used[uid] <= 0 {
		delete(q.used, uid)
	}
}
