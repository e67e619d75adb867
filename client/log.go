package client

// maxAhead is how many entries wait for those before them; more are forgotten, and read again when their time comes.
const maxAhead = 2000

// log brings the entries of one conversation into order: each is handed over once, after the one before it. It knows nothing of
// where entries come from; who owns it reads what is missing.
type log struct {
	// have: all up to this seq was handed over.
	have int64
	// top is the highest seq heard of.
	top   int64
	ahead map[int64]Entry
}

// take takes an entry and returns those whose turn has come. One that was handed over before is dropped.
func (l *log) take(e Entry) []Entry {
	if e.Seq <= l.have {
		return nil
	}
	l.hear(e.Seq)
	if e.Seq == l.have+1 && len(l.ahead) == 0 {
		l.have++
		return []Entry{e}
	}
	if l.ahead == nil {
		l.ahead = map[int64]Entry{}
	}
	// What was read later has the changes that came in between.
	if old, ok := l.ahead[e.Seq]; !ok || e.ChangedSeq > old.ChangedSeq {
		l.ahead[e.Seq] = e
	}
	out := l.drain()
	if len(l.ahead) > maxAhead {
		var last int64
		for seq := range l.ahead {
			last = max(last, seq)
		}
		delete(l.ahead, last)
	}
	return out
}

// hear learns that there are entries up to seq.
func (l *log) hear(seq int64) { l.top = max(l.top, seq) }

// skip goes on at seq + 1: what is up to there is not for this reader.
func (l *log) skip(seq int64) []Entry {
	if seq <= l.have {
		return nil
	}
	l.have = seq
	l.hear(seq)
	for s := range l.ahead {
		if s <= seq {
			delete(l.ahead, s)
		}
	}
	return l.drain()
}

// missing returns the first range that is missing; from is 0 if none is.
func (l *log) missing() (from, to int64) {
	if l.top <= l.have {
		return 0, 0
	}
	to = l.top
	for seq := range l.ahead {
		to = min(to, seq-1)
	}
	return l.have + 1, to
}

func (l *log) drain() []Entry {
	var out []Entry
	for {
		e, ok := l.ahead[l.have+1]
		if !ok {
			return out
		}
		l.have++
		delete(l.ahead, l.have)
		out = append(out, e)
	}
}
