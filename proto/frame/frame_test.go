package frame_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/halley-im/halley/proto/frame"
)

// vectors is ../testdata/frames.json; its doc says what the fields mean. The TypeScript codec reads it too.
type vectors struct {
	Frames     []vector `json:"frames"`
	Incomplete []struct {
		Name, Hex string
		Need      int
	} `json:"incomplete"`
	Bad []struct {
		Name, Hex, Limit, Error string
	} `json:"bad"`
	Batches []struct {
		Name, Hex string
		Frames    []vector
	} `json:"batches"`
	BadBatches []struct {
		Name, Hex, Error string
		Good             int
	} `json:"bad_batches"`
}

type vector struct {
	Name, Hex, Body string
	Pad             int
	Ver             int16
	Op              frame.Op
	Seq             int32
}

func (v vector) frame(t testing.TB) frame.Frame {
	return frame.Frame{Ver: v.Ver, Op: v.Op, Seq: v.Seq, Body: padded(t, v.Body, v.Pad)}
}

func padded(t testing.TB, s string, pad int) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, bytes.Repeat([]byte{0x61}, pad)...)
}

func load(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile("../testdata/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Frames) == 0 || len(v.Incomplete) == 0 || len(v.Bad) == 0 || len(v.Batches) == 0 || len(v.BadBatches) == 0 {
		t.Fatal("a kind of vector is missing")
	}
	return v
}

var limits = map[string]func(frame.Op) int{"none": nil, "handshake": frame.HandshakeLimit, "client": frame.ClientLimit}

var kinds = map[string]error{
	"incomplete": frame.ErrIncomplete,
	"header_len": frame.ErrHeaderLen,
	"pack_len":   frame.ErrPackLen,
	"too_large":  frame.ErrTooLarge,
}

func same(a, b frame.Frame) bool {
	return a.Ver == b.Ver && a.Op == b.Op && a.Seq == b.Seq && bytes.Equal(a.Body, b.Body)
}

func TestFrameVectorsParseAndEncode(t *testing.T) {
	for _, v := range load(t).Frames {
		t.Run(v.Name, func(t *testing.T) {
			b, want := padded(t, v.Hex, v.Pad), v.frame(t)
			// What follows a frame must not matter.
			got, n, err := frame.Parse(append(bytes.Clone(b), 0xff, 0xff), nil)
			if err != nil || n != len(b) || !same(got, want) {
				t.Fatalf("parse: got %d bytes, %+v, %v, want %d, %+v", n, got, err, len(b), want)
			}
			if got := frame.Append([]byte("before"), want); !bytes.Equal(got, append([]byte("before"), b...)) {
				t.Fatalf("encode: got %x, want %x", got, b)
			}
			if got := want.Len(); got != len(b) {
				t.Fatalf("length: got %d, want %d", got, len(b))
			}
		})
	}
}

func TestLimitsAdmitTheirOwnLargestBody(t *testing.T) {
	for _, v := range load(t).Frames {
		b := padded(t, v.Hex, v.Pad)
		_, _, err := frame.Parse(b, frame.ClientLimit)
		if fits := len(b)-frame.HeaderLen <= frame.ClientLimit(v.Op); fits != (err == nil) {
			t.Errorf("%s: got %v, want an error: %v", v.Name, err, !fits)
		}
	}
}

func TestEveryCutOfAFrameIsIncomplete(t *testing.T) {
	for _, v := range load(t).Frames {
		if v.Pad > 300 {
			continue
		}
		b := padded(t, v.Hex, v.Pad)
		for cut := range b {
			_, n, err := frame.Parse(b[:cut], nil)
			want := 0
			if cut >= frame.HeaderLen {
				want = len(b)
			}
			if !errors.Is(err, frame.ErrIncomplete) || n != want {
				t.Fatalf("%s cut at %d: got %d, %v, want %d, %v", v.Name, cut, n, err, want, frame.ErrIncomplete)
			}
		}
	}
}

func TestIncompleteVectorsTellHowMuchIsNeeded(t *testing.T) {
	for _, v := range load(t).Incomplete {
		_, n, err := frame.Parse(padded(t, v.Hex, 0), nil)
		if !errors.Is(err, frame.ErrIncomplete) || n != v.Need {
			t.Errorf("%s: got %d, %v, want %d, %v", v.Name, n, err, v.Need, frame.ErrIncomplete)
		}
	}
}

func TestBadVectorsAreRefused(t *testing.T) {
	for _, v := range load(t).Bad {
		limit, known := limits[v.Limit]
		if !known {
			t.Fatalf("%s: unknown limit %q", v.Name, v.Limit)
		}
		if _, n, err := frame.Parse(padded(t, v.Hex, 0), limit); err == nil || !errors.Is(err, kinds[v.Error]) || n != 0 {
			t.Errorf("%s: got %d, %v, want 0, %s", v.Name, n, err, v.Error)
		}
	}
}

