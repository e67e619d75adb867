// What the page knows, as signals: the session, its rooms, what came. No DOM here.
import { batch, computed, signal } from "@preact/signals";
import { Client, HalleyError, type Push, type RoomMessage, type Session, type State } from "@halley-im/sdk";
import * as api from "../api.ts";
import { bodyText, duration, roomLabel } from "../format.ts";

export interface Line {
  id: string;
  from: string;
  mine: boolean;
  body: unknown;
  /** By our own clock, in milliseconds since 1970. */
  at: number;
  /** Others': from the server to here. Mine: until the server had it. Undefined while it is on its way. */
  took?: number;
  failed?: string;
}

export interface Room {
  name: string;
  lines: Line[];
  uids: string[];
  /** Sessions in it. */
  count: number;
  /** Whether uids are all. */
  complete: boolean;
  unread: number;
}

export interface Received {
  id: number;
  op: number;
  from: string;
  text: string;
  at: number;
  took?: number;
}

export interface LogEntry {
  id: number;
  at: number;
  kind: "link" | "room" | "push" | "error";
  text: string;
}

export type TargetKind = "user" | "room" | "all";

/** What a page needs to connect: from the demo log-in, or given by hand. */
export interface Credentials {
  /** Log in by this name again when the token ends; empty: the token is all there is. */
  name: string;
  token: string;
  pushKey: string;
}

/** The op of the page's own pushes; any from 1000 up would do. */
export const pushOp = 1000;
/** How much of each list is kept. */
const keepLines = 500;
const keepLog = 200;

let lastId = 0;

/** One person's session on the page. */
export class Playground {
  readonly state = signal<State>({ name: "idle" });
  readonly session = signal<Session | undefined>(undefined);
  readonly rooms = signal<ReadonlyMap<string, Room>>(new Map());
  /** Name of the room in view; empty: the pushes. */
  readonly current = signal("");
  readonly pushes = signal<Received[]>([]);
  readonly unreadPushes = signal(0);
  readonly log = signal<LogEntry[]>([]);
  /** Round trip of the last heartbeat in milliseconds. */
  readonly roundTrip = signal<number | undefined>(undefined);
  readonly canPush: boolean;

  readonly room = computed(() => this.rooms.value.get(this.current.value));
  readonly uid = computed(() => this.session.value?.uid ?? "");

  readonly #client: Client;
  /** How often somebody came into a room or left it. */
  readonly #changes = new Map<string, number>();
  #credentials: Credentials;

