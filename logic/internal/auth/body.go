package auth

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	"github.com/halley-im/halley/proto/name"
)

// Body is a client's auth body: one of its two forms is set.
type Body struct {
	// Halley is set if the body has a token.
	Halley *Halley
	// Goim is set if it has none.
	Goim *Goim
}

// Halley is the body of a client that brings a token.
type Halley struct {
	Token   string   `json:"token"`
	Rooms   []string `json:"rooms"`
	Accepts []int32  `json:"accepts"`
	Resume  struct {
		Replaces string `json:"replaces"`
	} `json:"resume"`
}

// Goim is goim's unsigned token: whoever connects says who he is.
type Goim struct {
	Mid      int64   `json:"mid"`
	Key      string  `json:"key"`
	RoomID   string  `json:"room_id"`
	Platform string  `json:"platform"`
	Accepts  []int32 `json:"accepts"`
}

// maxAccepts bounds the list of ops: comet keeps it for each session. No setting: whoever needs more ops than that accepts all.
const maxAccepts = 256

// ParseBody reads an auth body. Unknown fields are ignored, a known one of a wrong type is an error. A body with
// the field "token" is Halley's, whatever else it has; any other JSON object is goim's. The returned Body tells the form also where the
// error is about what is in it.
func ParseBody(b []byte) (Body, error) {
	if len(b) > frame.MaxAuthBody {
		return Body{}, errcode.TooLarge
	}
	if !utf8.Valid(b) {
		return Body{}, errcode.InvalidRequest.Errorf("auth: not UTF-8")
	}
	// A pointer tells null, which json.Unmarshal takes for an empty object, from {}.
	var form *struct {
		Token json.RawMessage `json:"token"`
	}
	if err := json.Unmarshal(b, &form); err != nil || form == nil {
		return Body{}, errcode.InvalidRequest.Errorf("auth: must be a JSON object")
	}
	if form.Token != nil {
		h := new(Halley)
		if err := json.Unmarshal(b, h); err != nil {
			return Body{Halley: new(Halley)}, errcode.InvalidRequest.Errorf("auth: a field has the wrong type")
		}
		return Body{Halley: h}, checkAccepts(h.Accepts)
	}
	g := new(Goim)
	if err := json.Unmarshal(b, g); err != nil {
		return Body{Goim: new(Goim)}, errcode.InvalidRequest.Errorf("auth: a field has the wrong type")
	}
	if g.Key != "" {
		if err := name.Key(g.Key); err != nil {
			return Body{Goim: g}, err
		}
	}
	if name.Device("platform", g.Platform) != nil {
		// goim reads and ignores it.
		g.Platform = ""
	}
	if name.Room(g.RoomID) != nil {
		// To goim any string is a room, but its push API can only name those of the form type://id: a session in
		// another one is in none that anybody could push to.
		g.RoomID = ""
	}
	return Body{Goim: g}, checkAccepts(g.Accepts)
}

func checkAccepts(ops []int32) error {
	if len(ops) > maxAccepts {
		return errcode.InvalidRequest.Errorf("accepts: at most %d ops", maxAccepts)
	}
	return nil
}
