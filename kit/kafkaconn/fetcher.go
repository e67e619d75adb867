package kafkaconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"
)

// Fetcher reads partitions of one topic: one request at a time to each broker, for all partitions that it leads. It stands on
// kafka-go's Transport and not on its Reader, which holds a connection and a request for each partition: with records spread
// over all of them each record then costs an answer, and what makes batches worth it, questions and writes further on, gets none.
// Partitions whose last question failed are asked for one at a time beside the others, so that they hold up none.
//
// Goroutines: of each Read one, and up to two for each broker; Close waits for them.
type Fetcher struct {
	cfg     Config
	log     *slog.Logger
	topic   string // full name
	client  *kafka.Client
	reading sync.WaitGroup
}

// Source is a partition to read, and who takes what is read. Its functions are called one at a time, and must not wait.
type Source struct {
	Partition int
	// Offset is the first one to read, or kafka.FirstOffset for the oldest there is.
	Offset int64
	// Take takes records, in order. They are the taker's.
	Take func([]kafka.Message)
	// Full reports whether nothing more should be read now. Then Reading.Wake tells when that has changed.
	Full func() bool
	// OutOfRange is told that an offset is not there, any more or yet. Reading goes on at the oldest record.
	OutOfRange func(offset int64)
}

// NewFetcher returns a Fetcher of a topic, whose name has no prefix. It connects when it is first used. The caller closes it.
func NewFetcher(c Config, topic string, log *slog.Logger) *Fetcher {
	return &Fetcher{cfg: c, log: log, topic: c.Topic(topic), client: newClient(c, c.Topic(topic))}
}

// Close waits for all Reads, whose contexts must have ended, and gives up the connections.
func (f *Fetcher) Close() error {
	f.reading.Wait()
	closeClient(f.client)
	return nil
}

// Reading is one use of a Fetcher.
type Reading struct {
	*Fetcher
	ctx context.Context

	mu      sync.Mutex
	brokers map[lead]*broker // those that are asked
	stray   []*source        // partitions that are with no broker
	strayed chan struct{}    // has a signal when there may be some
	lasting int              // sources that keep failing
}

// lead is what is asked for by one goroutine: the partitions that a broker leads, either those that are well or those whose last question
// failed.
type lead struct {
	broker int
	sick   bool
}

// broker is the partitions of a lead.
type broker struct {
	sources []*source
	wake    chan struct{}
}

type source struct {
	Source
	next  int64
	fails int       // in a row
	due   time.Time // not to be asked for before
}

// Bounds of an answer; the first batch comes even if it is larger. kafka-go decodes each batch into pages of 64 KiB: of a backlog of
// lone small records, some 300 bytes each, an answer takes 200 times its size in memory, here 60 MB.
const (
	maxFetchBytes          = 256 << 10
	maxFetchPartitionBytes = 64 << 10
)

// errNoAnswer says that an answer left out a partition.
var errNoAnswer = errors.New("no answer for the partition")

// errNoProgress says that there are records in an answer, and none that were asked for.
var errNoProgress = errors.New("nothing but earlier records")

// pausedWait is how long a broker may hold a question that leaves out partitions whose takers are full: until then they are not asked for.
// No setting: it is far below what a taker that was full needs, and far above what a question costs.
const pausedWait = 20 * time.Millisecond

// Read reads sources until ctx ends; nothing is taken after that. Kafka's absence is no error: it goes on when Kafka is back.
func (f *Fetcher) Read(ctx context.Context, sources []Source) *Reading {
	r := &Reading{Fetcher: f, ctx: ctx, brokers: map[lead]*broker{}, strayed: make(chan struct{}, 1)}
	for _, s := range sources {
		r.stray = append(r.stray, &source{Source: s, next: s.Offset})
	}
	signal(r.strayed)
	f.reading.Go(r.place)
	return r
}

