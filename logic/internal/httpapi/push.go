package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/halley-im/halley/logic/internal/apikey"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// Push is a message to whoever is connected now.
type Push struct {
	UIDs  []string `json:"uids,omitempty" doc:"To all sessions of these users." example:"[\"ann\",\"bob\"]"`
	Keys  []string `json:"keys,omitempty" doc:"To the sessions with these keys."`
	Rooms []string `json:"rooms,omitempty" doc:"To everybody in these rooms, each type://id." example:"[\"chat://lobby\"]"`
	All   bool     `json:"all,omitempty" doc:"To every session of the tenant; stands alone, always in the lane bulk."`

	ExcludeUIDs []string `json:"exclude_uids,omitempty" doc:"Users who get nothing, whatever they are in."`
	ExcludeKeys []string `json:"exclude_keys,omitempty" doc:"Session keys that get nothing."`

	Op    *int32  `json:"op,omitempty" doc:"Operation of the frame; 1000 if left out. 1 to 17 except 5 and 100 to 199 are the protocol's." example:"1000"`
	Lane  string  `json:"lane,omitempty" enum:"urgent,push,bulk" doc:"Urgency; push if left out. There is no order between lanes."`
	TTL   float64 `json:"ttl,omitempty" minimum:"0" maximum:"86400" doc:"Seconds that the push is worth delivering; left out: 30 in urgent, 60 in push, 600 in bulk."`
	Speed uint32  `json:"speed,omitempty" doc:"With all: sessions a second over the whole cluster; left out: as fast as is good for the comets."`

	Text   *string         `json:"text,omitempty" doc:"The body, as text. Of text, json and base64 at most one; none is an empty body."`
	JSON   json.RawMessage `json:"json,omitempty" doc:"The body, as any JSON value; delivered as written here."`
	Base64 *string         `json:"base64,omitempty" doc:"The body, as bytes in base64 (RFC 4648 section 4, padded)."`
}

// Pushed is what became of a push.
type Pushed struct {
	ID         string `json:"id" doc:"Names the push to backends; clients get none but a room.message's. A repeat under the same Idempotency-Key has the same."`
	AcceptedAt int64  `json:"accepted_at" doc:"When it was accepted; its ttl counts from here."`
}

// PushOutcome is one push's of a batch: the fields of Pushed, or error.
type PushOutcome struct {
	ID         string     `json:"id,omitempty"`
	AcceptedAt int64      `json:"accepted_at,omitempty"`
	Error      *ItemError `json:"error,omitempty"`
}

// ItemError is why one item of a batch was not carried out.
type ItemError struct {
	Code         string `json:"code" doc:"As a problem's."`
	Message      string `json:"message" doc:"For people."`
	Retry        bool   `json:"retry" doc:"Whether the same item may succeed later without being changed."`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}

type (
	pushInput  struct{ Body Push }
	pushOutput struct{ Body Pushed }

	batchInput struct {
		Body struct {
			Items []Push `json:"items" minItems:"1" doc:"Pushes, at most 1,000. Those to one target in one lane are delivered in this order."`
		}
	}
	batchOutput struct {
		Status int
		Body   struct {
			Items    []PushOutcome `json:"items" doc:"One for each push, in its order."`
			Accepted int           `json:"accepted" doc:"How many were accepted."`
			Failed   int           `json:"failed" doc:"How many were not."`
		}
	}
)

// registerPush has huma skip its validation, which decodes a body a second time, into maps: half the cost of a small push. What
// the schema says is held by strictJSON, pushRequest and package push.
func (a *api) registerPush() {
	handle(a, route{scope: apikey.Push, replay: true}, huma.Operation{
		OperationID: "push", Method: http.MethodPost, Path: "/v1/push", Summary: "Push a message", Tags: []string{"push"}, SkipValidateBody: true,
		Description: "The push is accepted when Kafka has acknowledged it for all its targets; it is then delivered at least once to each session that is " +
			"connected, within its ttl, and stored nowhere. Whoever isn't connected misses it. 503: not accepted, or not known; repeat it under the same Idempotency-Key.",
	}, a.push)
	handle(a, route{scope: apikey.Push, replay: true}, huma.Operation{
		OperationID: "push-batch", Method: http.MethodPost, Path: "/v1/push/batch", Summary: "Push many messages", Tags: []string{"push"}, SkipValidateBody: true,
		Description: "Each push is judged and answered by itself: 200, or 207 if some were accepted and some may succeed when they are tried again (their errors " +
			"have retry), or 503 if none was accepted and some may. Try again those that failed, under another Idempotency-Key: 207 isn't kept, and the same " +
			"request under the same key sends the accepted ones once more, under their ids.",
	}, a.pushBatch)
}

