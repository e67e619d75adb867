import { backoff, defaultBackoff } from "../backoff.ts";
import { Client } from "../client.ts";
import type { Method, Params, Result, Session } from "../connection.ts";
import { Emitter } from "../emitter.ts";
import { HalleyError } from "../error.ts";
import { Op } from "../frame.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import { type Conversation, conversationOf, follow, merge, peerOf, read } from "./conversation.ts";
import { type Entry, entryOf } from "./entry.ts";
import type { SpeakerEvents, SpeakerOptions, UserChange } from "./events.ts";
import { Gate, Sleepers } from "./gate.ts";
import { Keeper } from "./keeper.ts";
import { Log } from "./log.ts";
import { type Held, Marks } from "./marks.ts";
import { Outbox } from "./outbox.ts";
import { errorOf, type Outgoing } from "./outgoing.ts";
import type { ChatStorage } from "./storage.ts";

/** Sent ones whose being read is waited for. */
const maxSent = 1000;

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
  readonly #pulls = new Gate(4);
  /** A server lets 32 requests of a session wait. */
  readonly #sends = new Gate(16);
  /** Stored ones of direct conversations that weren't read yet. */
  readonly #sent = new Map<string, Outgoing>();
  /** Conversations that were heard of and that no sync has told yet. */
  readonly #strangers = new Set<string>();
  readonly #changed = new Set<string>();
  /** What is the user's alone: the newest of each kind and object. */
  readonly #settings = new Map<string, UserChange>();
  /** The group that the user looks at. */
  #open = "";
  #uid = "";
  #userChange = 0;
  #syncing: Promise<boolean> | undefined;
  #syncAgain = false;
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
    this.client.on("state", (state) => {
      if (state.name !== "online") this.#outbox.pause();
      this.emit("state", state);
    });
    this.client.on("session", ({ session }) => void this.#session(session));
    this.client.on("resync", () => void this.#catchUp());
    this.client.on("event", (event) => this.#event(event));
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
    return (entries ?? []).map(entryOf);
  }

  request<M extends Method>(method: M, params: Params<M>): Promise<Result<M>> {
    return readOnly.has(method) ? this.#read(method, params) : this.client.request(method, params);
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
      this.#strangers.clear();
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
    for (const id of waiting) this.#pulls.run(() => this.markers(id)).catch(() => {});
  }

  /** Asks for what is new; then sends again whatever has no outcome. */
  async #catchUp(): Promise<void> {
    const round = ++this.#round;
    await Promise.race([this.sync(), this.#sleepers.sleep(this.#options.syncFirst ?? 2000)]);
    if (round !== this.#round || !this.#online) return;
    this.#outbox.run(true);
    for (const held of this.#held.values()) this.#marks.mark(held);
  }

  /** Asks for all that is new. Resolves when it has been handed over, with false if that was not to be had. */
  sync(): Promise<boolean> {
    this.#syncAgain = true;
    return (this.#syncing ??= this.#syncAll().finally(() => (this.#syncing = undefined)));
  }

  async #syncAll(): Promise<boolean> {
    let above = "";
    for (let attempt = 0; ; ) {
      if (!this.#online) return false;
      if (!above) this.#syncAgain = false;
      try {
        const asked = this.#named(above);
        const page = await this.#read("sync", asked);
        const progress = this.#page(page);
        if (page.more && progress) {
          attempt = 0;
          continue;
        }
        above = asked.up_to ?? "";
        if (above) continue;
        if (this.#syncAgain) {
          attempt = 0;
          continue;
        }
        if (this.#strangers.size === 0 || attempt >= 5) break;
        attempt++;
      } catch (error) {
        if (!(error instanceof HalleyError)) throw error;
        // A server without conversations, or a session that is over.
        if (!error.retry) return false;
        await this.#sleepers.sleep(this.#wait(attempt++, error.retryAfter));
        continue;
      }
      // It was told of before it can be read.
      await this.#sleepers.sleep(this.#wait(attempt));
    }
    this.#strangers.clear();
    for (const held of this.#held.values()) this.#pull(held);
    this.emit("synced", undefined);
    return true;
  }

  /** What this device has of the conversations above one, as many as a question may name. */
  #named(above: string): wire.Sync {
    const most = this.#options.syncNamed ?? 3000;
    let held = [...this.#held].filter(([id]) => id > above);
    let upTo = "";
    if (held.length > most) {
      held = held.sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, most);
      upTo = held.at(-1)?.[0] ?? "";
    }
    const conversations = Object.fromEntries(held.map(([id, { log }]) => [id, log.have]));
    return { conversations, user_change: this.#userChange, ...(above && { above }), ...(upTo && { up_to: upTo }) };
  }

  /** Takes a page in, and returns whether there was anything in it. */
  #page(page: wire.SyncPage): boolean {
    let progress = false;
    for (const u of page.user_changes ?? []) progress = this.#apply(u) || progress;
    for (const c of page.conversations ?? []) progress = this.#fresh(c) || progress;
    return progress;
  }

  #fresh({ conversation, entries: list, reset }: wire.SyncConversation): boolean {
    const fresh = conversationOf(conversation ?? {});
    const entries = (list ?? []).map(entryOf);
    const first = entries[0]?.seq ?? fresh.lastSeq + 1;
    let held = this.#held.get(fresh.id);
    let lost = false;
    const out: Entry[] = [];
    this.#strangers.delete(fresh.id);
    if (!held) {
      held = this.#hold(fresh, first - 1);
      lost = reset ?? false;
    } else {
      held.conversation = merge(held.conversation, fresh);
      const before = held.log.have;
      if (reset && first > before + 1) {
        lost = true;
        out.push(...held.log.skip(first - 1));
      } else if (fresh.visibleFrom > before + 1) out.push(...held.log.skip(fresh.visibleFrom - 1));
    }
    for (const e of entries) {
      this.#outcome(fresh.id, e);
      out.push(...held.log.take(e));
    }
    held.log.hear(fresh.lastSeq);
    this.#handOver(held, out, lost);
    this.#update(held, held.conversation);
    return out.length > 0;
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
      if (number > this.#userChange + 1) void this.sync();
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
      this.#meet(id);
      return;
    }
    this.#handOver(held, held.log.take(e), false);
    // A sync that is under way brings it, and looks afterwards.
    if (!this.#syncing) this.#pull(held);
  }

  /** Asks what a conversation is; a sync goes on until it has told. */
  #meet(id: string): void {
    if (this.#strangers.has(id) && this.#syncing) return;
    this.#strangers.add(id);
    void this.sync();
  }

  /** Reads what is missing between what was handed over and what was heard of. */
  #pull(held: Held): void {
    if (held.pulling || !held.log.missing()) return;
    held.pulling = true;
    void this.#pulls
      .run(() => this.#pullAll(held))
      .finally(() => {
        held.pulling = false;
        if (this.#online && !this.#syncing) this.#pull(held);
      });
  }

  async #pullAll(held: Held): Promise<void> {
    const { id } = held.conversation;
    for (let attempt = 0; ; ) {
      const gap = held.log.missing();
      if (!gap || !this.#online || this.#held.get(id) !== held) return;
      try {
        const before = held.log.have;
        const entries = await this.history({ conversation: id, from: gap.from, to: gap.to, limit: 200 });
        const out: Entry[] = [];
        for (const e of entries) {
          this.#outcome(id, e);
          out.push(...held.log.take(e));
        }
        this.#handOver(held, out, false);
        if (held.log.have > before) {
          attempt = 0;
          continue;
        }
      } catch (error) {
        if (!(error instanceof HalleyError)) throw error;
        if (!error.retry) {
          // Not a member any more: what he may see he has.
          held.log = new Log(held.log.have);
          return;
        }
        await this.#sleepers.sleep(this.#wait(attempt++, error.retryAfter));
        continue;
      }
      // Told of, and not to be read: either it is not for this user, which a summary tells, or it is not there yet. It is never skipped.
      await this.sync();
      if (held.log.have + 1 === gap.from) await this.#sleepers.sleep(this.#wait(attempt++));
    }
  }

  #handOver(held: Held, entries: Entry[], reset: boolean): void {
    if (entries.length === 0 && !reset) return;
    const { id } = held.conversation;
    let others = false;
    for (const e of entries) {
      held.conversation = follow(held.conversation, e, this.#uid);
      others ||= e.kind === "message" && e.from !== this.#uid;
    }
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
      else if (!this.#held.has(object)) this.#meet(object);
    } else if (kind === "read") {
      if (typeof v.read_seq === "number") this.#ownRead(object, v.read_seq, typeof v.read_msg_no === "number" ? v.read_msg_no : undefined);
    } else {
      const change = { number, kind, object, value };
      this.#settings.set(JSON.stringify([kind, object]), change);
      this.#keeper.change(change);
    }
    this.emit("change", { number, kind, object, value });
    return true;
  }

  #forget(id: string): void {
    const held = this.#held.get(id);
    this.#strangers.delete(id);
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

const readOnly = new Set<Method>(["conversation.list", "conversation.history", "conversation.members", "sync", "sync.cursor", "room.members"]);
