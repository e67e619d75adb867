package call

import "context"

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