// Wake says that a source which was full may not be any more.
func (r *Reading) Wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.brokers {
		signal(b.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// place hands partitions that are with no broker to those that lead them, until ctx ends.
func (r *Reading) place() {
	for {
		var next <-chan time.Time
		if due := r.assign(); !due.IsZero() {
			next = time.After(time.Until(due))
		}
		select {
		case <-r.strayed:
		case <-next:
		case <-r.ctx.Done():
			return
		}
	}
}

// assign gives stray partitions to the brokers that lead them now, and returns when there will be some to try again.
func (r *Reading) assign() time.Time {
	now := time.Now()
	r.mu.Lock()
	var stray, later []*source
	for _, s := range r.stray {
		if s.due.After(now) {
			later = append(later, s)
		} else {
			stray = append(stray, s)
		}
	}
	r.stray = later
	r.mu.Unlock()
	if len(stray) > 0 {
		r.lead(stray)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var due time.Time
	for _, s := range r.stray {
		if due.IsZero() || s.due.Before(due) {
			due = s.due
		}
	}
	return due
}

// lead finds the leaders of partitions. No broker is asked but for what the client knows already: a sick one would hold up the others.
func (r *Reading) lead(stray []*source) {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.WriteTimeout)
	defer cancel()
	leaders, err := leaders(ctx, r.client, r.topic)
	var failed []*source
	r.mu.Lock()
	for _, s := range stray {
		if s.Partition >= len(leaders) || leaders[s.Partition] == noLeader {
			failed = append(failed, s)
			continue
		}
		l := lead{leaders[s.Partition], s.fails > 0}
		b := r.brokers[l]
		if b == nil {
			b = &broker{wake: make(chan struct{}, 1)}
			r.brokers[l] = b
			r.reading.Go(func() { r.ask(l, b) })
		}
		b.sources = append(b.sources, s)
		signal(b.wake)
	}
	r.mu.Unlock()
	if len(failed) > 0 && err == nil {
		err = kafka.LeaderNotAvailable
	}
	r.fail(failed, err)
}

// fail makes sources stray, for a while that grows with each failure.
func (r *Reading) fail(failed []*source, err error) {
	if len(failed) == 0 || r.ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	before := r.lasting
	for _, s := range failed {
		s.due = time.Now().Add(min(r.cfg.RetryMax, r.cfg.RetryMin<<min(s.fails, 20)))
		if s.fails++; s.fails == lastingFails {
			r.lasting++
		}
	}
	r.stray = append(r.stray, failed...)
	warn := before == 0 && r.lasting > 0
	r.mu.Unlock()
	signal(r.strayed)
	r.log.Debug("kafka read", "topic", r.topic, "partition", failed[0].Partition, "err", err)
	if warn {
		r.log.Warn("kafka reads keep failing", "topic", r.topic, "partition", failed[0].Partition, "err", err)
	}
}

// well notes that a source was read.
func (r *Reading) well(s *source) {
	r.mu.Lock()
	lasted := s.fails >= lastingFails
	if lasted {
		r.lasting--
	}
	s.fails = 0
	over := lasted && r.lasting == 0
	r.mu.Unlock()
	if over {
		r.log.Info("kafka is read again", "topic", r.topic)
	}
}

// oldest asks a broker for the first offset of those that are to begin there. It returns those of which it did not learn it, and why.
func (r *Reading) oldest(ctx context.Context, sources []*source) (failed []*source, err error) {
	var ask []kafka.OffsetRequest
	for _, s := range sources {
		if s.next < 0 {
			ask = append(ask, kafka.FirstOffsetOf(s.Partition))
		}
	}
	if ask == nil {
		return nil, nil
	}
	resp, err := r.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{r.topic: ask}})
	first := map[int]int64{}
	if err == nil {
		for _, p := range resp.Topics[r.topic] {
			if p.Error != nil {
				err = p.Error
			} else {
				first[p.Partition] = p.FirstOffset
			}
		}
	}
	for _, s := range sources {
		at, ok := first[s.Partition]
		switch {
		case s.next >= 0:
		case ok && at >= 0:
			s.next = at
		default:
			failed = append(failed, s)
			err = cmp.Or(err, errNoAnswer)
		}
	}
	return failed, err
}

// ask asks one broker until ctx ends, the broker fails, or it leads nothing any more.
func (r *Reading) ask(l lead, b *broker) {
	turn := 0
	for r.ctx.Err() == nil {
		ready, paused := r.ready(l, b)
		if ready == nil && !paused {
			return
		}
		if len(ready) == 0 {
			select {
			case <-b.wake:
			case <-r.ctx.Done():
			}
			continue
		}
		hold := r.cfg.MaxWait
		switch {
		case l.sick:
			hold = 0 // the others wait for their turn
		case paused:
			hold = min(hold, pausedWait)
		}
		// Who comes first takes first of what an answer may hold.
		turn++
		n := turn % len(ready)
		ready = append(ready[n:len(ready):len(ready)], ready[:n]...)
		asked := ready
		if l.sick {
			asked = ready[:1]
		}
		failed, err := r.fetch(asked, hold)
		if r.ctx.Err() != nil {
			return
		}
		if errors.Is(err, context.DeadlineExceeded) {
			failed = ready // another leader may be found for all of them; each would take as long
		}
		var healed []*source
		if l.sick && len(failed) == 0 {
			healed = asked
			r.well(asked[0])
		}
		r.leave(b, failed, healed)
		r.fail(failed, err)
	}
}

// leave takes sources from a broker. Those that are well again are stray then, to be placed among others that are.
func (r *Reading) leave(b *broker, failed, healed []*source) {
	if len(failed)+len(healed) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b.sources = slices.DeleteFunc(b.sources, func(s *source) bool { return slices.Contains(failed, s) || slices.Contains(healed, s) })
	if len(healed) > 0 {
		r.stray = append(r.stray, healed...)
		signal(r.strayed)
	}
}

