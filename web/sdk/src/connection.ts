import { type BackoffOptions, backoff, defaultBackoff } from "./backoff.ts";
import { ServerClock } from "./clock.ts";
import { Emitter } from "./emitter.ts";
import { HalleyError } from "./error.ts";
import { type Frame, Limit, Op } from "./frame.ts";
import type * as wire from "./gen/halley/v1/client.ts";
import { Link, type LinkOwner, type WebSocketConstructor } from "./link.ts";
import { watchNetwork } from "./network.ts";
import { Seen } from "./seen.ts";

/** Why a token is asked for: the first one, one that replaces a token soon to expire, or one that was refused. */
export type TokenReason = "connect" | "expiring" | "refused";

export interface ConnectionOptions {
  /**
   * WebSocket URL of a comet, or what tells one: called for each try, so that it can name another. attempt is 0 at
   * first and rises with each failure; when a server asks to leave without saying where to, it is 1 at least.
   */
  url: string | ((attempt: number) => string | Promise<string>);
  /** A JWT, or what fetches one. With a mere string the session ends when that expires. */
  token: string | ((reason: TokenReason) => string | Promise<string>);
  /** Rooms to be in from the start. */
  rooms?: Iterable<string>;
  /** Ops that pushes may have to reach this session; none: all. */
  accepts?: number[];
  backoff?: BackoffOptions;
  /** Milliseconds from opening a WebSocket to the auth reply [10,000]. */
  handshakeTimeout?: number;
  /** Milliseconds in which a heartbeat must be answered [10,000]. */
  heartbeatTimeout?: number;
  /** Milliseconds in which a request must be answered, waiting for a connection included [10,000]. */
  requestTimeout?: number;
  /** Milliseconds for which what comes on a new connection is held back for the old one's rest [5,000]. */
  holdTimeout?: number;
  webSocket?: WebSocketConstructor;
  /** Random numbers from 0 to 1, for tests. */
  random?: () => number;
}

/** Who the session is, as the server sees it. */
export interface Session {
  tenant: string;
  uid: string;
  /** The session's key: a backend reaches just this session by it. */
  key: string;
  /** Id of the connection; changes with each. */
  connection: string;
  /** Milliseconds since 1970 by the server's clock; 0: never. */
  expiresAt: number;
  /** The most rooms that the session may be in. */
  roomLimit: number;
  /** The server's clock minus ours in milliseconds, as far as it was known when the session began. */
  clockOffset: number;
  /** Where it is connected to. */
  url: string;
}

export type State =
  | { name: "idle" }
  /** attempt counts the tries that failed since the last good session. */
  | { name: "connecting"; attempt: number }
  /** moving: the server asked to leave, and a new connection is on its way while this one still works. */
  | { name: "online"; session: Session; moving: boolean }
  /** The next try is at until (milliseconds since 1970, by our own clock). */
  | { name: "waiting"; attempt: number; until: number; error: HalleyError }
  /** For good, by close() or because coming back makes no sense. */
  | { name: "closed"; error: HalleyError };

export interface ConnectionEvents {
  state: State;
  /** An event of the server; those of duplicate ids are gone already. */
  event: wire.Event;
  /** A push of a backend. */
  push: Push;
  /** Round trip of a heartbeat in milliseconds. */
  roundTrip: number;
  /** A session has begun, in the place of the one before if there was one. lost: rooms that it isn't in any more. */
  session: { session: Session; lost: string[]; first: boolean };
}

export interface Push {
  op: number;
  body: Uint8Array;
}

/** Name of a request, such as "room.join". */
export type Method = keyof wire.Request & keyof wire.Reply;
export type Params<M extends Method> = NonNullable<wire.Request[M]>;
export type Result<M extends Method> = NonNullable<wire.Reply[M]>;

type Timer = ReturnType<typeof setTimeout>;

/** Longest wait that setTimeout keeps to: more than 2^31 ms fires at once. */
const maxTimer = 0x7fffffff;
/** Milliseconds after which a session counts as a good one, and the next wait starts from the shortest again. */
const settled = 10_000;
/** Frames held back at most; beyond, order over two connections is given up rather than memory. */
const maxHeld = 10_000;
/** Room left for the token in an auth frame when rooms are put into it. */
const authRooms = 8 << 10;

