package goim

import (
	"net/http"
	"strings"

	"github.com/halley-im/halley/kit/logs"
	halleyv1 "github.com/halley-im/halley/proto/gen/halley/v1"
	"github.com/halley-im/halley/proto/name"
)

// mostTop and mostRooms bound what one request may ask of router. No settings: they are the bounds of the same questions below /v1, which the API promises.
const (
	mostTop   = 1000
	mostRooms = 1000
)

type topRoom struct {
	RoomID string `json:"room_id"`
	Count  int32  `json:"count"`
}

func (h *Handler) onlineTop(w http.ResponseWriter, r *http.Request, c Caller) {
	limit := number{bits: 64}
	var typ text
	err := query(r.URL.RawQuery, func(k, v string) error {
		switch k {
		case "type":
			typ.take(v)
		case "limit":
			return limit.take(v)
		}
		return nil
	})
	if err == nil {
		var m missing
		m.check("Type", typ.value == "")
		m.check("Limit", limit.value == 0)
		if m != nil {
			err = m
		}
	}
	if err != nil {
		badRequest(w, http.StatusBadRequest, err.Error())
		return
	}
	if limit.value < 0 {
		badRequest(w, http.StatusBadRequest, "Key: 'Limit' Error:Field validation for 'Limit' failed on the 'min' tag")
		return
	}
	top := []topRoom{}
	// A type with "://" in it names a room, not a type; one of the system's is nobody's business.
	if !strings.Contains(typ.value, "://") && !name.RoomReserved(typ.value+"://") {
		ctx, cancel := h.router(r)
		defer cancel()
		res, err := h.d.Router.TopRooms(ctx, &halleyv1.TopRoomsRequest{Tenant: c.Tenant, Type: typ.value, Limit: uint32(min(limit.value, mostTop))})
		if err != nil {
			h.routerFailed(w, r, err)
			return
		}
		for _, room := range res.GetRooms() {
			// The whole id: goim cuts it at a slash, so that two rooms look like one.
			_, id, _ := strings.Cut(room.GetRoom(), "://")
			top = append(top, topRoom{RoomID: id, Count: int32(room.GetCount())})
		}
	}
	h.data(w, r, top)
}

func (h *Handler) onlineRoom(w http.ResponseWriter, r *http.Request, c Caller) {
	var typ text
	var ids []string
	_ = query(r.URL.RawQuery, func(k, v string) error {
		switch k {
		case "type":
			typ.take(v)
		case "rooms":
			ids = append(ids, v)
		}
		return nil
	})
	var m missing
	m.check("Type", typ.value == "")
	m.check("Rooms", len(ids) == 0)
	switch {
	case m != nil:
		badRequest(w, http.StatusBadRequest, m.Error())
		return
	case len(ids) > mostRooms:
		badRequest(w, http.StatusBadRequest, "Key: 'Rooms' Error:Field validation for 'Rooms' failed on the 'max' tag")
		return
	}
	counts := make(map[string]int32, len(ids))
	var asked []string
	var rooms []*halleyv1.Name
	for _, id := range ids {
		if _, twice := counts[id]; twice {
			continue
		}
		// What can't be a room has nobody in it.
		counts[id] = 0
		if room := typ.value + "://" + id; name.Room(room) == nil {
			asked = append(asked, id)
			rooms = append(rooms, &halleyv1.Name{Tenant: c.Tenant, Name: &halleyv1.Name_Room{Room: room}})
		}
	}
	if len(rooms) > 0 {
		ctx, cancel := h.router(r)
		defer cancel()
		res, err := h.d.Router.CountRooms(ctx, &halleyv1.CountRoomsRequest{Rooms: rooms})
		if err != nil {
			h.routerFailed(w, r, err)
			return
		}
		for i, n := range res.GetCounts() {
			if i < len(asked) {
				counts[asked[i]] = int32(n)
			}
		}
	}
	h.data(w, r, counts)
}

type total struct {
	ConnCount int64 `json:"conn_count"`
	IPCount   int64 `json:"ip_count"`
}

// onlineTotal sums over the whole cluster.
func (h *Handler) onlineTotal(w http.ResponseWriter, r *http.Request, c Caller) {
	if !c.SeesCluster {
		refuse(w, errWhole, false)
		return
	}
	comets, err := h.d.Nodes.Live(r.Context())
	if err != nil {
		h.routerFailed(w, r, err)
		return
	}
	var t total
	for _, c := range comets {
		t.ConnCount += c.GetLoad().GetConnections()
		t.IPCount += c.GetLoad().GetAddresses()
	}
	h.data(w, r, t)
}

func (h *Handler) routerFailed(w http.ResponseWriter, r *http.Request, err error) {
	h.d.Log.DebugContext(r.Context(), "router did not answer", logs.Err, err)
	h.failed(w, codeServer, "the service can't answer now")
}
