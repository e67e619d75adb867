import type { Method, Params, Result, Session, State } from "../connection.ts";
import { Emitter } from "../emitter.ts";
import { HalleyError } from "../error.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import { watchNetwork } from "../network.ts";
import type { Conversation } from "./conversation.ts";
import type { Entry, GroupInfo, JsonValue } from "./entry.ts";
import { IndexedDBStorage } from "./indexeddb.ts";
import { type ChangeMethod, newId, type Outgoing } from "./outgoing.ts";
import type { Entries, SpeakerEvents, SpeakerOptions, UserChange } from "./events.ts";
import { Speaker } from "./speaker.ts";
import { type ChatStorage, MemoryStorage } from "./storage.ts";
import { type Call, type Snapshot, Tabs } from "./tabs.ts";

export interface ChatOptions extends SpeakerOptions {
  /** What tells the users of this browser apart, the uid as a rule: what is kept is kept under this name [default]. */
  account?: string;
  /** Where to keep what must survive a reload [IndexedDB where there is one, else memory]. */
  storage?: ChatStorage;
  /** Whether one tab speaks for all of this account [where Web Locks, BroadcastChannel and IndexedDB are, unless storage is given]. */
  tabs?: boolean;
}

export interface SendOptions {
  /** Uids. */
  mentions?: string[];
  /** Mentions everybody; for owner and admins of a group. */
  mentionAll?: boolean;
}

type EventName = keyof SpeakerEvents;

/**
 * Chat is what an application talks to: conversations, what comes in them, and what is sent. All tabs of one account
 * show the same; one of them holds the connection, and when it is closed another takes over.
 */
export class Chat extends Emitter<SpeakerEvents> {
  readonly #options: ChatOptions;
  readonly #storage: ChatStorage;
  readonly #tabs: Tabs | undefined;
  readonly #conversations = new Map<string, Conversation>();
  readonly #outgoing = new Map<string, Outgoing>();
  readonly #settings = new Map<string, UserChange>();
  /** Up to where each conversation was handed to this tab. */
  readonly #handed = new Map<string, number>();
  #speaker: Speaker | undefined;
  /** When the speaker has taken up what was kept. */
  #started: Promise<void> = Promise.resolve();
  #state: State = { name: "idle" };
  #session: Session | undefined;
  #adding: Promise<unknown> = Promise.resolve();
  #closed = false;
  #unwatch: (() => void) | undefined;