/**
 * Connection keeps one session alive over as many WebSockets as it takes: it reconnects with jitter, renews the
 * token, and moves to another server when asked to, without losing or doubling what is on its way.
 */
export class Connection extends Emitter<ConnectionEvents> {
  /** The server's clock, as far as it is known. */
  readonly clock = new ServerClock();

  readonly #options: ConnectionOptions;
  readonly #random: () => number;
  readonly #rooms: Set<string>;
  readonly #seen = new Seen();
  readonly #waiters = new Set<() => void>();

  #state: State = { name: "idle" };
  /** The link that carries requests; opening or ready. */
  #link: Link | undefined;
  /** While moving: the one that is to take over, until it is ready. */
  #next: Link | undefined;
  /** After moving: the one that is being emptied. */
  #old: Link | undefined;
  #held: Frame[] | undefined;
  #attempt = 0;
  #refused = 0;
  #readyAt = 0;
  #token: string | undefined;
  /** The last session's connection id, for resume.replaces. */
  #connection = "";
  /** Rises whenever a try becomes void, so that its late token or URL finds itself out of date. */
  #epoch = 0;
  #retryTimer: Timer | undefined;
  #refreshTimer: Timer | undefined;
  #holdTimer: Timer | undefined;
  #unwatch: (() => void) | undefined;

  constructor(options: ConnectionOptions) {
    super();
    this.#options = options;
    this.#random = options.random ?? Math.random;
    this.#rooms = new Set(options.rooms);
  }

  get state(): State {
    return this.#state;
  }

  /** The session, while online. */
  get session(): Session | undefined {
    return this.#state.name === "online" ? this.#state.session : undefined;
  }

  /** Rooms that the session is in, or will be in again after a reconnect. */
  get rooms(): ReadonlySet<string> {
    return this.#rooms;
  }

  /** Connects, and stays connected until close(). Does nothing if it is under way already. */
  connect(): void {
    if (this.#state.name !== "idle" && this.#state.name !== "closed") return;
    this.#attempt = this.#refused = 0;
    this.#token = undefined;
    this.#unwatch = watchNetwork(
      () => this.#wake(),
      () => this.#link?.probe(3000),
    );
    void this.#try();
  }

  /** Ends the session. Requests that wait for an answer are rejected with `closed`. */
  close(): void {
    this.#closeWith(new HalleyError("closed", "closed"));
  }

