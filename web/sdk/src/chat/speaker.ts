import { backoff, defaultBackoff } from "../backoff.ts";
import { Client } from "../client.ts";
import type { Method, Params, Result, Session } from "../connection.ts";
import { Emitter } from "../emitter.ts";
import { HalleyError } from "../error.ts";
import { Op } from "../frame.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import { type Conversation, follow, peerOf, read } from "./conversation.ts";
import { type Entry, entryOf } from "./entry.ts";
import type { SpeakerEvents, SpeakerOptions, UserChange } from "./events.ts";
import { Gate, Sleepers } from "./gate.ts";
import { Keeper } from "./keeper.ts";
import { Log } from "./log.ts";
import { type Held, Marks } from "./marks.ts";
import { Outbox } from "./outbox.ts";
import { errorOf, type Outgoing } from "./outgoing.ts";
import type { ChatStorage } from "./storage.ts";
import { Sync, type SyncHost } from "./sync.ts";

/** Sent ones whose being read is waited for. */
const maxSent = 1000;
/** Entries of a conversation that are kept, the newest: some screens full. */
const keepEntries = 300;

/**
 * Speaker is the one who speaks with the server for all tabs of a user: it sends what is to be sent until it has
 * an outcome, and hands over what is stored, in order, once, with nothing missing.
 */
export class Speaker extends Emitter<SpeakerEvents> {
  readonly client: Client;
  readonly #storage: ChatStorage;
  readonly #keeper: Keeper;
  readonly #options: SpeakerOptions;
  readonly #random: () => number;
  readonly #held = new Map<string, Held>();
  readonly #outbox: Outbox;
  readonly #marks: Marks;
  readonly #sync: Sync;
  /** A server lets 32 requests of a session wait. */
  readonly #sends = new Gate(16);
  /** Stored ones of direct conversations that weren't read yet. */
  readonly #sent = new Map<string, Outgoing>();
  readonly #changed = new Set<string>();
  /** What is the user's alone: the newest of each kind and object. */
  readonly #settings = new Map<string, UserChange>();
  /** The group that the user looks at. */
  #open = "";
  #uid = "";
  #userChange = 0;
  #round = 0;
  #closed = false;
  #askTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #sleepers = new Sleepers();