func (a *api) push(ctx context.Context, in *pushInput) (*pushOutput, error) {
	c := callOf(ctx)
	q, err := a.pushRequest(&in.Body, c, c.pushID(""))
	if err != nil {
		return nil, err
	}
	res, err := a.d.Push.Push(ctx, q)
	if err != nil {
		return nil, err
	}
	return &pushOutput{Pushed{ID: res.ID, AcceptedAt: res.AcceptedAt.UnixMilli()}}, nil
}

func (a *api) pushBatch(ctx context.Context, in *batchInput) (*batchOutput, error) {
	c := callOf(ctx)
	items := in.Body.Items
	if len(items) == 0 {
		return nil, errcode.InvalidRequest.Errorf("items: at least one")
	}
	if len(items) > a.cfg.MaxBatch {
		return nil, errcode.TooLarge.Errorf("items: at most %d", a.cfg.MaxBatch)
	}
	out := &batchOutput{Status: http.StatusOK}
	out.Body.Items = make([]PushOutcome, len(items))
	var retry *errcode.Error
	fail := func(i int, err error) {
		e := errcode.From(err)
		text := e.Detail
		if text == "" {
			text = e.Code.Text
		}
		out.Body.Items[i] = PushOutcome{Error: &ItemError{Code: e.Code.Name, Message: text, Retry: e.Code.Retry, RetryAfterMS: e.RetryAfter.Milliseconds()}}
		out.Body.Failed++
		if e.Code.Retry {
			retry = e
		}
	}
	requests := make([]push.Request, 0, len(items))
	place := make([]int, 0, len(items))
	for i := range items {
		q, err := a.pushRequest(&items[i], c, c.pushID(strconv.Itoa(i)))
		if err != nil {
			fail(i, err)
			continue
		}
		requests, place = append(requests, q), append(place, i)
	}
	for i, o := range a.d.Push.PushMany(ctx, requests) {
		if o.Err != nil {
			fail(place[i], o.Err)
			continue
		}
		out.Body.Items[place[i]] = PushOutcome{ID: o.ID, AcceptedAt: o.AcceptedAt.UnixMilli()}
		out.Body.Accepted++
	}
	switch {
	case retry != nil && out.Body.Accepted == 0:
		return nil, retry
	case retry != nil:
		// Not kept under an Idempotency-Key: a repeat may do better.
		out.Status = http.StatusMultiStatus
	}
	return out, nil
}

// mostTTL is in seconds; as the schema says, so no setting. An operator may set a lower bound: push-max-ttl.
const mostTTL = 24 * 60 * 60

// pushRequest judges what only JSON can get wrong; the rest is package push's.
func (a *api) pushRequest(p *Push, c *call, id string) (push.Request, error) {
	q := push.Request{
		Tenant: c.tenant, ID: id, UIDs: p.UIDs, Keys: p.Keys, Rooms: p.Rooms, All: p.All, ExcludeUIDs: p.ExcludeUIDs, ExcludeKeys: p.ExcludeKeys,
		Op: int32(frame.OpApplication), TTL: time.Duration(p.TTL * float64(time.Second)), Speed: p.Speed,
	}
	if !p.All && len(p.UIDs)+len(p.Keys)+len(p.Rooms) == 0 {
		return q, errcode.InvalidRequest.Errorf("targets: uids, keys, rooms or all")
	}
	if p.Op != nil {
		q.Op = *p.Op
	}
	// Beyond it the conversion below would wrap around.
	if !(p.TTL >= 0 && p.TTL <= mostTTL) {
		return q, errcode.InvalidRequest.Errorf("ttl: 0 to %d seconds", mostTTL)
	}
	switch p.Lane {
	case "", "push":
	case "urgent":
		q.Lane = halleyv1.Lane_LANE_URGENT
	case "bulk":
		q.Lane = halleyv1.Lane_LANE_BULK
	default:
		return q, errcode.InvalidRequest.Errorf("lane: urgent, push or bulk")
	}
	bodies := 0
	if p.Text != nil {
		bodies++
		q.Body = []byte(*p.Text)
	}
	if p.JSON != nil {
		bodies++
		q.Body = p.JSON
	}
	if p.Base64 != nil {
		bodies++
		b, err := base64.StdEncoding.DecodeString(*p.Base64)
		if err != nil {
			return q, errcode.InvalidRequest.Errorf("base64: not valid")
		}
		q.Body = b
	}
	if bodies > 1 {
		return q, errcode.InvalidRequest.Errorf("body: only one of text, json and base64")
	}
	if int64(len(q.Body)) > a.cfg.MaxPushBytes {
		return q, errcode.TooLarge.Errorf("body: at most %d bytes", a.cfg.MaxPushBytes)
	}
	return q, nil
}
