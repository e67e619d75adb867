package store_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/halley-im/halley/store"
	"github.com/halley-im/halley/store/conversation"
)

func benchBoth(b *testing.B, f func(b *testing.B, s *store.Store)) {
	b.Run("sqlite", func(b *testing.B) { f(b, sqlitePlace(b).open(b)) })
	b.Run("mysql", func(b *testing.B) { f(b, mysqlPlace(b).open(b)) })
}

// BenchmarkAppend stores messages of 200 bytes in batches, spread over direct conversations and all in one group.
func BenchmarkAppend(b *testing.B) {
	benchBoth(b, func(b *testing.B, s *store.Store) {
		for _, size := range []int{1, 100, 500} {
			for _, convs := range []int{1, 200} {
				b.Run(fmt.Sprintf("batch=%d/conversations=%d", size, convs), func(b *testing.B) {
					k := &talk{t: b, s: s, n: b.N * 1_000_000}
					body := make([]byte, 200)
					for i := range body {
						body[i] = byte('a' + i%26)
					}
					talks := make([]string, convs)
					for i := range talks {
						talks[i] = conversation.DirectID("bench", fmt.Sprintf("peer%d-%d-%d", size, convs, i))
					}
					n := 0
					batch := func() []conversation.Proposal {
						ps := make([]conversation.Proposal, size)
						for i := range ps {
							k.id = talks[n%convs]
							n++
							ps[i] = k.say("bench", "")
							ps[i].Body = body
						}
						return ps
					}
					b.ResetTimer()
					for range b.N {
						out, err := s.Append(b.Context(), batch())
						if err != nil {
							b.Fatal(err)
						}
						for i := range out {
							if out[i].Code != nil {
								b.Fatal(out[i].Err())
							}
						}
					}
					b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "msg/s")
				})
			}
		}
	})
}

// BenchmarkMany asks for one who is in 10,000 groups, each of a single entry.
func BenchmarkMany(b *testing.B) {
	benchBoth(b, func(b *testing.B, s *store.Store) {
		const n = 10_000
		crowd(b, s, n)
		have := map[string]int64{}
		var one string
		var listings []store.Listing
		for i := range n {
			one = fmt.Sprintf("g/00000000-0000-7000-8000-%012x", i)
			have[one] = int64(n)
			listings = append(listings, store.Listing{Tenant: tenant, UID: "boss", Conversation: one, Role: conversation.Owner, JoinedSeq: 1, ChangedSeq: 1})
		}
		for part := range slices.Chunk(listings, 500) {
			if _, err := s.PutListings(b.Context(), part); err != nil {
				b.Fatal(err)
			}
		}
		for name, f := range map[string]func() error{
			"list, first 50": func() error {
				_, _, err := s.Conversations(b.Context(), tenant, "boss", store.Cursor{}, 50)
				return err
			},
			"sync, nothing new": func() error {
				_, err := s.Sync(b.Context(), tenant, "boss", store.SyncQuery{Have: have, UserChange: n, Limit: 500, Newest: 20, MaxGap: 500})
				return err
			},
			"one": func() error {
				list, err := s.Summaries(b.Context(), tenant, "boss", []string{one})
				if len(list) != 1 {
					b.Fatal(list)
				}
				return err
			},
			"positions": func() error {
				_, _, err := s.Positions(b.Context(), tenant, "boss")
				return err
			},
		} {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	})
}

// BenchmarkCatchUp reads what a device has missed: 10 messages in each of 100 conversations. Beside it, a page of 50 messages
// and the first page of a list of 1,000 conversations.
func BenchmarkCatchUp(b *testing.B) {
	benchBoth(b, func(b *testing.B, s *store.Store) {
		have := map[string]int64{}
		var one string
		for i := range 1000 {
			k := direct(b, s, "me", fmt.Sprintf("peer%d", i))
			k.now = start + int64(i)*1000
			var ps []conversation.Proposal
			for range 11 {
				ps = append(ps, k.say("me", "hello, this is a message of some length"))
			}
			k.must(ps...)
			have[k.id] = 11
			if i >= 900 {
				have[k.id], one = 1, k.id
			}
		}
		b.Run("sync 100x10 of 1000", func(b *testing.B) {
			for b.Loop() {
				page, err := s.Sync(b.Context(), tenant, "me", store.SyncQuery{Have: have, UserChange: 1000, Limit: 1000, Newest: 20, MaxGap: 500})
				if err != nil || len(page.Conversations) != 100 || len(page.Conversations[99].Entries) != 10 {
					b.Fatal(len(page.Conversations), err)
				}
			}
		})
		b.Run("list of 1000, first 50", func(b *testing.B) {
			for b.Loop() {
				if page, _, err := s.Conversations(b.Context(), tenant, "me", store.Cursor{}, 50); err != nil || len(page) != 50 {
					b.Fatal(err)
				}
			}
		})
		b.Run("page of 10", func(b *testing.B) {
			for b.Loop() {
				if page, err := s.EntriesBefore(b.Context(), tenant, one, 1, 12, 10); err != nil || len(page) != 10 {
					b.Fatal(err)
				}
			}
		})
	})
}
