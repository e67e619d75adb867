import { HalleyError } from "./error.ts";
import { clientLimit, encode, type Frame, FrameError, handshakeLimit, Op, parseMessage } from "./frame.ts";
import type * as wire from "./gen/halley/v1/client.ts";

/** What a Link needs of the platform's WebSocket; those of browsers and of Node 22 are such. */
export interface WebSocketLike {
  binaryType: string;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
}

export type WebSocketConstructor = new (url: string) => WebSocketLike;

export interface LinkOptions {
  url: string;
  auth: wire.Auth;
  webSocket: WebSocketConstructor;
  /** Milliseconds from the constructor to the auth reply. */
  handshakeTimeout: number;
  /** Milliseconds in which a heartbeat must be answered. */
  heartbeatTimeout: number;
}

/** What a Link tells its owner, in this order: ready at most once, frames and round trips, end exactly once. */
export interface LinkOwner {
  ready(link: Link, reply: wire.AuthReply, sentAt: number): void;
  /** A frame that is no answer: an event or a push. */
  frame(link: Link, frame: Frame): void;
  /** A heartbeat's round trip in milliseconds. */
  roundTrip(link: Link, ms: number): void;
  /** The link is over; it says nothing more. */
  end(link: Link, error: HalleyError): void;
}

interface Pending {
  resolve(reply: wire.Reply): void;
  reject(error: HalleyError): void;
  timer: Timer;
}

type Timer = ReturnType<typeof setTimeout>;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * Link is one WebSocket from its opening to its end: authentication, heartbeats, requests and their replies. It
 * doesn't come back; that is Connection's task.
 */
export class Link {
  readonly url: string;
  /** Rooms that its auth frame asked for. */
  readonly asked: ReadonlySet<string>;
  /** The auth reply; undefined until ready. */
  session: wire.AuthReply | undefined;

  readonly #options: LinkOptions;
  readonly #owner: LinkOwner;
  readonly #socket: WebSocketLike;
  readonly #pending = new Map<number, Pending>();
  #seq = 0;
  #over = false;
  #authSentAt = 0;
  #closing: HalleyError | undefined;
  #handshake: Timer | undefined;
  #beat: Timer | undefined;
  #beatAnswer: Timer | undefined;
  #beatSentAt = 0;

  /** Throws SyntaxError if the URL is no WebSocket's. */
  constructor(options: LinkOptions, owner: LinkOwner) {
    this.url = options.url;
    this.asked = new Set(options.auth.rooms);
    this.#options = options;
    this.#owner = owner;
    const socket = (this.#socket = new options.webSocket(options.url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (this.#over) return;
      const body = encoder.encode(JSON.stringify(options.auth));
      if (body.length > handshakeLimit(Op.Auth)) {
        this.#end(new HalleyError("too_large", "token and rooms are larger than a server takes"));
        return;
      }
      this.#authSentAt = Date.now();
      socket.send(encode(Op.Auth, this.#nextSeq(), body));
    };
    socket.onmessage = (event: { data: unknown }) => this.#receive(event.data);
    socket.onclose = (event: { code: number; reason: string }) => {
      this.#end(this.#closing ?? HalleyError.fromClose(event.code, event.reason));
    };
    // What it was is told by close, which follows. In Node an error that nobody hears ends the process.
    socket.onerror = () => {};
    this.#handshake = setTimeout(() => {
      this.#end(new HalleyError("unavailable", "no answer from the server"));
    }, options.handshakeTimeout);
  }

  /** Whether it is authenticated and not over. */
  get ready(): boolean {
    return this.session !== undefined && !this.#over;
  }

  /**
   * Sends a request. Rejects with the error of the reply, with `unknown` when timeout milliseconds went by or the
   * link ended before it was answered, and with `too_large` without sending it.
   */
  request(request: wire.Request, op: number, timeout: number): Promise<wire.Reply> {
    return new Promise((resolve, reject) => {
      if (!this.ready) {
        reject(new HalleyError("unavailable", "not connected"));
        return;
      }
      const body = encoder.encode(JSON.stringify(request));
      if (body.length > clientLimit(op)) {
        reject(new HalleyError("too_large", `a request may have ${clientLimit(op)} bytes, this one has ${body.length}`));
        return;
      }
      const seq = this.#nextSeq();
      const timer = setTimeout(() => {
        this.#pending.delete(seq);
        reject(new HalleyError("unknown", "not answered in time"));
      }, timeout);
      this.#pending.set(seq, { resolve, reject, timer });
      this.#socket.send(encode(op, seq, body));
    });
  }

