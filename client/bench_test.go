package client

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// BenchmarkEntry is what an entry costs from its frame to the handler.
func BenchmarkEntry(b *testing.B) {
	handed := 0
	ch, err := NewChat(ChatOptions{
		Options:        Options{URL: "tcp://127.0.0.1:1", Token: func(context.Context, TokenReason) (string, error) { return "", nil }},
		DeliveredAfter: -1,
		OnEntries:      func(string, []Entry, bool) { handed++ },
	})
	if err != nil {
		b.Fatal(err)
	}
	l := &link{c: ch.Client, reply: &halleyv1.AuthReply{}, pending: map[int32]*pending{}}
	ch.link, ch.state.Name, ch.uid = l, Online, "ann"
	ch.hold(Conversation{ID: "d/ann/bob"}, 0)
	frames := make([]frame.Frame, b.N)
	for i := range frames {
		body := fmt.Sprintf(`{"message.stored":{"conversation":"d/ann/bob","entry":{"seq":%d,"kind":"message","from":"bob","client_msg_id":"0123456789abcdef","server_time":1700000000000,"msg_no":%d,"changed_seq":%d,"body":{"text":"hello, how are you doing today?"}}}}`, i+1, i+1, i+1)
		if !json.Valid([]byte(body)) {
			b.Fatal(body)
		}
		frames[i] = frame.Frame{Op: frame.OpEvent, Body: []byte(body)}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range frames {
		l.frame(frames[i])
		ch.flush()
	}
	if handed != b.N {
		b.Fatalf("handed over %d of %d", handed, b.N)
	}
}
