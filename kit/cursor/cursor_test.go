package cursor_test

import (
	"reflect"
	"testing"

	"github.com/halley-im/halley/kit/cursor"
	"github.com/halley-im/halley/kit/kittest"
)

func TestMain(m *testing.M) { kittest.Main(m) }

func TestMarksOnlyRise(t *testing.T) {
	c, prefix := kittest.Redis(t)
	put := func(seq, change int64) {
		t.Helper()
		var m cursor.Marks
		m.Seq("default", "d/a/b", seq)
		m.Seq("default", "d/a/b", seq-1)
		m.Change("default", "a", change)
		p := c.Pipeline()
		cursor.Raise(t.Context(), p, prefix, &m)
		if _, err := p.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ seq, change, wantSeq, wantChange int64 }{{9, 100, 9, 100}, {8, 101, 9, 101}, {10, 99, 10, 101}} {
		put(step.seq, step.change)
		got, err := cursor.Read(t.Context(), c, prefix, "default", "a", []string{"d/a/b", "d/a/c"})
		if err != nil {
			t.Fatal(err)
		}
		var want cursor.Marks
		want.Seq("default", "d/a/b", step.wantSeq)
		want.Change("default", "a", step.wantChange)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	keys, err := c.Keys(t.Context(), prefix+"*").Result()
	if err != nil || len(keys) != 2 {
		t.Fatalf("got %v, %v", keys, err)
	}
	for _, k := range keys {
		if left, err := c.PTTL(t.Context(), k).Result(); err != nil || left <= 0 || left > cursor.Life {
			t.Errorf("%s lives %v more, %v", k, left, err)
		}
	}
}

func TestMarksOfOthersAreNotRead(t *testing.T) {
	c, prefix := kittest.Redis(t)
	var m cursor.Marks
	m.Seq("other", "d/a/b", 5)
	m.Change("other", "a", 5)
	p := c.Pipeline()
	cursor.Raise(t.Context(), p, prefix, &m)
	if _, err := p.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := cursor.Read(t.Context(), c, prefix, "default", "a", []string{"d/a/b"}); err != nil || got.Len() != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}
