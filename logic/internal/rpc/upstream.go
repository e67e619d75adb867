package rpc

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/proto"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/topic"
)

// upstream writes a client's frame for the host's backend and returns when Kafka has it. Frames of one user are in one
// partition, in the order in which comet asked. Where it is off it does nothing.
func (s *Server) upstream(ctx context.Context, req *halleyv1.SessionRequest) error {
	if !s.d.Upstream {
		return nil
	}
	// The protocol's bound, which comet holds, too: no setting.
	if len(req.GetBody()) > frame.MaxBody {
		return errcode.TooLarge
	}
	ses := req.GetSession()
	kind, id := "uid", ses.GetUid()
	if id == "" {
		kind, id = "key", ses.GetKey()
	}
	value, err := proto.Marshal(&halleyv1.UpstreamRecord{
		Session: ses, Rooms: req.GetRooms(), Op: req.GetOp(), Body: req.GetBody(), AcceptedAtMs: s.d.Now().UnixMilli(),
	})
	if err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.d.ProduceTimeout)
	defer cancel()
	if err := s.d.Producer.Produce(ctx, kafka.Message{Topic: topic.Upstream, Key: topic.Join(ses.GetTenant(), kind, id), Value: value}); err != nil {
		return fmt.Errorf("%w: %w", errcode.Unavailable.After(s.d.ProduceRetry), err)
	}
	return nil
}