func TestBatchVectorsParseAndEncode(t *testing.T) {
	for _, v := range load(t).Batches {
		t.Run(v.Name, func(t *testing.T) {
			b := padded(t, v.Hex, 0)
			outer, n, err := frame.Parse(b, nil)
			if err != nil || n != len(b) || outer.Op != frame.OpBatch {
				t.Fatalf("outer: got %d, %+v, %v", n, outer, err)
			}
			var got []frame.Frame
			if err := frame.ParseBatch(outer.Body, func(f frame.Frame) bool { got = append(got, f); return true }); err != nil {
				t.Fatal(err)
			}
			if len(got) != len(v.Frames) {
				t.Fatalf("got %d frames, want %d", len(got), len(v.Frames))
			}
			for i, f := range v.Frames {
				if !same(got[i], f.frame(t)) {
					t.Errorf("frame %d: got %+v, want %+v", i, got[i], f.frame(t))
				}
			}
			if got := frame.AppendBatch(nil, got...); !bytes.Equal(got, b) {
				t.Errorf("encode: got %x, want %x", got, b)
			}
		})
	}
}

func TestBadBatchVectorsYieldWhatCameBefore(t *testing.T) {
	for _, v := range load(t).BadBatches {
		good := 0
		err := frame.ParseBatch(padded(t, v.Hex, 0)[frame.HeaderLen:], func(frame.Frame) bool { good++; return true })
		if err == nil || !errors.Is(err, kinds[v.Error]) || good != v.Good {
			t.Errorf("%s: got %d frames, %v, want %d, %s", v.Name, good, err, v.Good, v.Error)
		}
	}
}

func TestParseBatchStopsWhenToldTo(t *testing.T) {
	b := frame.AppendBatch(nil, frame.Frame{Op: 1000}, frame.Frame{Op: 1001}, frame.Frame{Op: 1002})
	var got []frame.Op
	if err := frame.ParseBatch(b[frame.HeaderLen:], func(f frame.Frame) bool { got = append(got, f.Op); return len(got) < 2 }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1] != 1001 {
		t.Errorf("got %v, want [1000 1001]", got)
	}
}

func TestAppendingToABodyLeavesTheNextFrameAlone(t *testing.T) {
	b := frame.Append(frame.Append(nil, frame.Frame{Op: 1000, Body: []byte("a")}), frame.Frame{Op: 1001})
	want := bytes.Clone(b)
	f, _, err := frame.Parse(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(f.Body, "overwritten"...)
	if !bytes.Equal(b, want) {
		t.Errorf("got %x, want %x", b, want)
	}
}

func TestCodecAllocatesNothing(t *testing.T) {
	f := frame.Frame{Ver: 1, Op: 1000, Body: []byte("hello")}
	dst := make([]byte, 0, 64)
	batch := frame.AppendBatch(nil, f, f, f)
	if n := testing.AllocsPerRun(100, func() {
		dst = frame.Append(dst[:0], f)
		if _, _, err := frame.Parse(dst, frame.ClientLimit); err != nil {
			t.Fatal(err)
		}
		if err := frame.ParseBatch(batch[frame.HeaderLen:], func(frame.Frame) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestBackendsCannotPushTheProtocolsOwnOps(t *testing.T) {
	for op, want := range map[frame.Op]bool{
		-1: false, 0: true, 1: false, 2: false, 3: false, 4: false, 5: true, 6: false, 7: false, 8: false, 9: false, 10: false, 17: false,
		18: true, 99: true, 100: false, 101: false, 102: false, 104: false, 199: false, 200: true, 999: true, 1000: true,
	} {
		if got := op.Pushable(); got != want {
			t.Errorf("op %d: got %v, want %v", op, got, want)
		}
	}
}

func TestOpsTellTheirNameOrNumber(t *testing.T) {
	for op, want := range map[frame.Op]string{frame.OpAuth: "auth", frame.OpRequestCall: "request_call", 1000: "1000", -7: "-7"} {
		if got := op.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzParse holds that whatever parses encodes to the bytes that it came from, and that no input makes Parse
// read beyond it, with any of the limits.
func FuzzParse(f *testing.F) {
	v := load(f)
	for _, x := range v.Frames {
		if x.Pad < 300 {
			f.Add(padded(f, x.Hex, x.Pad))
		}
	}
	for _, x := range v.Incomplete {
		f.Add(padded(f, x.Hex, 0))
	}
	for _, x := range v.Bad {
		f.Add(padded(f, x.Hex, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, limit := range limits {
			got, n, err := frame.Parse(b, limit)
			switch {
			case err == nil:
				if n > len(b) || !bytes.Equal(frame.Append(nil, got), b[:n]) {
					t.Fatalf("%s: %d bytes of %x parse to %+v", name, n, b, got)
				}
				if limit != nil && len(got.Body) > limit(got.Op) {
					t.Fatalf("%s: body of %d bytes passed", name, len(got.Body))
				}
			case errors.Is(err, frame.ErrIncomplete):
				if n != 0 && n <= len(b) {
					t.Fatalf("%s: %d bytes are there and %d are said to be needed", name, len(b), n)
				}
			case n != 0:
				t.Fatalf("%s: got n = %d with %v", name, n, err)
			}
		}
	})
}

// FuzzParseBatch holds that the frames of a body, put together again, are the body, or its beginning if it
// does not end with a frame's end.
func FuzzParseBatch(f *testing.F) {
	v := load(f)
	for _, x := range v.Batches {
		f.Add(padded(f, x.Hex, 0)[frame.HeaderLen:])
	}
	for _, x := range v.BadBatches {
		f.Add(padded(f, x.Hex, 0)[frame.HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var again []byte
		err := frame.ParseBatch(body, func(f frame.Frame) bool { again = frame.Append(again, f); return true })
		if !bytes.HasPrefix(body, again) || err == nil && len(again) != len(body) {
			t.Fatalf("%x came back as %x, %v", body, again, err)
		}
	})
}