// ready returns the broker's sources that have room, and whether there are others. Without any it forgets the broker.
func (r *Reading) ready(l lead, b *broker) (ready []*source, paused bool) {
	r.mu.Lock()
	sources := slices.Clone(b.sources)
	if len(sources) == 0 {
		delete(r.brokers, l)
	}
	r.mu.Unlock()
	for _, s := range sources {
		if s.Full() {
			paused = true
		} else {
			ready = append(ready, s)
		}
	}
	return ready, paused
}

// fetch asks once and hands over what came. It returns the sources for which that failed, and why the first one did.
func (r *Reading) fetch(sources []*source, hold time.Duration) (failed []*source, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, hold+r.cfg.WriteTimeout)
	defer cancel()
	if failed, err := r.oldest(ctx, sources); len(failed) > 0 {
		return failed, err
	}
	req := &fetchapi.Request{
		ReplicaID: -1, MaxWaitTime: int32(hold.Milliseconds()), MinBytes: 1, MaxBytes: maxFetchBytes, SessionEpoch: -1,
		Topics: []fetchapi.RequestTopic{{Topic: r.topic, Partitions: make([]fetchapi.RequestPartition, len(sources))}},
	}
	byID := make(map[int]*source, len(sources))
	for i, s := range sources {
		byID[s.Partition] = s
		req.Topics[0].Partitions[i] = fetchapi.RequestPartition{
			Partition: int32(s.Partition), CurrentLeaderEpoch: -1, FetchOffset: s.next, LogStartOffset: -1, PartitionMaxBytes: maxFetchPartitionBytes,
		}
	}
	m, err := r.client.Transport.RoundTrip(ctx, r.client.Addr, req)
	if err != nil {
		return sources, err
	}
	resp := m.(*fetchapi.Response)
	if resp.ErrorCode != 0 {
		return sources, kafka.Error(resp.ErrorCode)
	}
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			s := byID[int(p.Partition)]
			if s == nil {
				continue
			}
			delete(byID, s.Partition)
			perr := r.take(s, p)
			if perr == nil {
				continue
			}
			if errors.Is(perr, kafka.OffsetOutOfRange) {
				s.OutOfRange(s.next)
				s.next = kafka.FirstOffset
			}
			failed, err = append(failed, s), perr
		}
	}
	for _, s := range byID {
		failed, err = append(failed, s), errNoAnswer
	}
	return failed, err
}

// take hands a partition's records to its source.
func (r *Reading) take(s *source, p *fetchapi.ResponsePartition) error {
	if p.ErrorCode != 0 {
		return kafka.Error(p.ErrorCode)
	}
	var msgs []kafka.Message
	from := s.next
	err := eachRecord(p.RecordSet.Records, func(rec *kafka.Record, control bool) error {
		// A batch may begin before the offset that was asked for.
		if rec.Offset < s.next {
			return nil
		}
		m := kafka.Message{
			Topic: r.topic, Partition: s.Partition, Offset: rec.Offset, HighWaterMark: p.HighWatermark, Time: rec.Time, Headers: rec.Headers,
		}
		var err error
		if m.Key, err = readAll(rec.Key); err != nil {
			return err
		}
		if m.Value, err = readAll(rec.Value); err != nil {
			return err
		}
		s.next = rec.Offset + 1
		if !control {
			msgs = append(msgs, m)
		}
		return nil
	})
	if len(msgs) > 0 && r.ctx.Err() == nil {
		s.Take(msgs)
	}
	if err == nil && p.RecordSet.Records != nil && s.next == from {
		err = errNoProgress // the same answer would come again, at once and for ever
	}
	if err != nil {
		return fmt.Errorf("partition %d of %s at %d: %w", s.Partition, r.topic, s.next, err)
	}
	return nil
}

// eachRecord calls do for each record, and tells which ones are Kafka's own.
func eachRecord(records protocol.RecordReader, do func(rec *kafka.Record, control bool) error) error {
	if stream, ok := records.(*protocol.RecordStream); ok {
		for _, batch := range stream.Records {
			if err := eachRecord(batch, do); err != nil {
				return err
			}
		}
		return nil
	}
	if records == nil {
		return nil
	}
	_, control := records.(*protocol.ControlBatch)
	for {
		rec, err := records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = do(rec, control)
		for _, b := range []protocol.Bytes{rec.Key, rec.Value} {
			if b != nil {
				_ = b.Close()
			}
		}
		if err != nil {
			return err
		}
	}
}

// readAll copies bytes out of the buffers of an answer, which are used again.
func readAll(b protocol.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	return protocol.ReadAll(b)
}