  /** Sends an application's frame to the host's backend; there is no answer worth waiting for. */
  send(op: number, body: Uint8Array): void {
    if (!this.ready) throw new HalleyError("unavailable", "not connected");
    if (body.length > clientLimit(op)) throw new HalleyError("too_large", `a frame may have ${clientLimit(op)} bytes`);
    this.#socket.send(encode(op, this.#nextSeq(), body));
  }

  /** Sends a heartbeat now; the link ends if it isn't answered within timeout milliseconds. */
  probe(timeout = this.#options.heartbeatTimeout): void {
    if (!this.ready) return;
    clearTimeout(this.#beat);
    this.#beat = setTimeout(() => this.probe(), (this.session?.heartbeat || 30) * 1000);
    if (this.#beatAnswer === undefined) {
      this.#beatSentAt = Date.now();
      this.#socket.send(encode(Op.Heartbeat, this.#nextSeq()));
    } else {
      clearTimeout(this.#beatAnswer); // Still waiting for the last one: that one decides, in the shorter time.
    }
    this.#beatAnswer = setTimeout(() => {
      this.#end(new HalleyError("unavailable", "the server doesn't answer heartbeats"));
    }, timeout);
  }

  /** Ends the link. What was asked and not answered is rejected with error, or with `unknown`. */
  close(error = new HalleyError("closed", "closed")): void {
    this.#end(error);
  }

  #nextSeq(): number {
    // int32; 0 is what pushes carry.
    this.#seq = this.#seq === 0x7fffffff ? 1 : this.#seq + 1;
    return this.#seq;
  }

  #receive(data: unknown): void {
    if (this.#over) return;
    try {
      if (!(data instanceof ArrayBuffer)) throw new SyntaxError("a text message");
      for (const frame of parseMessage(new Uint8Array(data))) {
        if (this.#over) return;
        this.#dispatch(frame);
      }
    } catch (error) {
      // What the owner throws is not the server's fault.
      if (!(error instanceof FrameError || error instanceof SyntaxError)) throw error;
      this.#end(new HalleyError("invalid_frame", "the server sent what can't be read"));
    }
  }

  #dispatch(frame: Frame): void {
    switch (frame.op) {
      case Op.AuthReply:
        if (!this.session) this.#authenticated(frame);
        return;
      case Op.HeartbeatReply:
        if (this.#beatAnswer === undefined) return;
        clearTimeout(this.#beatAnswer);
        this.#beatAnswer = undefined;
        this.#owner.roundTrip(this, Date.now() - this.#beatSentAt);
        return;
      case Op.Reply: {
        const pending = this.#pending.get(frame.seq);
        if (!pending) return; // Answered too late.
        this.#pending.delete(frame.seq);
        clearTimeout(pending.timer);
        const reply = json<wire.Reply>(frame.body);
        if (reply.error) pending.reject(HalleyError.fromWire(reply.error));
        else pending.resolve(reply);
        return;
      }
      case Op.Event: {
        // The last event tells more than the close code that follows.
        const error = json<wire.Event>(frame.body).closing?.error;
        if (error) this.#closing = HalleyError.fromWire(error);
        break;
      }
    }
    if (this.session) this.#owner.frame(this, frame);
  }

  #authenticated(frame: Frame): void {
    const reply = json<wire.AuthReply>(frame.body);
    if (reply.error) {
      this.#end(HalleyError.fromWire(reply.error));
      return;
    }
    clearTimeout(this.#handshake);
    this.session = reply;
    this.#owner.ready(this, reply, this.#authSentAt);
    // At once, so that the round trip is known from the start.
    this.probe();
  }

  #end(error: HalleyError): void {
    if (this.#over) return;
    this.#over = true;
    for (const timer of [this.#handshake, this.#beat, this.#beatAnswer]) clearTimeout(timer);
    // The socket's own end is of no interest any more, nor is what it may still hold. onerror stays: it may yet fail.
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    try {
      this.#socket.close(1000);
    } catch {
      // Browsers throw nothing here, other implementations may while the socket is opening.
    }
    const closed = error.code === "closed";
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(closed ? error : new HalleyError("unknown", "the connection ended before the answer"));
    }
    this.#pending.clear();
    this.#owner.end(this, error);
  }
}

function json<T>(body: Uint8Array): T {
  return body.length === 0 ? ({} as T) : (JSON.parse(decoder.decode(body)) as T);
}
