import { batch, computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { Calls } from "./calls.ts";
import { People } from "./people.ts";
import { rowsOf, type Row } from "./rows.ts";
import {
  type Connection,
  type Conversation,
  directId,
  type Draft,
  type Entry,
  type GroupRequest,
  type Member,
  noSettings,
  type Outgoing,
  peerOf,
  type Port,
  type Settings,
} from "./types.ts";
import { Window } from "./window.ts";

/** A conversation as a line of the list. */
export interface Listed {
  conversation: Conversation;
  settings: Settings;
  draft: string;
  /** Whether something that was sent there failed. */
  failed: boolean;
}

/** The conversation in view. */
export interface Open {
  id: string;
  window: Window;
  rows: ReadonlySignal<Row[]>;
  /** How far the user had read when he opened it. */
  readSeq: number;
  unread: number;
  /** The board. */
  pinned: Signal<Entry[]>;
}

export type News = { conversation: Conversation; entry: Entry; settings: Settings };

/** Somebody who doesn't type on is done after so long. */
const typingFor = 6000;
const tellTypingEvery = 3000;
const keepDraftAfter = 1200;
/** Bytes of a draft that the server takes; what is longer this device alone keeps. */
const mostDraft = 4096;
/** A profile that is looked at is asked for again after so long. */
/** Entries after which a group has other members, or members other rights. */
const ofMembers = new Set(["created", "joined", "left", "removed", "role", "muted"]);
const profileFor = 5 * 60_000;
/** Presences that are watched at once. */
const mostWatched = 50;

/** What the messenger knows, as signals, and what can be done with it. No DOM here. */
export class Messenger {
  readonly port: Port;
  readonly me: string;
  readonly people: People;
  readonly calls: Calls;
  readonly connection = signal<Connection>({ name: "connecting" });
  readonly conversations = signal<ReadonlyMap<string, Conversation>>(new Map());
  readonly settings = signal<ReadonlyMap<string, Settings>>(new Map());
  readonly outgoing = signal<ReadonlyMap<string, Outgoing>>(new Map());
  readonly groupRequests = signal<ReadonlyMap<string, GroupRequest>>(new Map());
  /** Who types where. */
  readonly typing = signal<ReadonlyMap<string, readonly string[]>>(new Map());
  /** How far members of the open group have read, as far as it was told. */
  readonly markers = signal<ReadonlyMap<string, number>>(new Map());
  readonly open = signal<Open | undefined>(undefined);
  /** Until when the user himself may not write in the open group. */
  readonly mutedUntil = signal(0);
  /** Texts that are being written, as they are now. */
  readonly drafts = signal<ReadonlyMap<string, string>>(new Map());
  /** What the operators told everybody, until it is put away. */
  readonly notice = signal("");
  /** Whether anything was heard of the list yet. */
  readonly ready = signal(false);

  readonly list: ReadonlySignal<Listed[]>;
  /** Unread messages that count: not those of muted conversations. */
  readonly unread: ReadonlySignal<number>;
  /** Requests that wait for an answer: of people, and of groups that the user looks after. */
  readonly requests: ReadonlySignal<number>;

  /** Told of every message of others that comes. */
  onNews: (news: News) => void = () => {};
  /** Told of what failed beside what the user waits for. */
  onError = (_error: unknown): void => {};

  readonly #memberships = signal<ReadonlyMap<string, number>>(new Map());
  readonly #deleted = signal<ReadonlyMap<string, ReadonlySet<number>>>(new Map());
  readonly #typingTimers = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #draftTimers = new Map<string, ReturnType<typeof setTimeout>>();
  /** Conversations with a text that the server hasn't taken. */
  readonly #untold = new Set<string>();
  /** The last text on its way to the server. */
  readonly #telling = new Map<string, { draft: string }>();
  /** The conversation in view, if something was written in it. */
  #written = "";
  /** Whether all that is the user's alone was told once. */
  #synced = false;
  #toldTyping = 0;
  #askedOwn = 0;
  #watched = "";

  constructor(port: Port) {
    this.port = port;
    this.me = port.uid;
    this.people = new People(port);
    this.calls = new Calls(port);
    this.list = computed(() => this.#list());
    this.unread = computed(() => this.list.value.reduce((n, l) => n + (l.settings.mute ? 0 : l.conversation.unread), 0));
    this.requests = computed(
      () => this.people.asked.value.length + [...this.groupRequests.value.values()].filter((r) => r.state === "asked" && r.uid !== this.me).length,
    );
  }

  start(): void {
    for (const [id, text] of this.port.keptDrafts()) {
      this.#untold.add(id);
      this.#putDraft(id, text);
    }
    this.port.start({
      connection: (state) => {
        this.connection.value = state;
        if (state.name === "online") this.#watch();
        // Who is there now nobody knows then.
        else if (state.name === "waiting") {
          this.people.presences.value = new Map();
          this.#watched = "";
        }
      },
      conversation: (c) => this.#conversation(c),
      entry: (id, entry) => this.#entry(id, entry),
      outgoing: (o, gone) => {
        const all = new Map(this.outgoing.peek());
        if (gone) all.delete(o.id);
        else all.set(o.id, o);
        this.outgoing.value = all;
      },
      settings: (id, settings) => {
        this.settings.value = new Map(this.settings.peek()).set(id, settings);
        // Written on another device; what is written here goes first, and nothing appears where one is about to write.
        const inView = this.open.peek()?.id === id;
        if (!this.#untold.has(id) && !(inView && (this.#synced || this.#written === id))) this.#putDraft(id, settings.draft);
      },
      deleted: (id, seq) => {
        const all = new Map(this.#deleted.peek());
        all.set(id, new Set(all.get(id)).add(seq));
        this.#deleted.value = all;
      },
      contact: (contact) => {
        this.people.putContact(contact);
        this.#watch();
      },
      blocked: (uid, on) => this.people.putBlocked(uid, on),
      groupRequest: (request) => {
        this.people.want([request.uid]);
        this.groupRequests.value = new Map(this.groupRequests.peek()).set(`${request.conversation}/${request.uid}`, request);
      },
      presence: (presence) => this.people.putPresence(presence),
      typing: (id, uid, on) => this.#typing(id, uid, on),
      marker: (id, uid, seq) => {
        if (this.open.peek()?.id !== id) return;
        const old = this.markers.peek().get(uid) ?? 0;
        if (seq > old) this.markers.value = new Map(this.markers.peek()).set(uid, seq);
      },
      user: (user, kept) => (kept ? this.people.putKept(user) : this.people.put([user])),
      reset: (id) => {
        // What was missed may have been about members.
        this.#membersChanged(id);
        const open = this.open.peek();
        if (open?.id !== id) return;
        void open.window.end();
        this.#readOwn(id);
      },
      notice: (text) => (this.notice.value = text),
      calls: () => void this.calls.wake(),
      synced: () => {
        this.#synced = true;
        for (const id of [...this.#untold]) if (!this.#draftTimers.has(id)) this.#keepDraft(id);
        const open = this.open.peek();
        if (open) this.#readOwn(open.id);
        if (open) void open.window.reach(this.conversations.peek().get(open.id)?.lastSeq ?? 0);
        if (open?.pinned.peek().length === 0) this.#readPinned(open);
      },
    });
  }

  async close(forget: boolean): Promise<void> {
    for (const id of [...this.#draftTimers.keys()]) this.#keepDraft(id);
    for (const timer of this.#typingTimers.values()) clearTimeout(timer);
    this.people.stop();
    await this.calls.close();
    await this.port.close(forget);
  }

  // ---- names ----

  title(c: Conversation): string {
    if (c.type === "direct") return this.people.name(peerOf(c.id, this.me));
    return c.title || (c.type === "inbox" ? "Halley" : c.id);
  }

  conversation(id: string): Conversation | undefined {
    return this.conversations.value.get(id);
  }

  /** The last message, unless the user has cleared or deleted it for himself. */
  lastOf(c: Conversation): Entry | undefined {
    const { last } = c;
    return last && last.seq > this.settingsOf(c.id).clear && !this.#deleted.value.get(c.id)?.has(last.seq) ? last : undefined;
  }

  settingsOf(id: string): Settings {
    return this.settings.value.get(id) ?? noSettings;
  }

  #settingsNow(id: string): Settings {
    return this.settings.peek().get(id) ?? noSettings;
  }

  // ---- the conversation in view ----

  /** Shows a conversation; with seq, at that entry. One with somebody with whom there is none yet is empty. */
  show(id: string, seq = 0): Open {
    const before = this.open.peek();
    if (before?.id === id) {
      if (seq > 0) void before.window.around(seq);
      return before;
    }
    const c = this.conversations.peek().get(id);
    const window = new Window(this.port, id, c?.visibleFrom ?? 1);
    const readSeq = c && c.unread > 0 ? c.readSeq : 0;
    const pinned = signal<Entry[]>([]);
    const rows = computed(() => {
      const clear = this.settingsOf(id).clear;
      const deleted = this.#deleted.value.get(id);
      const stored = new Set<string>();
      const entries = window.entries.value;
      for (const e of entries.slice(-50)) if (e.from === this.me) stored.add(e.clientMsgId);
      return rowsOf({
        entries,
        // It may be in both for a moment.
        outgoing: [...this.outgoing.value.values()].filter((o) => o.conversation === id && !stored.has(o.id)),
        me: this.me,
        readSeq,
        hidden: (at) => at <= clear || (deleted?.has(at) ?? false),
        atEnd: !window.hasNewer.value,
      });
    });
    const open: Open = { id, window, rows, readSeq, unread: c?.unread ?? 0, pinned };
    // One after the other at once: in between there is nothing that anybody should see.
    batch(() => {
      this.leaveOpen();
      this.open.value = open;
      this.markers.value = new Map();
      this.mutedUntil.value = 0;
    });
    this.port.opened(id);
    if (id.startsWith("g/")) void this.calls.ask(id);
    this.#readOwn(id);
    this.people.want([peerOf(id, this.me)], profileFor);
    this.#watch();
    void (seq > 0 ? window.around(seq) : window.end());
    this.#readPinned(open);
    return open;
  }

  /** Asks what the user's own rights in the open group are. */
  #readOwn(id: string): void {
    if (!id.startsWith("g/")) return;
    const asked = ++this.#askedOwn;
    this.port.member(id, this.me).then(
      (own) => {
        if (asked === this.#askedOwn && this.open.peek()?.id === id) this.mutedUntil.value = own?.mutedUntil ?? 0;
      },
      () => {
        // If he may not, the server will say so.
      },
    );
  }

  #readPinned(open: Open): void {
    this.port.pinned(open.id).then(
      (entries) => (open.pinned.value = entries),
      () => {
        // No board then; the messages are what counts.
      },
    );
  }

  /** Nothing is in view any more. */
  leaveOpen(): void {
    const open = this.open.peek();
    if (!open) return;
    this.#keepDraft(open.id);
    this.tellTyping(open.id, false);
    this.#written = "";
    this.open.value = undefined;
    this.port.opened("");
    // What was written on another device meanwhile.
    if (!this.#untold.has(open.id)) this.#putDraft(open.id, this.#settingsNow(open.id).draft);
  }

  /** The user has seen the conversation up to its end. */
  saw(id: string): void {
    const c = this.conversations.peek().get(id);
    if (c && c.lastSeq > c.readSeq) this.port.read(id);
  }

  directWith(uid: string): string {
    return directId(this.me, uid);
  }

  /** Rises with everything that changes who is in a group, or what they may do there. */
  memberships(id: string): number {
    return this.#memberships.value.get(id) ?? 0;
  }

  #membersChanged(id: string): void {
    this.#memberships.value = new Map(this.#memberships.peek()).set(id, (this.#memberships.peek().get(id) ?? 0) + 1);
  }

  /** Takes in how far members are who were asked for. */
  noteMembers(id: string, members: readonly Member[]): void {
    this.people.want(
      members.map((member) => member.uid),
      profileFor,
    );
    if (this.open.peek()?.id !== id) return;
    const all = new Map(this.markers.peek());
    for (const { uid, readSeq } of members) all.set(uid, Math.max(readSeq, all.get(uid) ?? 0));
    this.markers.value = all;
  }

  // ---- writing ----

  draft(id: string): string {
    return this.drafts.value.get(id) ?? "";
  }

  write(id: string, text: string): void {
    this.#putDraft(id, text);
    this.#untold.add(id);
    if (this.open.peek()?.id === id) this.#written = id;
    this.port.keepDraft(id, text);
    clearTimeout(this.#draftTimers.get(id));
    this.#draftTimers.set(
      id,
      setTimeout(() => this.#keepDraft(id), keepDraftAfter),
    );
    this.tellTyping(id, text !== "");
  }

  send(id: string, draft: Draft): void {
    this.write(id, "");
    this.#keepDraft(id);
    this.port.send(id, draft);
    if (this.settingsOf(id).hide) void this.port.set(id, { hide: false });
  }

  tellTyping(id: string, on: boolean): void {
    if (on ? Date.now() - this.#toldTyping < tellTypingEvery : this.#toldTyping === 0) return;
    this.#toldTyping = on ? Date.now() : 0;
    if (id !== "" && this.connection.peek().name === "online") this.port.typing(id, on);
  }

  #putDraft(id: string, text: string): void {
    if ((this.drafts.peek().get(id) ?? "") !== text) this.drafts.value = new Map(this.drafts.peek()).set(id, text);
  }

  #keepDraft(id: string): void {
    clearTimeout(this.#draftTimers.get(id));
    this.#draftTimers.delete(id);
    // What was written on another device isn't to be overwritten by what isn't here.
    if (!this.#untold.has(id)) return;
    const draft = this.drafts.peek().get(id) ?? "";
    // What is on its way comes after what the server is known to have.
    const telling = this.#telling.get(id);
    if (telling?.draft === draft) return;
    if (!telling && draft === this.#settingsNow(id).draft) return this.#toldDraft(id, draft);
    if (new TextEncoder().encode(draft).length > mostDraft) return;
    const now = { draft };
    this.#telling.set(id, now);
    const over = () => this.#telling.get(id) === now && this.#telling.delete(id);
    this.port.set(id, now).then(
      () => {
        over();
        this.#toldDraft(id, draft);
      },
      () => {
        // It stays here; the next change tells it, or the next connection.
        over();
      },
    );
  }

  /** The server has that text: this device needs to keep it no longer, unless there is a newer one. */
  #toldDraft(id: string, draft: string): void {
    if ((this.drafts.peek().get(id) ?? "") !== draft) return;
    this.#untold.delete(id);
    this.port.keepDraft(id, undefined);
  }

  // ---- what comes ----

  #conversation(c: Conversation): void {
    batch(() => {
      this.ready.value = true;
      this.conversations.value = new Map(this.conversations.peek()).set(c.id, c);
    });
    if (c.type === "direct") this.people.want([peerOf(c.id, this.me)]);
  }

  #entry(id: string, entry: Entry): void {
    const open = this.open.peek();
    batch(() => {
      if (entry.kind === "message") this.#typing(id, entry.from, false);
      if (ofMembers.has(entry.kind)) {
        this.#membersChanged(id);
        if (open?.id === id && entry.members.includes(this.me)) this.#readOwn(id);
      }
      if (open?.id === id) {
        open.window.take(entry);
        if (entry.kind === "pin" || entry.kind === "recall" || entry.kind === "edit") this.#readPinned(open);
      }
    });
    // Hidden is hidden until the next message.
    if (entry.kind === "message" && this.settings.peek().get(id)?.hide) this.port.set(id, { hide: false }).catch(this.onError);
    const c = this.conversations.peek().get(id);
    if (c && entry.kind === "message" && entry.from !== this.me) this.onNews({ conversation: c, entry, settings: this.settingsOf(id) });
  }

  #typing(id: string, uid: string, on: boolean): void {
    if (uid === this.me) return;
    const key = `${id} ${uid}`;
    clearTimeout(this.#typingTimers.get(key));
    this.#typingTimers.delete(key);
    const before = this.typing.peek().get(id) ?? [];
    if (on) {
      this.#typingTimers.set(
        key,
        setTimeout(() => this.#typing(id, uid, false), typingFor),
      );
    }
    if (before.includes(uid) === on) return;
    this.typing.value = new Map(this.typing.peek()).set(id, on ? [...before, uid] : before.filter((u) => u !== uid));
  }

  /** Watches the presence of whom the user is likely to look at: the open conversation's, contacts, the newest in the list. */
  #watch(): void {
    if (this.connection.peek().name !== "online") return;
    const uids = new Set<string>();
    const open = this.open.peek();
    if (open) uids.add(peerOf(open.id, this.me));
    for (const contact of this.people.friends.peek()) uids.add(contact.uid);
    uids.delete("");
    const wanted = [...uids].slice(0, mostWatched);
    const key = wanted.join(" ");
    if (key === this.#watched) return;
    this.#watched = key;
    this.port.watch(wanted);
  }

  #list(): Listed[] {
    const settings = this.settings.value;
    const drafts = this.drafts.value;
    const failed = new Set([...this.outgoing.value.values()].filter((o) => o.stage === "failed").map((o) => o.conversation));
    const all: Listed[] = [];
    for (const conversation of this.conversations.value.values()) {
      const own = settings.get(conversation.id) ?? noSettings;
      if (own.hide && conversation.unread === 0) continue;
      all.push({ conversation, settings: own, draft: drafts.get(conversation.id) ?? own.draft, failed: failed.has(conversation.id) });
    }
    return all.sort(
      (a, b) => Number(b.settings.pin) - Number(a.settings.pin) || b.conversation.lastAt - a.conversation.lastAt || (a.conversation.id < b.conversation.id ? -1 : 1),
    );
  }
}
