import { type Frame, encode, Op, parse } from "../src/frame.ts";
import type * as wire from "../src/gen/halley/v1/client.ts";
import type { WebSocketLike } from "../src/link.ts";

/**
 * One end of a WebSocket whose other end is the test: nothing happens on it but what the test says, so that each
 * order of events can be had.
 */
export class FakeSocket implements WebSocketLike {
  binaryType = "blob";
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  /** What the client sent and the test has not looked at. */
  readonly sent: Frame[] = [];
  closed = false;

  constructor(readonly url: string) {
    if (!/^wss?:/.test(url)) throw new SyntaxError(`${url} is no WebSocket URL`);
  }

  send(data: Uint8Array<ArrayBuffer>): void {
    if (this.closed) return;
    this.sent.push(parse(data.slice()).frame);
  }

  close(): void {
    this.closed = true;
  }

  // ---- the server's side ----

  open(): void {
    this.onopen?.({} as never);
  }

  /** Takes the oldest frame that the client sent; it must be of that op. */
  take(op: number): { seq: number; json: any; body: Uint8Array } {
    const frame = this.sent.shift();
    if (frame?.op !== op) throw new Error(`got op ${frame?.op}, want ${op}`);
    const text = new TextDecoder().decode(frame.body);
    return { seq: frame.seq, json: text ? JSON.parse(text) : undefined, body: frame.body };
  }

  /** Sends one frame as one message. */
  frame(op: number, seq = 0, body: unknown = undefined): void {
    this.raw(encode(op, seq, body === undefined ? undefined : new TextEncoder().encode(JSON.stringify(body))));
  }

  /** Sends events or pushes, as servers do, inside one op 9. */
  batch(...frames: { op?: number; body: unknown }[]): void {
    const inner = frames.map(({ op = Op.Event, body }) => encode(op, 0, new TextEncoder().encode(JSON.stringify(body))));
    this.raw(encode(Op.Batch, 0, Buffer.concat(inner)));
  }

  event(...events: wire.Event[]): void {
    this.batch(...events.map((body) => ({ body })));
  }

  raw(data: Uint8Array): void {
    const message = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
    this.onmessage?.({ data: message } as never);
  }

  /** Ends the connection from the server's side, or the network's (1006). */
  end(code = 1006, reason = ""): void {
    this.closed = true;
    // As `ws` does it: an error that nobody hears is thrown.
    if (code === 1006) {
      if (!this.onerror) throw new Error("unheard error");
      this.onerror({} as never);
    }
    this.onclose?.({ code, reason } as never);
  }

  /** Opens, checks that an auth frame comes, answers it and the first heartbeat. Returns the auth body. */
  accept(reply: Partial<wire.AuthReply> = {}): wire.Auth {
    this.open();
    const auth = this.take(Op.Auth);
    this.frame(Op.AuthReply, auth.seq, {
      tenant: "default",
      uid: "ann",
      key: "k",
      connection: `c.${this.url}`,
      heartbeat: 30,
      idle_timeout: 75,
      server_time: Date.now(),
      rooms: auth.json.rooms,
      ...reply,
    });
    if (!this.closed && !reply.error) this.beat();
    return auth.json;
  }

  /** Answers the heartbeat that was sent, wherever it is among other frames. */
  beat(): void {
    const at = this.sent.findIndex((f) => f.op === Op.Heartbeat);
    const [beat] = this.sent.splice(at, 1);
    if (at < 0 || !beat) throw new Error("no heartbeat was sent");
    this.frame(Op.HeartbeatReply, beat.seq);
  }

  /** Answers the oldest request and returns it. */
  answer(reply: wire.Reply, op: number = Op.Request): wire.Request {
    const request = this.take(op);
    this.frame(Op.Reply, request.seq, reply);
    return request.json;
  }
}

/** Makes a WebSocket class, and keeps what is made of it. */
export function fakeWebSocket() {
  const sockets: FakeSocket[] = [];
  class Socket extends FakeSocket {
    constructor(url: string) {
      super(url);
      sockets.push(this);
    }
  }
  return {
    webSocket: Socket,
    sockets,
    /** The one that was opened last. */
    get last(): FakeSocket {
      const last = sockets.at(-1);
      if (!last) throw new Error("no socket was opened");
      return last;
    },
  };
}
