import { Connection, type ConnectionOptions, type Method, type Params, type Push, type Result, type Session, type State } from "./connection.ts";
import type { ServerClock } from "./clock.ts";
import { Emitter } from "./emitter.ts";
import { Op } from "./frame.ts";
import type * as wire from "./gen/halley/v1/client.ts";

export type JsonValue = wire.JsonValue;

/** A message of a member of a room. */
export interface RoomMessage {
  id: string;
  room: string;
  from: string;
  body: JsonValue;
  /** When the server took it, in milliseconds since 1970 by its clock. */
  serverTime: number;
  /** Milliseconds from there to here, by the estimate of the server's clock; never below 0. */
  latency: number;
}

/** Who came and who went; in rooms of more than 200 only the count is told. */
export interface RoomChange {
  room: string;
  joined: string[];
  left: string[];
  /** Sessions in the room. */
  count: number;
}

export interface MemberPage {
  uids: string[];
  /** Cursor of the next page; empty on the last. */
  next: string;
  /** Sessions in the room. */
  count: number;
  /** Whether uids are all that are in the room. */
  complete: boolean;
}

export interface Presence {
  uid: string;
  online: boolean;
  platforms: string[];
  /** Milliseconds since 1970; 0 while online or if never seen. */
  lastSeen: number;
}

export interface ClientEvents {
  state: State;
  /** A session has begun; lost: rooms that it is not in any more. */
  session: { session: Session; lost: string[]; first: boolean };
  message: RoomMessage;
  members: RoomChange;
  presence: Presence;
  /** A push of a backend. */
  push: Push;
  /** The client reads too slowly; so many pushes were dropped for it. */
  lagged: number;
  /** Something may have been missed: ask for what is new. */
  resync: void;
  /** The server asked to move on; the connection does so by itself. */
  goAway: wire.GoAway;
  /** An event of none of these kinds, as it came. */
  event: wire.Event;
  /** Round trip of a heartbeat in milliseconds. */
  roundTrip: number;
}

/** A client of Halley: rooms, pushes and presence over one connection that keeps itself alive. */
export class Client extends Emitter<ClientEvents> {
  readonly #connection: Connection;
  readonly #watched = new Set<string>();

  constructor(options: ConnectionOptions) {
    super();
    const c = (this.#connection = new Connection(options));
    c.on("state", (state) => this.emit("state", state));
    c.on("roundTrip", (ms) => this.emit("roundTrip", ms));
    c.on("push", (push) => this.emit("push", push));
    c.on("event", (event) => this.#event(event));
    c.on("session", (event) => {
      this.emit("session", event);
      // The server keeps watches by connection. What it answers is told like any change.
      if (this.#watched.size > 0) this.watch([...this.#watched]).then((all) => all.forEach((p) => this.emit("presence", p)), () => {});
    });
  }

  get state(): State {
    return this.#connection.state;
  }

  get session(): Session | undefined {
    return this.#connection.session;
  }

  get clock(): ServerClock {
    return this.#connection.clock;
  }

  /** Rooms that the session is in, or will be in again after a reconnect. */
  get rooms(): ReadonlySet<string> {
    return this.#connection.rooms;
  }

  connect(): void {
    this.#connection.connect();
  }

  close(): void {
    this.#connection.close();
  }

  /** Tries to connect at once instead of at the end of the wait. */
  retryNow(): void {
    this.#connection.retryNow();
  }

  join(room: string): Promise<void> {
    return this.#connection.join(room);
  }

  leave(room: string): Promise<void> {
    return this.#connection.leave(room);
  }

  /**
   * Sends to everybody in a room that one is in; with echo to oneself too. An error `unknown` means that it may
   * have been sent.
   */
  async say(room: string, body: JsonValue, options: { echo?: boolean } = {}): Promise<{ id: string; serverTime: number }> {
    const sent = await this.request("room.send", { room, body, echo: options.echo ?? false });
    return { id: sent.id ?? "", serverTime: sent.server_time ?? 0 };
  }

  /** One page of who is in a room that one is in. */
  async members(room: string, options: { cursor?: string; limit?: number } = {}): Promise<MemberPage> {
    const page = await this.#connection.request("room.members", { room, ...options }, { op: Op.RequestUnordered });
    return { uids: page.uids ?? [], next: page.next ?? "", count: page.count ?? 0, complete: page.complete ?? false };
  }

  /** Tells how users are now and, by `presence` events, from now on, over reconnects too. */
  async watch(uids: string[]): Promise<Presence[]> {
    const { states } = await this.request("presence.watch", { uids });
    for (const uid of uids) this.#watched.add(uid);
    return (states ?? []).map(presence);
  }

  async unwatch(uids: string[]): Promise<void> {
    for (const uid of uids) this.#watched.delete(uid);
    await this.request("presence.unwatch", { uids });
  }

  /** Sends an application's frame (op 1000 and above) to the host's backend. */
  send(op: number, body: Uint8Array | string): void {
    this.#connection.send(op, typeof body === "string" ? new TextEncoder().encode(body) : body);
  }

  /** Any request by its name; with op 103 (RequestUnordered), for what only reads, it overtakes those that wait. */
  request<M extends Method>(method: M, params: Params<M>, options: { timeout?: number; op?: number } = {}): Promise<Result<M>> {
    return this.#connection.request(method, params, options);
  }

  #event(e: wire.Event): void {
    const message = e["room.message"];
    const member = e["room.member"];
    if (message) {
      const serverTime = message.server_time ?? 0;
      this.emit("message", {
        id: message.id ?? "",
        room: message.room ?? "",
        from: message.from ?? "",
        body: message.body ?? null,
        serverTime,
        latency: Math.max(0, this.clock.now() - serverTime),
      });
    } else if (member) {
      this.emit("members", { room: member.room ?? "", joined: member.joined ?? [], left: member.left ?? [], count: member.count ?? 0 });
    } else if (e.presence) this.emit("presence", presence(e.presence));
    else if (e.lagged) this.emit("lagged", e.lagged.dropped ?? 0);
    else if (e.resync) this.emit("resync", undefined);
    else if (e.go_away) this.emit("goAway", e.go_away);
    else this.emit("event", e);
  }
}

function presence(p: wire.Presence): Presence {
  return { uid: p.uid ?? "", online: p.online ?? false, platforms: p.platforms ?? [], lastSeen: p.last_seen ?? 0 };
}
