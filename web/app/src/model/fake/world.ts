// A server in memory, for tests and for looking at the messenger without one. It keeps the rules that the messenger can
// see: who may do what, one order for all, changes that name their message.
import type { Contact, Conversation, Entry, GroupRequest, Json, Member, PortEvents, Presence, Settings, User } from "../types.ts";
import { applyChange, directId, isChange, noSettings } from "../types.ts";

/** A refusal, as the server would give it. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  constructor(readonly code: string) {
    super(code);
  }
}

export interface FakeConversation {
  id: string;
  type: string;
  title: string;
  announcement: string;
  owner: string;
  dissolved: boolean;
  muteAll: boolean;
  joinPolicy: string;
  historyOpen: boolean;
  members: Map<string, Member>;
  /** Entries that were written, by seq; those of a long history are made up when they are asked for. */
  entries: Map<number, Entry>;
  made: (seq: number) => Entry | undefined;
  last: number;
  lastMessage: number;
  requests: Map<string, GroupRequest>;
}

export type NewEntry = Partial<Entry> & { kind: string; from: string };

export class World {
  readonly users = new Map<string, User>();
  readonly conversations = new Map<string, FakeConversation>();
  readonly contacts = new Map<string, Map<string, Contact>>();
  readonly blocks = new Map<string, Set<string>>();
  readonly settings = new Map<string, Map<string, Settings>>();
  readonly deleted = new Map<string, Set<string>>();
  readonly presences = new Map<string, Presence>();
  readonly #ears = new Map<string, Set<PortEvents>>();
  /** Called after every message; the people of the demonstration answer by it. */
  onMessage: (c: FakeConversation, entry: Entry) => void = () => {};
  now: () => number;

  constructor(now: () => number = Date.now) {
    this.now = now;
  }

  hear(uid: string, events: PortEvents): () => void {
    const ears = this.#ears.get(uid) ?? new Set();
    this.#ears.set(uid, ears.add(events));
    return () => ears.delete(events);
  }