  constructor(storage: ChatStorage, options: SpeakerOptions) {
    super();
    this.#storage = storage;
    this.#options = options;
    this.#random = options.random ?? Math.random;
    this.#keeper = new Keeper(storage, (error) => this.emit("storageError", error));
    this.client = new Client(options);
    this.#outbox = new Outbox({
      send: (o) => this.#sends.run(() => this.#send(o)),
      changed: (o) => this.#changedOutgoing(o),
      backoff: options.backoff ?? defaultBackoff,
      random: this.#random,
    });
    this.#marks = new Marks({
      client: this.client,
      holds: (held) => this.#online && this.#held.get(held.conversation.id) === held,
      direct: (held) => peerOf(held.conversation.id, this.#uid) !== "" && (options.deliveredAfter ?? 1000) !== Infinity,
      update: (held, conversation) => this.#update(held, conversation),
      wait: (retryAfter) => this.#wait(3, retryAfter),
    });
    this.#sync = new Sync(this.#syncHost());
    this.client.on("state", (state) => {
      if (state.name !== "online") this.#outbox.pause();
      this.emit("state", state);
    });
    this.client.on("session", ({ session }) => void this.#session(session));
    this.client.on("resync", () => void this.#catchUp());
    this.client.on("event", (event) => this.#event(event));
    this.client.on("presence", (presence) => this.emit("presence", presence));
    this.client.on("push", (push) => this.emit("push", push));
  }

  get uid(): string {
    return this.#uid;
  }

  get conversations(): Conversation[] {
    return [...this.#held.values()].map((h) => h.conversation);
  }

  get changes(): UserChange[] {
    return [...this.#settings.values()];
  }

  /** What has no place yet. */
  get outgoing(): Outgoing[] {
    return this.#outbox.outgoing;
  }

  /** Up to where each conversation was handed over. */
  get have(): Record<string, number> {
    return Object.fromEntries([...this.#held].map(([id, h]) => [id, h.log.have]));
  }

  /** Takes up what was kept, and connects. handed: what the one before has handed over, as far as this tab knows. */
  async start(handed: Record<string, number> = {}): Promise<void> {
    try {
      const saved = await this.#storage.load();
      this.#uid = saved.uid;
      this.#userChange = saved.userChange;
      for (const { conversation, have } of saved.conversations) {
        // What was kept but never reached this tab is read again.
        this.#hold(conversation, Math.min(have, handed[conversation.id] ?? have));
      }
      for (const change of saved.changes) this.#settings.set(JSON.stringify([change.kind, change.object]), change);
      for (const outgoing of saved.outgoing) this.#outbox.add(outgoing);
    } catch (error) {
      this.emit("storageError", error);
    }
    if (this.#closed) return;
    this.#tell(...this.#held.keys());
    this.client.connect();
  }

  /** Ends it; resolves when all is kept. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#askTimer);
    for (const h of this.#held.values()) clearTimeout(h.markTimer);
    this.#outbox.pause();
    this.client.close();
    this.#sleepers.wake();
    await this.#keeper.flush();
  }

  /** Takes something to be sent that the storage has already. */
  add(outgoing: Outgoing): void {
    this.#outbox.add(outgoing);
  }

  discard(id: string): boolean {
    const outgoing = this.#outbox.discard(id);
    if (!outgoing) return false;
    this.#keeper.done(id);
    this.emit("discarded", id);
    return true;
  }

  /** Marks a conversation as read up to seq, before which there are msgNo messages if that is known. */
  read(id: string, seq?: number, msgNo?: number): void {
    const held = this.#held.get(id);
    if (!held) return;
    const c = held.conversation;
    const upTo = Math.min(seq ?? held.log.have, held.log.have);
    if (upTo <= c.readSeq && c.unread === 0) return;
    const next = read(c, upTo, msgNo);
    this.#update(held, upTo > c.readSeq ? { ...next, wantRead: Math.max(next.wantRead, upTo) } : next);
    this.#marks.mark(held);
  }

  /** Tells which conversation the user looks at: markers and typing of a group come to who has it open only. */
  open(id: string): void {
    const group = id.startsWith("g/") ? id : "";
    if (group === this.#open) return;
    this.#open = group;
    if (this.#online) this.client.request("conversation.open", { conversation: group }).catch(() => {});
  }

  /** Asks how far the other side of a direct conversation is; changes are told from then on. */
  async markers(id: string): Promise<void> {
    const { members } = await this.request("conversation.members", { conversation: id });
    for (const m of members ?? []) {
      const { uid, read_seq, delivered_seq } = m;
      if (uid && uid !== this.#uid) this.#marker({ conversation: id, uid, read_seq: read_seq ?? 0, delivered_seq: delivered_seq ?? 0 });
    }
  }

  async history(params: wire.ConversationHistory): Promise<Entry[]> {
    const { entries } = await this.#read("conversation.history", params);
    const all = (entries ?? []).map(entryOf);
    const held = this.#held.get(params.conversation ?? "");
    if (held) this.#keep(held, all);
    return all;
  }

  request<M extends Method>(method: M, params: Params<M>): Promise<Result<M>> {
    if (readOnly.has(method)) return this.#read(method, params);
    // Calls wait for calls only, not for what is said.
    return this.client.request(method, params, { op: method.startsWith("call.") ? Op.RequestCall : Op.Request });
  }

  #read<M extends Method>(method: M, params: Params<M>): Promise<Result<M>> {
    return this.client.request(method, params, { op: Op.RequestUnordered });
  }

  // ---- what is sent ----

  #send(o: Outgoing): Promise<wire.Accepted> {
    return this.client.request(o.method, { ...o.params, client_msg_id: o.id } as Params<"message.send">) as Promise<wire.Accepted>;
  }

  #changedOutgoing(o: Outgoing): void {
    if (o.method === "group.leave" && o.error?.code === "not_member") return this.#left(o);
    this.#keeper.outgoing(o);
    this.emit("outgoing", o);
  }

  /** Looks whether an entry is the outcome of something sent. */
  #outcome(conversation: string, e: Entry): void {
    // Others know the id of what they have got, and may use it for something of theirs.
    if (e.from !== this.#uid || !this.#outbox.get(e.clientMsgId)) return;
    const o = this.#outbox.stored(e.clientMsgId);
    if (!o) return;
    this.#keeper.done(o.id);
    const stored: Outgoing = { ...o, conversation, stage: "stored", seq: e.seq, error: undefined };
    this.emit("outgoing", stored);
    if (o.method !== "message.send" || !peerOf(conversation, this.#uid)) return;
    this.#sent.set(o.id, stored);
    for (const oldest of this.#sent.keys()) {
      if (this.#sent.size <= maxSent) break;
      this.#sent.delete(oldest);
    }
    const held = this.#held.get(conversation);
    if (held) this.#progress(held);
  }

  /** Tells what the other side has got or read meanwhile. */
  #progress({ conversation: c }: Held): void {
    for (const o of [...this.#sent.values()]) {
      if (o.conversation !== c.id) continue;
      const stage = o.seq <= c.peerReadSeq ? "read" : o.seq <= c.peerDeliveredSeq ? "delivered" : "stored";
      if (stage === o.stage) continue;
      const next: Outgoing = { ...o, stage };
      if (stage === "read") this.#sent.delete(o.id);
      else this.#sent.set(o.id, next);
      this.emit("outgoing", next);
    }
  }

  // ---- a session, and what was missed before it ----

  async #session(session: Session): Promise<void> {
    if (this.#uid && this.#uid !== session.uid) {
      // Somebody else's: nothing of the one before may be shown to him, or sent in his name.
      const ids = [...this.#held.keys()];
      for (const h of this.#held.values()) clearTimeout(h.markTimer);
      this.#held.clear();
      for (const o of this.#outbox.outgoing) {
        this.#outbox.stored(o.id);
        this.emit("discarded", o.id);
      }
      this.#sent.clear();
      this.#sync.forget();
      this.#settings.clear();
      this.#open = "";
      this.#userChange = 0;
      for (const id of ids) this.emit("gone", id);
      await this.#keeper.clear().catch((error) => this.emit("storageError", error));
    }
    if (this.#uid !== session.uid) {
      this.#uid = session.uid;
      this.#keeper.uid(session.uid);
    }
    this.emit("session", session);
    this.#sleepers.wake();
    this.#askLater();
    if (this.#open) this.client.request("conversation.open", { conversation: this.#open }).catch(() => {});
    await this.#catchUp();
    const waiting = new Set([...this.#sent.values()].map((o) => o.conversation));
    for (const id of waiting) this.#sync.inTurn(() => this.markers(id)).catch(() => {});
  }

  /** Asks for what is new; then sends again whatever has no outcome. */
  async #catchUp(): Promise<void> {
    const round = ++this.#round;
    await Promise.race([this.#sync.run(), this.#sleepers.sleep(this.#options.syncFirst ?? 2000)]);
    if (round !== this.#round || !this.#online) return;
    this.#outbox.run(true);
    for (const held of this.#held.values()) this.#marks.mark(held);
  }

  #syncHost(): SyncHost {
    const online = () => this.#online;
    return {
      get online() {
        return online();
      },
      held: this.#held,
      sleepers: this.#sleepers,
      most: this.#options.syncNamed ?? 3000,
      userChange: () => this.#userChange,
      read: (method, params) => this.#read(method, params),
      history: (params) => this.history(params),
      hold: (conversation, have) => this.#hold(conversation, have),
      update: (held, conversation) => this.#update(held, conversation),
      outcome: (conversation, entry) => this.#outcome(conversation, entry),
      handOver: (held, entries, reset) => this.#handOver(held, entries, reset),
      apply: (change) => this.#apply(change),
      synced: () => this.emit("synced", undefined),
      wait: (attempt, retryAfter) => this.#wait(attempt, retryAfter),
    };
  }

  // ---- what comes ----

  #event(event: wire.Event): void {
    const stored = event["message.stored"] ?? event.entry;
    const rejected = event["message.rejected"];
    const change = event["user.change"];
    if (stored) this.#live(stored.conversation ?? "", entryOf(stored.entry ?? {}));
    else if (rejected) {
      this.#outbox.rejected(rejected.client_msg_id ?? "", errorOf(HalleyError.fromWire(rejected.error ?? {})));
    } else if (change) {
      const number = change.number ?? 0;
      // In between there is one that was missed, or one that the newest of its object has taken the place of.
      if (number > this.#userChange + 1) void this.#sync.run();
      else this.#apply(change);
    } else if (event.marker) this.#marker(event.marker);
    else if (event.typing) {
      const { conversation = "", uid = "", off = false } = event.typing;
      if (uid !== this.#uid) this.emit("typing", { conversation, uid, off });
    } else this.emit("event", event);
  }

  #live(id: string, e: Entry): void {
    this.#outcome(id, e);
    const held = this.#held.get(id);
    if (!held) {
      this.#sync.meet(id);
      return;
    }
    this.#handOver(held, held.log.take(e), false);
    // A sync that is under way brings it, and looks afterwards.
    if (!this.#sync.running) this.#sync.pull(held);
  }

  #handOver(held: Held, entries: Entry[], reset: boolean): void {
    if (entries.length === 0 && !reset) return;
    const { id } = held.conversation;
    let others = false;
    for (const e of entries) {
      held.conversation = follow(held.conversation, e, this.#uid);
      others ||= e.kind === "message" && e.from !== this.#uid;
    }
    this.#keep(held, entries);
    this.emit("entries", { conversation: id, entries, reset });
    this.#update(held, held.conversation);
    const after = this.#options.deliveredAfter ?? 1000;
    if (others && after !== Infinity && peerOf(id, this.#uid)) {
      held.markTimer ??= setTimeout(() => {
        held.markTimer = undefined;
        this.#marks.mark(held);
      }, after);
    }
  }

  /** Applies a user change that is newer than what is known. */
  #apply(u: wire.UserChanged): boolean {
    const { number = 0, kind = "", object = "", value = null } = u;
    if (number <= this.#userChange) return false;
    this.#userChange = number;
    this.#keeper.userChange(number);
    const v = (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {}) as Record<string, wire.JsonValue>;
    if (kind === "conversation") {
      if (v.role === "none") this.#forget(object);
      else if (!this.#held.has(object)) this.#sync.meet(object);
    } else if (kind === "read") {
      if (typeof v.read_seq === "number") this.#ownRead(object, v.read_seq, typeof v.read_msg_no === "number" ? v.read_msg_no : undefined);
    } else {
      const change = { number, kind, object, value };
      this.#settings.set(JSON.stringify([kind, object]), change);
      this.#keeper.change(change);
      if (kind === "clear" && typeof v.seq === "number") this.#keeper.entries(object, [], v.seq + 1);
    }
    this.emit("change", { number, kind, object, value });
    return true;
  }

  #forget(id: string): void {
    const held = this.#held.get(id);
    this.#sync.forget(id);
    for (const o of this.#outbox.outgoing) if (o.conversation === id && o.method === "group.leave") this.#left(o);
    if (!held) return;
    clearTimeout(held.markTimer);
    this.#held.delete(id);
    this.#keeper.gone(id);
    this.emit("gone", id);
  }

  /** One's own leaving has no other outcome for who has left than that the conversation is off the list. */
  #left(o: Outgoing): void {
    this.#outbox.stored(o.id);
    this.#keeper.done(o.id);
    this.emit("outgoing", { ...o, stage: "stored", error: undefined });
  }

  /** Keeps the newest entries, so that they can be shown before there is a connection. */
  #keep({ conversation: c }: Held, entries: Entry[]): void {
    const from = c.lastSeq - keepEntries + 1;
    const newest = entries.filter((e) => e.seq >= from);
    if (newest.length > 0) this.#keeper.entries(c.id, newest, from);
  }

  // ---- markers ----

  #marker(m: wire.MemberMarker): void {
    const { conversation = "", uid = "", read_seq: readSeq = 0, delivered_seq: deliveredSeq = 0 } = m;
    if (uid !== this.#uid) this.emit("marker", { conversation, uid, readSeq, deliveredSeq });
    const held = this.#held.get(conversation);
    if (!held) return;
    const c = held.conversation;
    if (m.uid === this.#uid) {
      this.#ownRead(c.id, m.read_seq ?? 0, m.read_msg_no);
    } else if (m.uid === peerOf(c.id, this.#uid)) {
      const peerReadSeq = Math.max(c.peerReadSeq, m.read_seq ?? 0);
      const peerDeliveredSeq = Math.max(c.peerDeliveredSeq, peerReadSeq, m.delivered_seq ?? 0);
      if (peerReadSeq === c.peerReadSeq && peerDeliveredSeq === c.peerDeliveredSeq) return;
      this.#update(held, { ...c, peerReadSeq, peerDeliveredSeq });
      this.#progress(held);
    }
  }

  /** Another device of the user's has read up to seq. */
  #ownRead(id: string, seq: number, msgNo: number | undefined): void {
    const held = this.#held.get(id);
    if (!held || seq <= held.conversation.readSeq) return;
    held.toldRead = Math.max(held.toldRead, seq);
    if (msgNo === undefined && seq < held.conversation.lastSeq) {
      // How many messages there are up to it only the entry tells.
      this.history({ conversation: id, from: seq, to: seq, limit: 1 }).then(
        ([e]) => this.#update(held, read(held.conversation, seq, e?.msgNo)),
        () => {},
      );
      return;
    }
    this.#update(held, read(held.conversation, seq, msgNo));
  }

  // ---- whether something was missed ----

  #askLater(): void {
    clearTimeout(this.#askTimer);
    const every = this.#options.askEvery ?? 300_000;
    this.#askTimer = setTimeout(() => void this.#ask(), every * (0.5 + this.#random()));
  }

  async #ask(): Promise<void> {
    if (!this.#online) return; // The next session begins anew.
    try {
      const { seqs = 0, user_change = 0 } = await this.#read("sync.cursor", {});
      let have = 0;
      for (const h of this.#held.values()) have += h.log.have;
      const waiting = this.#outbox.outgoing.some((o) => o.stage === "accepted");
      if (seqs !== have || user_change !== this.#userChange || waiting) await this.#catchUp();
    } catch (error) {
      if (error instanceof HalleyError && error.code === "unknown_method") return; // A server that has no such thing.
    }
    if (!this.#closed) this.#askLater();
  }

  // ---- small ones ----

  get #online(): boolean {
    return !this.#closed && this.client.session !== undefined;
  }

  #hold(conversation: Conversation, have: number): Held {
    const held: Held = {
      conversation,
      log: new Log(have),
      pulling: false,
      marking: false,
      markTimer: undefined,
      toldRead: 0,
      toldDelivered: 0,
    };
    held.log.hear(conversation.lastSeq);
    this.#held.set(conversation.id, held);
    return held;
  }

  #update(held: Held, conversation: Conversation): void {
    held.conversation = conversation;
    if (this.#held.get(conversation.id) !== held) return;
    this.#keeper.conversation(conversation.id, () => ({ conversation: held.conversation, have: held.log.have }));
    this.#tell(conversation.id);
  }

  /** Tells what these are now; several in a row at once. */
  #tell(...ids: string[]): void {
    if (this.#changed.size === 0 && ids.length > 0) {
      queueMicrotask(() => {
        const all = [...this.#changed].map((id) => this.#held.get(id)?.conversation).filter((c) => c !== undefined);
        this.#changed.clear();
        if (all.length > 0) this.emit("conversations", all);
      });
    }
    for (const id of ids) this.#changed.add(id);
  }

  #wait(attempt: number, retryAfter = 0): number {
    return backoff(attempt, this.#options.backoff ?? defaultBackoff, retryAfter, this.#random);
  }
}

const readOnly = new Set<Method>(["conversation.list", "conversation.history", "conversation.members", "sync", "sync.cursor", "room.members", "ice.servers"]);
