package limit

// Buckets returns how many callers are held in memory.
func (l *Limiter) Buckets() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.buckets)
}

// SetMost sets how many callers are held in memory.
func (l *Limiter) SetMost(n int) { l.most = n }