  constructor(credentials: Credentials, rooms: string[], first: api.Endpoint[] = []) {
    this.#credentials = credentials;
    this.canPush = credentials.pushKey !== "";
    this.rooms.value = new Map(rooms.map((name) => [name, emptyRoom(name)]));
    this.current.value = rooms[0] ?? "";
    const client = (this.#client = new Client({
      url: (attempt) => api.cometUrl(attempt, first),
      token: (reason) => this.#token(reason),
      rooms,
    }));
    client.on("state", (state) => this.#stateChanged(state));
    client.on("session", ({ session, lost, first }) => this.#sessionBegan(session, lost, first));
    client.on("message", (message) => this.#messageCame(message));
    client.on("members", ({ room, joined, left, count }) => this.#membersChanged(room, joined, left, count));
    client.on("push", (push) => this.#pushCame(push));
    client.on("roundTrip", (ms) => (this.roundTrip.value = ms));
    client.on("lagged", (n) => this.#note("error", `This page reads too slowly: ${n} pushes were dropped for it.`));
    client.on("resync", () => {
      this.#note("link", "Something may have been missed; asking for what is new.");
      for (const name of this.rooms.value.keys()) void this.#loadMembers(name);
    });
    client.on("goAway", () => this.#note("link", "The server is leaving; moving to another one."));
  }

  connect(): void {
    this.#client.connect();
  }

  close(): void {
    this.#client.close();
  }

  retryNow(): void {
    this.#client.retryNow();
  }

  /** Shows a room, or the pushes (""). */
  show(name: string): void {
    batch(() => {
      this.current.value = name;
      if (name === "") this.unreadPushes.value = 0;
      else this.#update(name, { unread: 0 });
    });
  }

  /** Joins a room and shows it. Rejects with HalleyError. */
  async join(name: string): Promise<void> {
    if (!this.rooms.value.has(name)) {
      await this.#client.join(name);
      this.rooms.value = new Map(this.rooms.value).set(name, emptyRoom(name));
      this.#note("room", `You joined ${roomLabel(name)}.`);
      void this.#loadMembers(name);
    }
    this.show(name);
  }

  async leave(name: string): Promise<void> {
    this.#drop(name);
    await this.#client.leave(name).catch((error: unknown) => this.#failed("Leaving", error));
    this.#note("room", `You left ${roomLabel(name)}.`);
  }

  /** Says something in the room in view. What fails is marked so, and can be said again. */
  async say(body: string): Promise<void> {
    const room = this.current.value;
    const line: Line = { id: `local-${++lastId}`, from: this.uid.value, mine: true, body, at: Date.now() };
    this.#addLine(room, line);
    await this.#say(room, line);
  }

  async sayAgain(id: string): Promise<void> {
    const room = this.current.value;
    const line = this.rooms.value.get(room)?.lines.find((l) => l.id === id);
    if (!line) return;
    const { failed: _, ...again } = line;
    this.#changeLine(room, again);
    await this.#say(room, again);
  }

  async #say(room: string, line: Line): Promise<void> {
    const began = performance.now();
    try {
      await this.#client.say(room, String(line.body));
      this.#changeLine(room, { ...line, took: performance.now() - began });
    } catch (error) {
      this.#changeLine(room, { ...line, failed: reason(error) });
      this.#failed("Sending", error);
    }
  }

  /** Pushes a text through the HTTP API, as a backend would. Returns the push's id; rejects with ApiError. */
  async push(kind: TargetKind, name: string, text: string): Promise<string> {
    const target: api.PushTarget = kind === "user" ? { uids: [name] } : kind === "room" ? { rooms: [name] } : { all: true };
    // sent lets the receiver tell the latency; it is the server's clock as both sides know it.
    const body = { text, from: this.uid.value, sent: Math.round(this.#client.clock.now()) };
    const send = () => api.push(this.#credentials.pushKey, target, pushOp, body);
    const { id } = await send().catch(async (error: unknown) => {
      // The key of the demo log-in lives for an hour; a new log-in brings a new one.
      if (!(error instanceof api.ApiError && error.status === 401) || !this.#credentials.name) throw error;
      await this.#token("refused");
      return send();
    });
    this.#note("push", `Push to ${kind === "all" ? "everybody" : kind === "room" ? roomLabel(name) : name} accepted.`);
    return id;
  }

  // ---- what comes ----

  #stateChanged(state: State): void {
    const before = this.state.value;
    batch(() => {
      this.state.value = state;
      if (state.name === "online") this.session.value = state.session;
      if (state.name !== "online") this.roundTrip.value = undefined;
      if (state.name === "waiting" && before.name !== "waiting") this.#note("error", `Not connected: ${state.error.message}.`);
      if (state.name === "closed" && state.error.code !== "closed") this.#note("error", `Session ended: ${state.error.message}.`);
    });
  }

  #sessionBegan(session: Session, lost: string[], first: boolean): void {
    batch(() => {
      this.#note("link", `${first ? "Connected" : "Connected again"} to ${new URL(session.url).host} as ${session.uid}.`);
      for (const name of lost) {
        this.#drop(name);
        this.#note("error", `You may not be in ${roomLabel(name)} any more.`);
      }
    });
    for (const name of this.rooms.value.keys()) void this.#loadMembers(name);
  }

  #messageCame({ id, room, from, body, latency }: RoomMessage): void {
    const line: Line = { id, from, mine: from === this.uid.value, body, at: Date.now(), took: latency };
    batch(() => {
      this.#addLine(room, line);
      const seen = room === this.current.value && document.visibilityState === "visible";
      if (!seen) this.#update(room, (r) => ({ unread: r.unread + 1 }));
      this.#note("room", `${from} in ${roomLabel(room)}, ${duration(latency)}.`);
    });
  }

  #membersChanged(name: string, joined: string[], left: string[], count: number): void {
    this.#changes.set(name, (this.#changes.get(name) ?? 0) + 1);
    this.#update(name, (room) => {
      const uids = new Set(room.uids);
      for (const uid of joined) uids.add(uid);
      for (const uid of left) uids.delete(uid);
      return { uids: [...uids].sort(), count };
    });
    for (const uid of joined) if (uid !== this.uid.value) this.#note("room", `${uid} came into ${roomLabel(name)}.`);
    for (const uid of left) if (uid !== this.uid.value) this.#note("room", `${uid} left ${roomLabel(name)}.`);
  }

  #pushCame({ op, body }: Push): void {
    const text = new TextDecoder().decode(body);
    const push: Received = { id: ++lastId, op, from: "", text, at: Date.now() };
    try {
      const parsed = JSON.parse(text) as { text?: unknown; from?: unknown; sent?: unknown } | null;
      if (typeof parsed?.text === "string") {
        push.text = parsed.text;
        if (typeof parsed.from === "string") push.from = parsed.from;
        if (typeof parsed.sent === "number") push.took = Math.max(0, this.#client.clock.now() - parsed.sent);
      }
    } catch {
      // Some other backend's push: shown as it is.
    }
    batch(() => {
      this.pushes.value = [...this.pushes.value, push].slice(-keepLines);
      if (this.current.value !== "") this.unreadPushes.value++;
      this.#note("push", `Push of op ${op}${push.took === undefined ? "" : `, ${duration(push.took)}`}.`);
    });
  }

  // ---- the lists ----

  async #loadMembers(name: string, tries = 3): Promise<void> {
    try {
      const before = this.#changes.get(name);
      const page = await this.#client.members(name, { limit: 200 });
      // Who came or went while it was on its way may not be in it as he is now. Where that never ends, the counts tell.
      if (this.#changes.get(name) !== before && tries > 1) return await this.#loadMembers(name, tries - 1);
      this.#update(name, { uids: [...page.uids].sort(), count: page.count, complete: page.complete && page.next === "" });
    } catch (error) {
      if (this.rooms.value.has(name)) this.#failed("Asking who is there", error);
    }
  }

  #addLine(name: string, line: Line): void {
    this.#update(name, (room) => ({ lines: [...room.lines, line].slice(-keepLines) }));
  }

  #changeLine(name: string, line: Line): void {
    this.#update(name, (room) => ({ lines: room.lines.map((l) => (l.id === line.id ? line : l)) }));
  }

  #update(name: string, change: Partial<Room> | ((room: Room) => Partial<Room>)): void {
    const room = this.rooms.value.get(name);
    if (!room) return;
    const changed = typeof change === "function" ? change(room) : change;
    this.rooms.value = new Map(this.rooms.value).set(name, { ...room, ...changed });
  }

  #drop(name: string): void {
    const rooms = new Map(this.rooms.value);
    rooms.delete(name);
    batch(() => {
      this.rooms.value = rooms;
      if (this.current.value === name) this.show([...rooms.keys()][0] ?? "");
    });
  }

  #failed(what: string, error: unknown): void {
    this.#note("error", `${what} failed: ${reason(error)}.`);
  }

  #note(kind: LogEntry["kind"], text: string): void {
    this.log.value = [...this.log.value, { id: ++lastId, at: Date.now(), kind, text }].slice(-keepLog);
  }

  async #token(why: string): Promise<string> {
    const { name, token } = this.#credentials;
    if (why === "connect" || name === "") return token;
    const fresh = await api.logIn(name);
    this.#credentials = { name, token: fresh.token, pushKey: fresh.push_key ?? this.#credentials.pushKey };
    return fresh.token;
  }
}

function emptyRoom(name: string): Room {
  return { name, lines: [], uids: [], count: 0, complete: true, unread: 0 };
}

/** What to tell a person of an error, without its last stop. */
export function reason(error: unknown): string {
  const text = error instanceof HalleyError || error instanceof Error ? error.message : bodyText(error);
  return text.replace(/\.$/, "");
}
