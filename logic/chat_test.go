package logic_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/halley-im/halley/kit/kafkaconn"
	"github.com/halley-im/halley/kit/kittest"
	"github.com/halley-im/halley/kit/token"
	"github.com/halley-im/halley/logic"
	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/fake"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
	"github.com/halley-im/halley/store/storetest"
)

// judges reads halley.chat as job does, until the test ends.
func (n *node) judges(t *testing.T, j *fake.Judge) {
	f := kafkaconn.NewFetcher(n.kafka, topic.Chat, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = f.Close()
	})
	var all []kafkaconn.Source
	for p := range n.kafka.Partitions {
		all = append(all, kafkaconn.Source{
			Partition: p, Offset: kafka.FirstOffset, Full: func() bool { return false }, OutOfRange: func(int64) {},
			Take: func(msgs []kafka.Message) {
				for _, m := range msgs {
					j.Judge(m)
				}
			},
		})
	}
	f.Read(ctx, all)
}

// as connects as uid and returns what asks as it.
func (n *node) as(t *testing.T, uid string) func(body string) *halleyReply {
	t.Helper()
	s, err := token.Sign(n.key, token.Claims{UID: uid, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := json.Marshal(map[string]string{"token": s})
	if err != nil {
		t.Fatal(err)
	}
	res, err := n.rpc.Connect(t.Context(), &halleyv1.ConnectRequest{Conn: &halleyv1.Conn{Comet: "c", Epoch: "e", Id: "a." + uid}, Auth: auth})
	if err != nil || res.GetError() != nil {
		t.Fatal(err, res.GetError())
	}
	return func(body string) *halleyReply {
		t.Helper()
		res := n.request(t, &halleyv1.SessionRequest{Session: res.GetSession(), Op: 100, Body: []byte(body)})
		r := &halleyReply{}
		if err := json.Unmarshal(res.GetReply(), r); err != nil {
			t.Fatalf("%s: %v", res.GetReply(), err)
		}
		return r
	}
}

// halleyReply is as much of replies as this test looks at.
type halleyReply struct {
	Error struct{ Code string }
	Sent  struct{ ID string } `json:"message.send"`
	List  struct {
		Conversations []struct {
			ID     string
			Unread int
		}
	} `json:"conversation.list"`
	History struct {
		Entries []struct {
			Seq  int
			Body int
		}
	} `json:"conversation.history"`
}

func TestConversationsFromClientAndBackendThroughKafka(t *testing.T) {
	text, line, err := apikey.New("host", apikey.Chat, "default")
	if err != nil {
		t.Fatal(err)
	}
	db := storetest.Open(t, storetest.Config(t))
	j := &fake.Judge{T: t, Store: db}
	n := start(t, func(d *logic.Deps) {
		d.Store, d.APIKeys = db, []string{line}
		j.Redis, j.Prefix = d.Redis, d.RedisPrefix
	})
	n.judges(t, j)
	ann, bob := n.as(t, "ann"), n.as(t, "bob")
	const each = 20
	for i := range each {
		if r := ann(fmt.Sprintf(`{"message.send":{"conversation":"d/ann/bob","client_msg_id":"c%d","body":%d}}`, i, i)); r.Error.Code != "" || r.Sent.ID == "" {
			t.Fatalf("got %+v", r)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/v1/conversations/d%2Fann%2Fbob/messages", strings.NewReader(fmt.Sprintf(`{"from":"ann","body":%d}`, each)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+text)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	// What came before it in the conversation is stored before it.
	if res.StatusCode != http.StatusOK || !strings.Contains(string(b), fmt.Sprintf(`"seq":%d,`, each+1)) {
		t.Fatalf("got %s %s", res.Status, b)
	}
	h := bob(`{"conversation.history":{"conversation":"d/ann/bob"}}`).History.Entries
	if len(h) != each+1 {
		t.Fatalf("got %v", h)
	}
	for i, e := range h {
		if e.Seq != i+1 || e.Body != i {
			t.Errorf("entry %d: got %+v", i, e)
		}
	}
	// The list by uid follows.
	kittest.Eventually(t, patience, func() bool {
		list := bob(`{"conversation.list":{}}`).List.Conversations
		return len(list) == 1 && list[0].ID == "d/ann/bob" && list[0].Unread == each+1
	}, "on the list")
}

func TestLogicWithoutADatabaseHasNoConversations(t *testing.T) {
	n := start(t)
	if r := n.as(t, "ann")(`{"conversation.list":{}}`); r.Error.Code != "unknown_method" {
		t.Errorf("got %+v", r)
	}
}