  constructor(options: ChatOptions) {
    super();
    this.#options = options;
    const account = options.account ?? "default";
    const kept = options.storage === undefined && "indexedDB" in globalThis;
    this.#storage = options.storage ?? (kept ? new IndexedDBStorage(account) : new MemoryStorage());
    if (options.tabs ?? (kept && Tabs.possible)) {
      this.#tabs = new Tabs(`halley/${account}`, {
        speak: () => this.#speak(),
        call: (call) => this.#call(call),
        event: (name, event) => this.#take(name as EventName, event as never),
        snapshot: () => this.#speaker && this.#snapshot(this.#speaker),
        mirror: (snapshot) => this.#mirror(snapshot),
      });
    }
  }

  /** The connection's state, whichever tab has it. */
  get state(): State {
    return this.#state;
  }

  /** The last session. */
  get session(): Session | undefined {
    return this.#session;
  }

  /** The server's time, as far as it is known, in milliseconds since 1970. */
  now(): number {
    const clock = this.#speaker?.client.clock;
    // Tabs are on one machine: what another one knows of the clocks is right here.
    return clock && clock.error < Infinity ? clock.now() : Date.now() + (this.#session?.clockOffset ?? 0);
  }

  get uid(): string {
    return this.#session?.uid ?? this.#speaker?.uid ?? "";
  }

  /** Whether this tab has the connection. */
  get speaking(): boolean {
    return this.#speaker !== undefined;
  }

  /** The user's conversations, those with the newest entry first. */
  get conversations(): Conversation[] {
    return [...this.#conversations.values()].sort((a, b) => b.lastAt - a.lastAt);
  }

  conversation(id: string): Conversation | undefined {
    return this.#conversations.get(id);
  }

  /** What is the user's alone, of one kind: mute, pin, draft, contact … By its object. */
  changes(kind: string): Map<string, JsonValue> {
    const all = this.#speaker?.changes ?? [...this.#settings.values()];
    return new Map(all.filter((c) => c.kind === kind).map((c) => [c.object, c.value]));
  }

  /** What was sent and has no place yet, or failed; in the order in which it was sent. */
  get outgoing(): Outgoing[] {
    return [...this.#outgoing.values()].sort((a, b) => a.at - b.at);
  }

  /** Takes up what was kept, connects, and stays connected until close. */
  start(): void {
    if (!this.#tabs) {
      this.#speak();
      return;
    }
    this.#tabs.start();
    // The tab that speaks may be one that nobody looks at, whose timers run late.
    const wake = () => {
      if (!this.#speaker) this.retryNow();
    };
    this.#unwatch = watchNetwork(wake, wake);
  }

  /** Ends it in this tab; resolves when all is kept. What isn't sent yet is sent by another tab, or after the next start. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#unwatch?.();
    await this.#adding;
    await this.#speaker?.close();
    this.#speaker = undefined;
    this.#tabs?.close();
    this.#storage.close();
  }

  // ---- sending ----

  /** Sends a message: any JSON value. It is on its way when this returns; `outgoing` events tell what becomes of it. */
  send(conversation: string, body: JsonValue, options: SendOptions = {}): Outgoing {
    return this.#dispatch("message.send", { conversation, body, ...mentions(options) });
  }

  edit(conversation: string, seq: number, body: JsonValue, options: SendOptions = {}): Outgoing {
    return this.#dispatch("message.edit", { conversation, seq, body, ...mentions(options) });
  }

  recall(conversation: string, seq: number): Outgoing {
    return this.#dispatch("message.recall", { conversation, seq });
  }

  /** Adds a reaction, or with off takes it away. */
  react(conversation: string, seq: number, reaction: string, off = false): Outgoing {
    return this.#dispatch("message.react", { conversation, seq, reaction, off });
  }

  pin(conversation: string, seq: number, off = false): Outgoing {
    return this.#dispatch("message.pin", { conversation, seq, off });
  }

  createGroup(title: string, members: string[]): Outgoing {
    return this.#dispatch("group.create", { title, members });
  }

  setGroup(conversation: string, info: GroupInfo): Outgoing {
    return this.#dispatch("group.info", { conversation, ...info });
  }

  /** Any change that has an outcome, by its name: group.add, group.remove, group.leave … */
  change<M extends ChangeMethod>(method: M, params: Omit<Params<M>, "client_msg_id">): Outgoing {
    return this.#dispatch(method, params as Params<M>);
  }

  /** Sends what failed once more, as something new: under its old id it would fail again. */
  async retry(id: string): Promise<Outgoing | undefined> {
    const old = this.#outgoing.get(id);
    if (!old || !(await this.discard(id))) return undefined;
    return this.#dispatch(old.method, old.params);
  }

  /** Takes back what failed, or was never accepted. False if it is too late. */
  discard(id: string): Promise<boolean> {
    return this.#ask("discard", id) as Promise<boolean>;
  }

  #dispatch<M extends ChangeMethod>(method: M, params: Params<M>): Outgoing {
    const { conversation } = params as { conversation?: string };
    const outgoing = {
      id: newId(),
      conversation: conversation ?? "",
      method,
      params,
      stage: "sending",
      at: Math.max(Date.now(), ...[...this.#outgoing.values()].slice(-1).map((o) => o.at + 0.001)),
      seq: 0,
      error: undefined,
    } as Outgoing;
    this.#take("outgoing", outgoing);
    // First kept, then sent: and one after the other, so that the order is the one of the calls.
    this.#adding = this.#adding.then(() => this.#storage.add(outgoing)).catch((error) => this.emit("storageError", error));
    // If nobody speaks now, whoever does next finds it in the storage.
    void this.#adding.then(() => this.#ask("add", outgoing)).catch(() => {});
    return outgoing;
  }

  // ---- reading ----

  /** Marks a conversation as read: up to an entry, or all that was handed over. */
  read(conversation: string, upTo?: Entry): void {
    void this.#ask("read", conversation, upTo?.seq, upTo?.msgNo).catch(() => {});
  }

  /** Tells which conversation the user looks at, none if empty: markers and typing of a group come to who has it open only. */
  open(conversation: string): void {
    void this.#ask("open", conversation).catch(() => {});
  }

  /** Tells the others that the user is typing, or with off no longer. To be told again every few seconds. */
  typing(conversation: string, off = false): void {
    void this.request("typing", { conversation, off }).catch(() => {});
  }

  /** Entries from seq `from` to `to`, or the last ones before `before`, or the last ones of all. */
  history(conversation: string, range: { from?: number; to?: number; before?: number; limit?: number } = {}): Promise<Entry[]> {
    return this.#ask("history", { conversation, ...range }) as Promise<Entry[]>;
  }

  /**
   * The newest entries that are kept on this device, some hundred of each conversation, without asking anybody: what to show before there is a
   * connection, or where there is none. Messages are as they were when this device last heard.
   */
  async kept(conversation: string, range: { before?: number; limit?: number } = {}): Promise<Entry[]> {
    return (await this.#storage.entries?.(conversation, range.before ?? Infinity, range.limit ?? 50)) ?? [];
  }

  /** Asks how far the other side of a direct conversation has read; what changes is told by `conversations` from then on. */
  markers(conversation: string): Promise<void> {
    return this.#ask("markers", conversation) as Promise<void>;
  }

  /** Any request by its name. Changes with an outcome are better sent by change(), which repeats them. */
  request<M extends Method>(method: M, params: Params<M>): Promise<Result<M>> {
    return this.#ask("request", method, params) as Promise<Result<M>>;
  }

  /** Tries to connect at once instead of at the end of the wait. */
  retryNow(): void {
    void this.#ask("retryNow").catch(() => {});
  }

  // ---- the one who speaks ----

  #ask(method: Call["method"], ...args: unknown[]): Promise<unknown> {
    if (this.#speaker) return this.#call({ method, args });
    if (this.#tabs) return this.#tabs.call({ method, args });
    return Promise.reject(new HalleyError("unavailable", "start() was not called"));
  }

  async #call({ method, args }: Call): Promise<unknown> {
    const speaker = this.#speaker;
    if (!speaker) throw new HalleyError("unavailable", "no tab has the connection");
    await this.#started;
    switch (method) {
      case "add":
        this.#tell("outgoing", args[0] as Outgoing);
        return speaker.add(args[0] as Outgoing);
      case "discard":
        return speaker.discard(args[0] as string);
      case "read":
        return speaker.read(args[0] as string, args[1] as number | undefined, args[2] as number | undefined);
      case "open":
        return speaker.open(args[0] as string);
      case "history":
        return speaker.history(args[0] as wire.ConversationHistory);
      case "markers":
        return speaker.markers(args[0] as string);
      case "request":
        return speaker.request(args[0] as Method, args[1] as Params<Method>);
      case "retryNow":
        return speaker.client.retryNow();
    }
  }

  #speak(): void {
    if (this.#closed || this.#speaker) return;
    const speaker = (this.#speaker = new Speaker(this.#storage, this.#options));
    const names: EventName[] = ["state", "session", "entries", "conversations", "gone", "outgoing", "discarded", "change", "marker", "typing", "synced", "presence", "push", "event", "storageError"];
    for (const name of names) speaker.on(name, (event) => this.#tell(name, event as never));
    this.#started = speaker.start(Object.fromEntries(this.#handed)).then(() => {
      for (const [id, have] of Object.entries(speaker.have)) if (!this.#handed.has(id)) this.#handed.set(id, have);
      for (const o of speaker.outgoing) this.#take("outgoing", o);
      this.#tabs?.tell(this.#snapshot(speaker));
    });
  }

  #snapshot(speaker: Speaker): Snapshot {
    return {
      state: plain(speaker.client.state),
      session: speaker.client.session,
      conversations: speaker.conversations,
      changes: speaker.changes,
      outgoing: speaker.outgoing,
      have: speaker.have,
    };
  }

  /** Takes over what the tab that speaks knows. */
  #mirror(s: Snapshot): void {
    const ids = new Set(s.conversations.map((c) => c.id));
    for (const id of [...this.#conversations.keys()]) if (!ids.has(id)) this.#take("gone", id);
    for (const c of s.changes) this.#settings.set(JSON.stringify([c.kind, c.object]), c);
    this.#take("conversations", s.conversations);
    for (const o of s.outgoing) this.#take("outgoing", o);
    if (s.session) this.#take("session", s.session);
    this.#take("state", s.state);
    for (const [id, have] of Object.entries(s.have)) {
      const handed = this.#handed.get(id);
      this.#handed.set(id, Math.max(have, handed ?? 0));
      // It missed what was handed over while another tab took over.
      if (handed !== undefined && handed < have) this.emit("entries", { conversation: id, entries: [], reset: true });
    }
  }

  /** Takes an event of the speaker of this tab, and tells the others. */
  #tell<Name extends EventName>(name: Name, event: SpeakerEvents[Name]): void {
    const sent = name === "state" ? plain(event as State) : name === "storageError" ? String(event) : event;
    this.#tabs?.event(name, sent);
    this.#take(name, event);
  }

  #take<Name extends EventName>(name: Name, event: SpeakerEvents[Name]): void {
    switch (name) {
      case "state":
        event = revived(event as State) as SpeakerEvents[Name];
        this.#state = event as State;
        break;
      case "session":
        this.#session = event as Session;
        break;
      case "conversations":
        for (const c of event as Conversation[]) this.#conversations.set(c.id, c);
        break;
      case "gone":
        this.#conversations.delete(event as string);
        this.#handed.delete(event as string);
        break;
      case "outgoing": {
        const o = event as Outgoing;
        const old = this.#outgoing.get(o.id);
        if (old && old.stage === o.stage && old.error?.code === o.error?.code) return;
        if (o.stage === "stored" || o.stage === "delivered" || o.stage === "read") this.#outgoing.delete(o.id);
        else this.#outgoing.set(o.id, o);
        break;
      }
      case "change": {
        const c = event as UserChange;
        this.#settings.set(JSON.stringify([c.kind, c.object]), c);
        break;
      }
      case "discarded":
        this.#outgoing.delete(event as string);
        break;
      case "entries": {
        const e = event as Entries;
        const handed = this.#handed.get(e.conversation) ?? 0;
        const entries = e.reset ? e.entries : e.entries.filter((entry) => entry.seq > handed);
        if (entries.length === 0 && !e.reset) return;
        this.#handed.set(e.conversation, entries.at(-1)?.seq ?? handed);
        event = { ...e, entries } as Entries as SpeakerEvents[Name];
        break;
      }
    }
    this.emit(name, event);
  }
}

function mentions({ mentions, mentionAll }: SendOptions): { mentions?: string[]; mention_all?: boolean } {
  return { ...(mentions?.length ? { mentions } : {}), ...(mentionAll ? { mention_all: true } : {}) };
}

/** A state as another tab can take it: classes don't travel. */
function plain(state: State): State {
  if (!("error" in state)) return state;
  const { code, message, retry, retryAfter } = state.error;
  return { ...state, error: { code, message, retry, retryAfter } as HalleyError };
}

function revived(state: State): State {
  if (!("error" in state) || state.error instanceof HalleyError) return state;
  const { code, message, retry, retryAfter } = state.error as HalleyError;
  return { ...state, error: new HalleyError(code, message, { retry, retryAfter }) };
}
