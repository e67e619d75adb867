// Package frame is the codec of the binary frame that clients and comet exchange, over TCP and inside
// binary WebSocket messages. The layout is goim's: a 16-byte big-endian header and a body.
//
//	offset  bytes  field
//	0       4      pack length: the whole frame, header included
//	4       2      header length: always 16
//	6       2      ver
//	8       4      op
//	12      4      seq
//	16      n      body
//
// The package owns bytes and lengths only. It starts no goroutine, reads no socket and allocates nothing:
// Append writes into the caller's slice, Parse returns slices of the caller's. All functions are safe for
// concurrent use on different slices.
package frame

import (
	"encoding/binary"
	"errors"
)

// HeaderLen is the length of a frame's header in bytes; the header length field carries it.
const HeaderLen = 16

// Ver is the body version that servers put into frames of their own: JSON bodies. Version 2 is kept free
// for binary protobuf.
const Ver int16 = 1

// Largest bodies, in bytes, that a client may send.
const (
	// MaxBody holds for every operation that has no limit of its own.
	MaxBody = 4096
	// MaxAuthBody holds for any frame before authentication, and for OpAuth.
	MaxAuthBody = 16 << 10
	// MaxRequestBody holds for OpRequest, OpRequestUnordered and OpRequestCall.
	MaxRequestBody = 256 << 10
)

var (
	// ErrIncomplete says that more bytes are needed; nothing was consumed.
	ErrIncomplete = errors.New("frame: incomplete")
	// ErrHeaderLen says that the header length is not 16: the peer does not speak this protocol.
	ErrHeaderLen = errors.New("frame: header length is not 16")
	// ErrPackLen says that the pack length is below 16.
	ErrPackLen = errors.New("frame: pack length below header length")
	// ErrTooLarge says that the body is longer than its operation allows.
	ErrTooLarge = errors.New("frame: body too large")
)

// Frame is one frame. Body is not copied: after Parse it is a part of the parsed slice, with no room behind
// it, so that appending to it can never overwrite its neighbour.
type Frame struct {
	Ver  int16
	Op   Op
	Seq  int32
	Body []byte
}

// Len returns the length of the encoded frame in bytes.
func (f Frame) Len() int { return HeaderLen + len(f.Body) }

// Append appends the encoded frame to dst and returns the extended slice.
func Append(dst []byte, f Frame) []byte {
	dst = AppendHeader(dst, f.Ver, f.Op, f.Seq, len(f.Body))
	return append(dst, f.Body...)
}

// AppendHeader appends the header of a frame whose body has bodyLen bytes, for callers that write the body
// themselves.
func AppendHeader(dst []byte, ver int16, op Op, seq int32, bodyLen int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(HeaderLen+bodyLen))
	dst = binary.BigEndian.AppendUint16(dst, HeaderLen)
	dst = binary.BigEndian.AppendUint16(dst, uint16(ver))
	dst = binary.BigEndian.AppendUint32(dst, uint32(op))
	return binary.BigEndian.AppendUint32(dst, uint32(seq))
}

// Parse reads the first frame of b and returns it with the number of bytes that it took.
//
// It returns ErrIncomplete when b holds less than one frame, with n = 0; once the header is there, n is the
// length that the whole frame will have, so that a reader knows how much to wait for. limit returns the
// largest body for an operation; nil means no limit. ErrHeaderLen, ErrPackLen and ErrTooLarge are final and
// found as soon as the header is there: the connection must be closed.
func Parse(b []byte, limit func(Op) int) (f Frame, n int, err error) {
	if len(b) < HeaderLen {
		return Frame{}, 0, ErrIncomplete
	}
	packLen := int32(binary.BigEndian.Uint32(b))
	if binary.BigEndian.Uint16(b[4:]) != HeaderLen {
		return Frame{}, 0, ErrHeaderLen
	}
	if packLen < HeaderLen {
		return Frame{}, 0, ErrPackLen
	}
	f.Ver = int16(binary.BigEndian.Uint16(b[6:]))
	f.Op = Op(int32(binary.BigEndian.Uint32(b[8:])))
	f.Seq = int32(binary.BigEndian.Uint32(b[12:]))
	n = int(packLen)
	if limit != nil && n-HeaderLen > limit(f.Op) {
		return Frame{}, 0, ErrTooLarge
	}
	if len(b) < n {
		return Frame{}, n, ErrIncomplete
	}
	f.Body = b[HeaderLen:n:n]
	return f, n, nil
}

// AppendBatchHeader appends the header of an OpBatch frame whose inner frames take innerLen bytes. Pushes
// travel over WebSocket only inside such a frame; over TCP the inner frames are written bare.
func AppendBatchHeader(dst []byte, innerLen int) []byte {
	return AppendHeader(dst, Ver, OpBatch, 0, innerLen)
}

// AppendBatch appends one OpBatch frame that holds frames end to end.
func AppendBatch(dst []byte, frames ...Frame) []byte {
	inner := 0
	for _, f := range frames {
		inner += f.Len()
	}
	dst = AppendBatchHeader(dst, inner)
	for _, f := range frames {
		dst = Append(dst, f)
	}
	return dst
}

// ParseBatch calls yield for each inner frame of an OpBatch body until yield returns false. A body that does
// not end with a frame's end is ErrIncomplete.
func ParseBatch(body []byte, yield func(Frame) bool) error {
	for len(body) > 0 {
		f, n, err := Parse(body, nil)
		if err != nil {
			return err
		}
		if !yield(f) {
			return nil
		}
		body = body[n:]
	}
	return nil
}
