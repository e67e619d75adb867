package goim

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/halley-im/halley/logic/internal/push"
	"github.com/halley-im/halley/proto/errcode"
	"github.com/halley-im/halley/proto/frame"
	"github.com/halley-im/halley/proto/name"
)

func (h *Handler) pushKeys(w http.ResponseWriter, r *http.Request, c Caller) {
	op := number{bits: 32}
	var keys []string
	named := false
	err := query(r.URL.RawQuery, func(k, v string) error {
		switch k {
		case "operation":
			return op.take(v)
		case "keys":
			named = true
			// A key that no session can have reaches nobody, like an unknown one.
			if name.Key(v) == nil {
				keys = append(keys, v)
			}
		}
		return nil
	})
	if err != nil {
		badRequest(w, http.StatusBadRequest, err.Error())
		return
	}
	if !named {
		noKeys.write(w)
		return
	}
	h.push(w, r, c, push.Request{Op: int32(op.value), Keys: keys}, func(error) { noKeys.write(w) })
}

func (h *Handler) pushMids(w http.ResponseWriter, r *http.Request, c Caller) {
	op := number{bits: 32}
	var uids []string
	err := query(r.URL.RawQuery, func(k, v string) error {
		switch k {
		case "operation":
			return op.take(v)
		case "mids":
			mid, err := parseMid(v)
			if err != nil {
				return err
			}
			// 0 and less have no user behind them.
			if mid > 0 {
				uids = append(uids, strconv.FormatInt(mid, 10))
			}
		}
		return nil
	})
	if err != nil {
		badRequest(w, http.StatusBadRequest, err.Error())
		return
	}
	h.push(w, r, c, push.Request{Op: int32(op.value), UIDs: uids}, nil)
}

func parseMid(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	return strconv.ParseInt(s, 10, 64)
}

func (h *Handler) pushRoom(w http.ResponseWriter, r *http.Request, c Caller) {
	op := number{bits: 32}
	var typ, room text
	err := query(r.URL.RawQuery, func(k, v string) error {
		switch k {
		case "operation":
			return op.take(v)
		case "type":
			typ.take(v)
		case "room":
			room.take(v)
		}
		return nil
	})
	if err == nil {
		var m missing
		m.check("Op", op.value == 0)
		m.check("Type", typ.value == "")
		m.check("Room", room.value == "")
		if m != nil {
			err = m
		}
	}
	if err != nil {
		badRequest(w, http.StatusBadRequest, err.Error())
		return
	}
	h.push(w, r, c, push.Request{Op: int32(op.value), Rooms: []string{typ.value + "://" + room.value}}, nil)
}

func (h *Handler) pushAll(w http.ResponseWriter, r *http.Request, c Caller) {
	op, speed := number{bits: 32}, number{bits: 32}
	err := query(r.URL.RawQuery, func(k, v string) error {
		switch k {
		case "operation":
			return op.take(v)
		case "speed":
			return speed.take(v)
		}
		return nil
	})
	if err == nil && op.value == 0 {
		err = missing{"Op"}
	}
	if err != nil {
		badRequest(w, http.StatusBadRequest, err.Error())
		return
	}
	h.push(w, r, c, push.Request{Op: int32(op.value), All: true, Speed: uint32(max(0, speed.value))}, nil)
}

// push completes q by tenant, id and body, pushes, and answers. unavailable answers a push that the backend didn't take;
// nil: HTTP 200 and code -500.
func (h *Handler) push(w http.ResponseWriter, r *http.Request, c Caller, q push.Request, unavailable func(error)) {
	if !frame.Op(q.Op).Pushable() {
		badRequest(w, http.StatusBadRequest, fmt.Sprintf("operation %d belongs to the protocol", q.Op))
		return
	}
	body, err := readBody(w, r, h.d.MaxBodyBytes)
	defer body.release()
	if err == nil {
		q.Tenant, q.Body = c.Tenant, body.bytes
		if q.ID, err = pushID(r, c); err == nil {
			_, err = h.d.Push.Push(r.Context(), q)
		}
	}
	if err == nil {
		ok.write(w)
		return
	}
	e := errcode.From(err)
	switch {
	case e.Code.HTTP < 500:
		message := e.Detail
		if message == "" {
			message = e.Code.Text
		}
		status := http.StatusBadRequest
		if e.Code == errcode.TooLarge {
			status = http.StatusRequestEntityTooLarge
		}
		badRequest(w, status, message)
	case unavailable != nil:
		unavailable(err)
	default:
		h.failed(w, codeServer, e.Code.Text)
	}
}

// buffer is a body in memory that goes back to the pool: push copies it into its records.
type buffer struct {
	bytes []byte
	pool  *[]byte
}

// Bodies up to this size share memory; larger ones are rare and left to the collector. No setting: it changes nothing that can be seen.
const pooledBytes = 4 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, pooledBytes); return &b }}

func (b buffer) release() {
	if b.pool != nil {
		buffers.Put(b.pool)
	}
}

// readBody reads a body of limit bytes at most; beyond it the error is errcode.TooLarge.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) (buffer, error) {
	n := r.ContentLength
	switch {
	case n == 0:
		return buffer{}, nil
	case n > limit:
		// The rest would have to be read before the connection could be used again.
		w.Header().Set("Connection", "close")
		return buffer{}, errcode.TooLarge.Errorf("body: at most %d bytes", limit)
	case n < 0:
		all, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
		if err != nil {
			var tooLarge *http.MaxBytesError
			if errors.As(err, &tooLarge) {
				return buffer{}, errcode.TooLarge.Errorf("body: at most %d bytes", limit)
			}
			return buffer{}, errcode.InvalidRequest.Errorf("body: incomplete")
		}
		return buffer{bytes: all}, nil
	}
	var b buffer
	if n <= pooledBytes {
		b.pool = buffers.Get().(*[]byte)
		b.bytes = (*b.pool)[:n]
	} else {
		b.bytes = make([]byte, n)
	}
	if _, err := io.ReadFull(r.Body, b.bytes); err != nil {
		return b, errcode.InvalidRequest.Errorf("body: incomplete")
	}
	return b, nil
}