  /** Tries at once instead of at the end of the wait. */
  retryNow(): void {
    if (this.#state.name === "waiting") void this.#try();
    else this.#link?.probe(3000);
  }

  #wake(): void {
    // A server that named a time is not to be asked before.
    if (this.#state.name !== "waiting" || this.#state.error.retryAfter === 0) this.retryNow();
  }

  /**
   * Asks the server. Without a connection it waits for one, as long as timeout allows. Rejects with HalleyError:
   * what the server says, `unavailable` if it was never sent, `unknown` if its outcome isn't known.
   */
  async request<M extends Method>(
    method: M,
    params: Params<M>,
    options: { timeout?: number; op?: number } = {},
  ): Promise<Result<M>> {
    const until = Date.now() + (options.timeout ?? this.#options.requestTimeout ?? 10_000);
    const link = await this.#online(until);
    return this.#ask(link, method, params, Math.max(1, until - Date.now()), options.op);
  }

  /** Puts the session into a room, and into it again after each reconnect. */
  async join(room: string): Promise<void> {
    await this.#change(room, "room.join", () => this.#rooms.add(room));
  }

  /** Takes the session out of a room. */
  async leave(room: string): Promise<void> {
    // First of all, so that a reconnect in the meantime doesn't join again.
    this.#rooms.delete(room);
    await this.#change(room, "room.leave", () => this.#rooms.delete(room));
  }

  /** Sends an application's frame (op 1000 and above) to the host's backend. Throws if not connected. */
  send(op: number, body: Uint8Array): void {
    if (!this.#link) throw new HalleyError("unavailable", "not connected");
    this.#link.send(op, body);
  }

  async #change(room: string, method: "room.join" | "room.leave", done: () => void): Promise<void> {
    const until = Date.now() + (this.#options.requestTimeout ?? 10_000);
    for (;;) {
      const link = await this.#online(until);
      try {
        await this.#ask(link, method, { room }, Math.max(1, until - Date.now()));
        done();
        if (link === this.#link) return;
      } catch (error) {
        if (link === this.#link || !(error instanceof HalleyError && error.code === "unknown")) throw error;
      }
      // It was on its way to a server that was left meanwhile: the new one may not know. Both requests may be repeated.
    }
  }

  async #ask<M extends Method>(link: Link, method: M, params: Params<M>, timeout: number, op: number = Op.Request): Promise<Result<M>> {
    const sent = Date.now();
    const reply = await link.request({ [method]: params }, op, timeout);
    const result = reply[method];
    if (!result) throw new HalleyError("internal", `the reply is none to ${method}`);
    if ("server_time" in result && result.server_time) this.clock.sample(sent, Date.now(), result.server_time);
    return result as Result<M>;
  }

  /** Resolves with the link as soon as there is a ready one. */
  #online(until: number): Promise<Link> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => settle(new HalleyError("unavailable", "not connected")), Math.max(0, until - Date.now()));
      const settle = (failure?: HalleyError) => {
        clearTimeout(timer);
        this.#waiters.delete(check);
        if (failure) reject(failure);
        else resolve(this.#link as Link);
      };
      const check = () => {
        if (this.#link?.ready) settle();
        else if (this.#state.name === "closed") settle(this.#state.error);
        else if (this.#state.name === "idle") settle(new HalleyError("unavailable", "connect() was not called"));
      };
      this.#waiters.add(check);
      check();
    });
  }

  #set(state: State): void {
    this.#state = state;
    for (const check of [...this.#waiters]) check();
    this.emit("state", state);
  }

  // ---- opening ----

  async #try(): Promise<void> {
    const epoch = ++this.#epoch;
    clearTimeout(this.#retryTimer);
    this.#set({ name: "connecting", attempt: this.#attempt });
    try {
      const link = await this.#open(epoch);
      if (link) this.#link = link;
    } catch (error) {
      if (epoch === this.#epoch) this.#failed(asError(error));
    }
  }

  /** Opens a link; undefined if that became void while the URL and the token were fetched. */
  async #open(epoch: number, url?: string): Promise<Link | undefined> {
    const { url: where, token } = this.#options;
    const target = url || (typeof where === "string" ? where : await where(this.#attempt + (this.#link ? 1 : 0)));
    if (this.#token === undefined) {
      const fresh = typeof token === "string" ? token : await token(this.#refused > 0 ? "refused" : "connect");
      if (epoch !== this.#epoch) return undefined;
      this.#token = fresh;
    }
    if (epoch !== this.#epoch) return undefined;
    const auth: wire.Auth = { token: this.#token };
    const rooms = fitting(this.#rooms);
    if (rooms.length > 0) auth.rooms = rooms;
    if (this.#options.accepts?.length) auth.accepts = this.#options.accepts;
    // After a break as well: the server may not know yet that the old connection is dead.
    if (this.#connection) auth.resume = { replaces: this.#connection };
    const webSocket = this.#options.webSocket ?? (globalThis.WebSocket as WebSocketConstructor | undefined);
    if (!webSocket) throw new HalleyError("internal", "no WebSocket here: give one with the option webSocket", { retry: false });
    return new Link(
      {
        url: target,
        auth,
        webSocket,
        handshakeTimeout: this.#options.handshakeTimeout ?? 10_000,
        heartbeatTimeout: this.#options.heartbeatTimeout ?? 10_000,
      },
      this.#owner,
    );
  }

  readonly #owner: LinkOwner = {
    ready: (link, reply, sentAt) => this.#ready(link, reply, sentAt),
    frame: (link, frame) => this.#frame(link, frame),
    roundTrip: (link, ms) => {
      if (link === this.#link) this.emit("roundTrip", ms);
    },
    end: (link, error) => this.#ended(link, error),
  };

  #ready(link: Link, reply: wire.AuthReply, sentAt: number): void {
    if (link === this.#next) this.#takeOver(link);
    const first = this.#connection === "";
    this.#readyAt = Date.now();
    this.#refused = 0;
    this.#connection = reply.connection ?? "";
    if (reply.server_time) this.clock.sample(sentAt, Date.now(), reply.server_time);

    const now = new Set(reply.rooms);
    const missing = [...this.#rooms].filter((room) => !now.has(room));
    const lost = missing.filter((room) => link.asked.has(room));
    // While the auth frame was on its way, rooms were left over the old connection;
    const left = [...link.asked].filter((room) => now.has(room) && !this.#rooms.has(room));
    for (const room of lost) this.#rooms.delete(room);
    for (const room of now) this.#rooms.add(room);
    for (const room of left) {
      this.#rooms.delete(room);
      this.#ask(link, "room.leave", { room }, 10_000).catch(() => {});
    }
    // others were joined, or the auth frame had no room for them.
    for (const room of missing) {
      if (!link.asked.has(room)) this.#ask(link, "room.join", { room }, 10_000).catch(() => this.#rooms.delete(room));
    }

    const session: Session = {
      tenant: reply.tenant || "default",
      uid: reply.uid ?? "",
      key: reply.key ?? "",
      connection: this.#connection,
      expiresAt: reply.expires_at ?? 0,
      roomLimit: reply.room_limit ?? 0,
      clockOffset: this.clock.offset,
      url: link.url,
    };
    this.#scheduleRefresh(link, session.expiresAt);
    this.#set({ name: "online", session, moving: false });
    this.emit("session", { session, lost, first });
  }

  #failed(error: HalleyError): void {
    if (error.isTokenError && typeof this.#options.token === "function" && this.#refused === 0) {
      // A newer token may help, once. If that is refused too, the next try won't be better.
      this.#refused++;
      this.#token = undefined;
      if (this.#attempt === 0) {
        this.#attempt++;
        void this.#try();
        return;
      }
    } else if (!error.retry) {
      this.#closeWith(error);
      return;
    }
    const wait = backoff(this.#attempt++, this.#options.backoff ?? defaultBackoff, error.retryAfter, this.#random);
    this.#retryTimer = setTimeout(() => void this.#try(), wait);
    this.#set({ name: "waiting", attempt: this.#attempt, until: Date.now() + wait, error });
  }

  #ended(link: Link, error: HalleyError): void {
    switch (link) {
      case this.#old:
        this.#release();
        return;
      case this.#next:
        this.#next = undefined;
        this.#moveLater(error);
        return;
      case this.#link: {
        this.#release();
        clearTimeout(this.#refreshTimer);
        clearTimeout(this.#retryTimer);
        // Only a session that lasted proves that all is well: else a server that takes everybody in and throws
        // them out again would be stormed.
        if (link.session && Date.now() - this.#readyAt > settled) this.#attempt = 0;
        this.#link = undefined;
        if (this.#next) {
          // It was moving and the old one is gone already: the new one is now simply the one being opened.
          this.#link = this.#next;
          this.#next = undefined;
          this.#set({ name: "connecting", attempt: this.#attempt });
          return;
        }
        // Also stops a move that was about to begin.
        this.#epoch++;
        this.#failed(error);
        return;
      }
    }
  }

  #closeWith(error: HalleyError): void {
    if (this.#state.name === "closed") return;
    this.#epoch++;
    for (const timer of [this.#retryTimer, this.#refreshTimer]) clearTimeout(timer);
    this.#unwatch?.();
    const links = [this.#link, this.#next, this.#old];
    this.#link = this.#next = undefined;
    this.#release();
    this.#connection = "";
    this.#state = { name: "closed", error };
    for (const link of links) link?.close();
    this.#set({ name: "closed", error });
  }

  // ---- moving to another server ----

  #goAway(event: wire.GoAway): void {
    if (this.#state.name !== "online" || this.#state.moving) return;
    this.#set({ ...this.#state, moving: true });
    // The server paces its waves; this only takes the edge off one.
    const jitter = this.#random() * Math.min(1000, (event.grace_ms ?? 0) / 4);
    this.#retryTimer = setTimeout(() => void this.#move(event.url ?? ""), jitter);
  }

  async #move(url: string): Promise<void> {
    const epoch = ++this.#epoch;
    try {
      const link = await this.#open(epoch, url);
      if (link) this.#next = link;
    } catch (error) {
      if (epoch === this.#epoch) this.#moveLater(asError(error));
    }
  }

  /** The new connection didn't come to be. The old one lives on until the server ends it. */
  #moveLater(error: HalleyError): void {
    if (!error.retry) return; // Its end will tell.
    const wait = backoff(this.#attempt++, this.#options.backoff ?? defaultBackoff, error.retryAfter, this.#random);
    this.#retryTimer = setTimeout(() => void this.#move(""), wait);
  }

  /** The new link is ready: requests go there; what comes there waits until the old one is empty, that is closed. */
  #takeOver(link: Link): void {
    this.#old = this.#link;
    this.#link = link;
    this.#next = undefined;
    this.#held = [];
    this.#holdTimer = setTimeout(() => this.#release(), this.#options.holdTimeout ?? 5000);
  }

  /** Ends the old link, if there is one, and hands over what was held back. */
  #release(): void {
    clearTimeout(this.#holdTimer);
    const [old, held] = [this.#old, this.#held];
    this.#old = this.#held = undefined;
    old?.close(new HalleyError("going_away", "moved to another connection"));
    for (const frame of held ?? []) this.#deliver(frame);
  }

  // ---- what comes ----

  #frame(link: Link, frame: Frame): void {
    if (link === this.#link && this.#held) {
      this.#held.push(frame);
      if (this.#held.length > maxHeld) this.#release();
      return;
    }
    if (link === this.#link || link === this.#old) this.#deliver(frame, link);
  }

  #deliver(frame: Frame, link = this.#link): void {
    if (frame.op !== Op.Event) {
      this.emit("push", { op: frame.op, body: frame.body });
      return;
    }
    const event = JSON.parse(new TextDecoder().decode(frame.body)) as wire.Event;
    if (!this.#seen.add(event["room.message"]?.id ?? "")) return;
    if (event.go_away && link === this.#link) this.#goAway(event.go_away);
    this.emit("event", event);
  }

  // ---- the token's life ----

  #scheduleRefresh(link: Link, expiresAt: number): void {
    clearTimeout(this.#refreshTimer);
    const { token } = this.#options;
    if (!expiresAt || typeof token === "string") return;
    const left = expiresAt - this.clock.now();
    // A fifth of its life ahead, a minute at most: time for several tries.
    const ahead = Math.min(60_000, left / 5);
    const again = () => {
      this.#refreshTimer = setTimeout(() => void refresh(), Math.min(maxTimer, Math.max(1000, ahead / 4)));
    };
    const refresh = async () => {
      if (expiresAt - this.clock.now() > ahead + maxTimer / 2) {
        this.#scheduleRefresh(link, expiresAt); // The timer was at its limit.
        return;
      }
      try {
        const fresh = await token("expiring");
        if (link !== this.#link) return;
        const { expires_at } = await this.#ask(link, "session.refresh", { token: fresh }, 10_000);
        if (link !== this.#link) return;
        this.#token = fresh;
        if (this.#state.name === "online") {
          this.#set({ ...this.#state, session: { ...this.#state.session, expiresAt: expires_at ?? 0 } });
        }
        this.#scheduleRefresh(link, expires_at ?? 0);
      } catch {
        if (link === this.#link) again();
      }
    };
    this.#refreshTimer = setTimeout(() => void refresh(), Math.min(maxTimer, Math.max(0, left - ahead)));
  }
}

/** As many rooms as fit into an auth frame besides the token. */
function fitting(rooms: Iterable<string>): string[] {
  const out: string[] = [];
  let size = 0;
  for (const room of rooms) {
    // UTF-8 takes at most three bytes for each UTF-16 unit; quotes and comma.
    size += room.length * 3 + 3;
    if (size > Math.min(authRooms, Limit.auth)) break;
    out.push(room);
  }
  return out;
}

function asError(error: unknown): HalleyError {
  if (error instanceof HalleyError) return error;
  // A token or URL that can't be had now may be had later; a URL that is none (SyntaxError) won't get better.
  return new HalleyError("unavailable", error instanceof Error ? error.message : String(error), {
    retry: !(error instanceof Error && error.name === "SyntaxError"),
  });
}
