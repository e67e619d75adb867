package call

import (
	"context"
	"encoding/binary"

	"github.com/segmentio/kafka-go"
)

// Patience is how long one process waits for what another has to tell.
const Patience = patience

// Claim takes what is due as a process does that dies before it does it, and returns how many that was.
func (s *Service) Claim(ctx context.Context) (int, error) {
	slots, err := s.db.dueSlots(ctx)
	n := 0
	for _, slot := range slots {
		marks, err := s.db.claim(ctx, slot, s.cfg.Hold, claimMost)
		if err != nil {
			return n, err
		}
		n += len(marks)
	}
	return n, err
}

// Told has a call's telling write events, numbered up to each of ends in turn as by a call that is made anew, one by one. It returns how many of them it
// knows in the end, and of the last mostUnsent how many it would write again.
func Told(ends ...int) (known, again int) {
	f := &flight{}
	var last []event
	for incarnation, end := range ends {
		last = nil
		for n := 1; n <= end; n++ {
			e := event{int64(n), kafka.Message{Value: binary.AppendUvarint(binary.AppendUvarint(nil, uint64(n)), uint64(incarnation))}}
			f.wrote([]event{e})
			last = append(last, e)
		}
	}
	return len(f.sent), len(f.left(last[max(len(last)-mostUnsent, 0):]))
}

// MostSent bounds what is known of what was told.
const MostSent = mostSent