  tell(uid: string, what: (events: PortEvents) => void): void {
    for (const events of this.#ears.get(uid) ?? []) what(events);
  }

  tellAll(c: FakeConversation, what: (events: PortEvents, uid: string) => void): void {
    for (const uid of c.members.keys()) this.tell(uid, (events) => what(events, uid));
  }

  user(uid: string, name = ""): User {
    let user = this.users.get(uid);
    if (!user) this.users.set(uid, (user = { uid, name, avatar: "", visibility: "contacts" }));
    return user;
  }

  make(id: string, init: Partial<FakeConversation> = {}): FakeConversation {
    const c: FakeConversation = {
      id,
      type: id.startsWith("d/") ? "direct" : id.startsWith("i/") ? "inbox" : "group",
      title: "",
      announcement: "",
      owner: "",
      dissolved: false,
      muteAll: false,
      joinPolicy: "by_members",
      historyOpen: false,
      members: new Map(),
      entries: new Map(),
      made: () => undefined,
      last: 0,
      lastMessage: 0,
      requests: new Map(),
      ...init,
    };
    this.conversations.set(id, c);
    return c;
  }

  direct(a: string, b: string): FakeConversation {
    const id = directId(a, b);
    const old = this.conversations.get(id);
    if (old) return old;
    const c = this.make(id);
    for (const uid of [a, b]) this.join(c, uid);
    return c;
  }

  join(c: FakeConversation, uid: string, role = "member"): Member {
    const member: Member = { uid, role, readSeq: c.last, deliveredSeq: c.last, mutedUntil: 0, joinedAt: this.now() };
    c.members.set(uid, member);
    this.user(uid);
    return member;
  }

  at(c: FakeConversation, seq: number): Entry | undefined {
    return seq < 1 || seq > c.last ? undefined : (c.entries.get(seq) ?? c.made(seq));
  }

  /** Gives an entry its place and tells everybody. */
  store(c: FakeConversation, e: NewEntry): Entry {
    const seq = ++c.last;
    const entry: Entry = {
      clientMsgId: "",
      serverTime: this.now(),
      msgNo: 0,
      target: 0,
      body: null,
      mentions: [],
      mentionAll: false,
      members: [],
      role: "",
      mutedUntil: 0,
      reaction: "",
      off: false,
      info: undefined,
      edited: false,
      recalled: false,
      pinned: false,
      reactions: [],
      ...e,
      seq,
      changedSeq: seq,
    };
    c.entries.set(seq, entry);
    if (isChange(entry.kind)) {
      const target = this.at(c, entry.target);
      if (target) c.entries.set(target.seq, applyChange(target, entry));
    }
    if (entry.kind === "message") c.lastMessage = seq;
    const me = c.members.get(entry.from);
    if (me && entry.kind === "message") me.readSeq = seq;
    this.tellAll(c, (events, uid) => {
      events.conversation(this.view(c, uid));
      events.entry(c.id, entry);
    });
    if (entry.kind === "message") this.onMessage(c, entry);
    return entry;
  }

  say(c: FakeConversation, from: string, body: Json, more: Partial<Entry> = {}): Entry {
    return this.store(c, { kind: "message", from, body, ...more });
  }

  refresh(c: FakeConversation): void {
    this.tellAll(c, (events, uid) => events.conversation(this.view(c, uid)));
  }

  /** A conversation as one of its members sees it. */
  view(c: FakeConversation, uid: string): Conversation {
    const me = c.members.get(uid);
    const read = me?.readSeq ?? c.last;
    let unread = 0;
    let mentions = 0;
    let firstMention = 0;
    for (let seq = c.last; seq > read && unread < 1000; seq--) {
      const e = this.at(c, seq);
      if (e?.kind !== "message") continue;
      unread++;
      if (e.mentionAll || e.mentions.includes(uid)) {
        mentions++;
        firstMention = seq;
      }
    }
    const last = this.at(c, c.lastMessage);
    const peer = c.type === "direct" ? [...c.members.values()].find((m) => m.uid !== uid) : undefined;
    return {
      id: c.id,
      type: c.type,
      title: c.title,
      avatar: "",
      announcement: c.announcement,
      owner: c.owner,
      dissolved: c.dissolved,
      muteAll: c.muteAll,
      members: c.members.size,
      lastSeq: c.last,
      lastAt: last?.serverTime ?? this.at(c, c.last)?.serverTime ?? 0,
      last,
      unread,
      mentions,
      firstMention,
      readSeq: read,
      role: me?.role ?? "none",
      visibleFrom: 1,
      joinPolicy: c.joinPolicy,
      historyOpen: c.historyOpen,
      peerReadSeq: peer?.readSeq ?? 0,
      peerDeliveredSeq: peer?.deliveredSeq ?? 0,
    };
  }

  setContact(uid: string, contact: Contact): void {
    const all = this.contacts.get(uid) ?? new Map<string, Contact>();
    if (contact.state === "none") all.delete(contact.uid);
    else all.set(contact.uid, contact);
    this.contacts.set(uid, all);
    this.tell(uid, (events) => events.contact(contact));
  }

  befriend(a: string, b: string, remark = ""): void {
    for (const [uid, other, r] of [
      [a, b, remark],
      [b, a, ""],
    ] as const) {
      const old = this.contacts.get(uid)?.get(other);
      this.setContact(uid, { uid: other, state: "accepted", remark: old?.remark || r, note: old?.note ?? "", changedAt: this.now() });
    }
  }

  settingsOf(uid: string, id: string): Settings {
    return this.settings.get(uid)?.get(id) ?? noSettings;
  }

  set(uid: string, id: string, change: Partial<Settings>): void {
    const all = this.settings.get(uid) ?? new Map<string, Settings>();
    const next = { ...this.settingsOf(uid, id), ...change };
    this.settings.set(uid, all.set(id, next));
    this.tell(uid, (events) => events.settings(id, next));
  }

  setPresence(uid: string, online: boolean, lastSeen = 0): void {
    const presence = { uid, online, platforms: online ? ["web"] : [], lastSeen };
    this.presences.set(uid, presence);
    for (const other of this.#ears.keys()) this.tell(other, (events) => events.presence(presence));
  }

  type(c: FakeConversation, uid: string, on: boolean): void {
    this.tellAll(c, (events) => events.typing(c.id, uid, on));
  }

  read(c: FakeConversation, uid: string, seq = c.last): void {
    const member = c.members.get(uid);
    if (!member || member.readSeq >= seq) return;
    member.readSeq = member.deliveredSeq = seq;
    this.tell(uid, (events) => events.conversation(this.view(c, uid)));
    this.tellAll(c, (events, other) => {
      if (other === uid) return;
      if (c.type === "direct") events.conversation(this.view(c, other));
      events.marker(c.id, uid, seq);
    });
  }
}
