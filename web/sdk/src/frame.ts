// The codec of the binary frame, as in proto/frame: a 16-byte big-endian header and a body. It is held to the
// same vectors, proto/testdata/frames.json. Nothing here knows of sockets.

/** Length of a frame's header in bytes; its header length field carries it. */
export const HEADER_LEN = 16;

/** Body version: JSON. */
export const VER = 1;

/** Operations. Numbers from `Application` up belong to applications. */
export const Op = {
  Heartbeat: 2,
  HeartbeatReply: 3,
  Auth: 7,
  AuthReply: 8,
  Batch: 9,
  Request: 100,
  Reply: 101,
  Event: 102,
  RequestUnordered: 103,
  RequestCall: 104,
  Application: 1000,
} as const;

/** Largest bodies in bytes that a server takes from a client. */
export const Limit = {
  body: 4096,
  auth: 16 << 10,
  request: 256 << 10,
} as const;

/** Returns the largest body in bytes that an authenticated client may send with op. */
export function clientLimit(op: number): number {
  switch (op) {
    case Op.Request:
    case Op.RequestUnordered:
    case Op.RequestCall:
      return Limit.request;
    case Op.Auth:
      return Limit.auth;
    default:
      return Limit.body;
  }
}

/** Returns the largest body in bytes that a client may send before authentication. */
export function handshakeLimit(_op: number): number {
  return Limit.auth;
}

export interface Frame {
  /** int16 */
  ver: number;
  /** int32 */
  op: number;
  /** int32 */
  seq: number;
  body: Uint8Array;
}

export type FrameErrorKind = "incomplete" | "header_len" | "pack_len" | "too_large";

/** What is wrong with bytes that should be a frame. Only `incomplete` can heal, by more bytes. */
export class FrameError extends Error {
  override readonly name = "FrameError";
  constructor(
    readonly kind: FrameErrorKind,
    /** `incomplete`: how long the whole frame will be, 0 while its header isn't there. */
    readonly need = 0,
  ) {
    super(`frame: ${kind}`);
  }
}

const empty = new Uint8Array();

/** Encodes a frame. Throws RangeError if a number doesn't fit its field. */
export function encode(op: number, seq: number, body: Uint8Array = empty, ver: number = VER): Uint8Array<ArrayBuffer> {
  if (ver !== (ver << 16) >> 16 || op !== (op | 0) || seq !== (seq | 0)) {
    throw new RangeError(`frame: ver ${ver}, op ${op} or seq ${seq} does not fit`);
  }
  const out = new Uint8Array(HEADER_LEN + body.length);
  const view = new DataView(out.buffer);
  view.setInt32(0, out.length);
  view.setInt16(4, HEADER_LEN);
  view.setInt16(6, ver);
  view.setInt32(8, op);
  view.setInt32(12, seq);
  out.set(body, HEADER_LEN);
  return out;
}

/**
 * Reads the first frame of bytes and returns it with the number of bytes that it took. The body is a view of
 * bytes, not a copy. Throws FrameError. limit returns the largest body for an operation.
 */
export function parse(bytes: Uint8Array, limit?: (op: number) => number): { frame: Frame; length: number } {
  if (bytes.length < HEADER_LEN) throw new FrameError("incomplete");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getInt32(0);
  if (view.getInt16(4) !== HEADER_LEN) throw new FrameError("header_len");
  if (length < HEADER_LEN) throw new FrameError("pack_len");
  const op = view.getInt32(8);
  if (limit && length - HEADER_LEN > limit(op)) throw new FrameError("too_large");
  if (bytes.length < length) throw new FrameError("incomplete", length);
  return {
    frame: { ver: view.getInt16(6), op, seq: view.getInt32(12), body: bytes.subarray(HEADER_LEN, length) },
    length,
  };
}

/** Yields the frames that lie end to end in the body of an op 9 frame. Throws FrameError after the good ones. */
export function* parseBatch(body: Uint8Array): Generator<Frame, void, undefined> {
  for (let rest = body; rest.length > 0; ) {
    const { frame, length } = parse(rest);
    yield frame;
    rest = rest.subarray(length);
  }
}

/**
 * Yields the frames of one WebSocket message: the frame that it holds or, if that is an op 9, those inside it.
 * Bytes behind the outer frame are ignored, as servers do.
 */
export function* parseMessage(bytes: Uint8Array): Generator<Frame, void, undefined> {
  const { frame } = parse(bytes);
  if (frame.op === Op.Batch) yield* parseBatch(frame.body);
  else yield frame;
}
