package goim

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/halley-im/halley/kit/logs"
	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
)

// The API of goim 1, below /1/. Its answer is {"ret":1}, or {"ret":65535} for any failure; its messages have op 5; its users
// are mids and its rooms numbers, here TYPE://N.

func (h *Handler) oldPush(w http.ResponseWriter, r *http.Request, c Caller) {
	uid, err := strconv.ParseInt(r.URL.Query().Get("uid"), 10, 64)
	if err != nil || uid <= 0 {
		oldFailure.write(w)
		return
	}
	h.oldSend(w, r, c, push.Request{UIDs: []string{strconv.FormatInt(uid, 10)}})
}

// oldMany is the body of /1/pushs.
type oldMany struct {
	UIDs    []int64         `json:"u"`
	Message json.RawMessage `json:"m"`
}

func (h *Handler) oldPushs(w http.ResponseWriter, r *http.Request, c Caller) {
	// The message and, for each user, 20 digits and a comma.
	body, err := readBody(w, r, h.d.MaxBodyBytes+mostOldUsers*21)
	defer body.release()
	var many oldMany
	if err != nil || json.Unmarshal(body.bytes, &many) != nil || len(many.UIDs) == 0 || len(many.UIDs) > mostOldUsers ||
		len(many.Message) == 0 || int64(len(many.Message)) > h.d.MaxBodyBytes {
		oldFailure.write(w)
		return
	}
	q := push.Request{Body: many.Message, UIDs: make([]string, 0, len(many.UIDs))}
	for _, uid := range many.UIDs {
		if uid > 0 {
			q.UIDs = append(q.UIDs, strconv.FormatInt(uid, 10))
		}
	}
	h.oldPushed(w, r, c, q)
}

// mostOldUsers bounds the users of one /1/pushs: as many as a push may have by default. No setting: callers of old only split what is larger.
const mostOldUsers = 10_000

// oldPushRoom takes ensure and needs it not: what is accepted waits in Kafka, never in a queue that could be full.
func (h *Handler) oldPushRoom(w http.ResponseWriter, r *http.Request, c Caller) {
	q := r.URL.Query()
	rid, err := strconv.ParseInt(q.Get("rid"), 10, 32)
	if ensure := q.Get("ensure"); err == nil && ensure != "" {
		_, err = strconv.ParseBool(ensure)
	}
	if err != nil {
		oldFailure.write(w)
		return
	}
	h.oldSend(w, r, c, push.Request{Rooms: []string{h.cfg.RoomType + "://" + strconv.FormatInt(rid, 10)}})
}

func (h *Handler) oldPushAll(w http.ResponseWriter, r *http.Request, c Caller) {
	h.oldSend(w, r, c, push.Request{All: true})
}

func (h *Handler) oldSend(w http.ResponseWriter, r *http.Request, c Caller, q push.Request) {
	body, err := readBody(w, r, h.d.MaxBodyBytes)
	defer body.release()
	if err != nil {
		h.oldFailed(w, r, err)
		return
	}
	q.Body = body.bytes
	h.oldPushed(w, r, c, q)
}

func (h *Handler) oldPushed(w http.ResponseWriter, r *http.Request, c Caller, q push.Request) {
	q.Tenant, q.Op = c.Tenant, int32(frame.OpMsg)
	var err error
	if q.ID, err = pushID(r, c); err == nil {
		_, err = h.d.Push.Push(r.Context(), q)
	}
	if err != nil {
		h.oldFailed(w, r, err)
		return
	}
	oldOK.write(w)
}

func (h *Handler) oldFailed(w http.ResponseWriter, r *http.Request, err error) {
	if errcode.From(err).Code.HTTP >= 500 {
		h.d.Log.DebugContext(r.Context(), "push not accepted", logs.Err, err)
	}
	oldFailure.write(w)
}

type (
	oldData struct {
		Ret  int `json:"ret"`
		Data any `json:"data,omitempty"`
	}
	oldRoomCount struct {
		RoomID int32  `json:"RoomId"`
		Count  uint32 `json:"Count"`
	}
	oldServerCount struct {
		Server int   `json:"Server"`
		Count  int64 `json:"Count"`
	}
)

// oldCount counts the sessions in numbered rooms, the 1,000 fullest, or on comets, which are numbered from 1 in the order of
// their names.
func (h *Handler) oldCount(w http.ResponseWriter, r *http.Request, c Caller) {
	var data any
	switch r.URL.Query().Get("type") {
	case "room":
		ctx, cancel := h.router(r)
		defer cancel()
		res, err := h.d.Router.TopRooms(ctx, &halleyv1.TopRoomsRequest{Tenant: c.Tenant, Type: h.cfg.RoomType, Limit: mostTop})
		if err != nil {
			h.oldFailed(w, r, err)
			return
		}
		rooms := []oldRoomCount{}
		for _, room := range res.GetRooms() {
			_, id, _ := strings.Cut(room.GetRoom(), "://")
			if rid, err := strconv.ParseInt(id, 10, 32); err == nil && strconv.FormatInt(rid, 10) == id {
				rooms = append(rooms, oldRoomCount{RoomID: int32(rid), Count: room.GetCount()})
			}
		}
		data = rooms
	case "server":
		if !c.SeesCluster {
			refuse(w, errWhole, true)
			return
		}
		comets, err := h.d.Nodes.Live(r.Context())
		if err != nil {
			h.oldFailed(w, r, err)
			return
		}
		servers := []oldServerCount{}
		for i, c := range comets {
			servers = append(servers, oldServerCount{Server: i + 1, Count: c.GetLoad().GetConnections()})
		}
		data = servers
	}
	b, err := json.Marshal(oldData{Ret: 1, Data: data})
	if err != nil {
		h.oldFailed(w, r, err)
		return
	}
	w.Header()["Content-Type"] = typeJSON
	_, _ = w.Write(b)
}

// oldServerDel has nothing to do: a dead comet's sessions are gone when its lease is due. It answers that all is well, so
// that scripts which clean up after a dead server go on.
func (h *Handler) oldServerDel(w http.ResponseWriter, r *http.Request, _ Caller) {
	if _, err := strconv.ParseInt(r.URL.Query().Get("server"), 10, 32); err != nil {
		oldFailure.write(w)
		return
	}
	oldOK.write(w)
}
