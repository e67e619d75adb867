// The port on the SDK: what the messenger wants, said in the SDK's words.
import { Chat, type ChangeMethod, type Conversation as SdkConversation, HalleyError, IndexedDBStorage, type Outgoing as SdkOutgoing, type State, type UserChange } from "@halley-im/sdk";
import * as api from "../api.ts";
import {
  type Connection,
  type Contact,
  type Conversation,
  type Draft,
  type Entry,
  type GroupInfo,
  type InfoChange,
  type Json,
  type Member,
  noSettings,
  type Outgoing,
  type Page,
  peerOf,
  type Port,
  type PortEvents,
  type Presence,
  type Range,
  type Settings,
  type User,
  type Visibility,
} from "./types.ts";

export interface Credentials {
  /** Log in by this name again when the token ends; empty: the token is all there is. */
  name: string;
  uid: string;
  token: string;
}

/** A change that takes longer is on its way all the same: whoever waits for it need not. */
const longest = 8000;
/** Changes of the user's own are asked for in so many pages at most. */
const mostPages = 200;

type Fields = { [name: string]: Json };
type Waiting = { resolve: (o: SdkOutgoing) => void; reject: (error: unknown) => void };

export class SdkPort implements Port {
  readonly uid: string;
  readonly #chat: Chat;
  readonly #account: string;
  #credentials: Credentials;
  #events: PortEvents | undefined;
  readonly #conversations = new Map<string, Conversation>();
  readonly #settings = new Map<string, Settings>();
  /** Numbers of the newest user changes by kind and object: they come from two sides. */
  readonly #numbers = new Map<string, number>();
  /** How far the other side of direct conversations was told to be. */
  readonly #peers = new Map<string, { read: number; delivered: number }>();
  readonly #waiting = new Map<string, Waiting>();
  #open = "";
  /** Whether all that concerns the user alone was asked for. */
  #own = false;
  #watched: string[] = [];

  /** keep is told of each new token. */
  constructor(credentials: Credentials, first: api.Endpoint[], keep: (token: string) => void) {
    this.uid = credentials.uid;
    this.#credentials = credentials;
    this.#account = credentials.uid;
    this.#chat = new Chat({
      account: this.#account,
      url: (attempt) => api.cometUrl(attempt, first),
      token: (reason) => this.#token(reason, keep),
    });
  }

  now(): number {
    return Date.now();
  }

  start(events: PortEvents): void {
    this.#events = events;
    const chat = this.#chat;
    chat.on("state", (state) => events.connection(connectionOf(state)));
    chat.on("session", () => this.#session());
    chat.on("synced", () => void this.#readOwn());
    chat.on("conversations", (all) => {
      for (const c of all) this.#conversation(c);
    });
    chat.on("gone", (id) => {
      const c = this.#conversations.get(id);
      // It stays in view until the page is opened again, with nothing to be done in it.
      if (c) this.#put({ ...c, role: "none", unread: 0, mentions: 0 });
    });
    chat.on("entries", ({ conversation, entries, reset }) => {
      for (const entry of entries) events.entry(conversation, entry as Entry);
      if (reset) events.reset(conversation);
    });
    chat.on("outgoing", (o) => this.#outgoing(o));
    chat.on("discarded", (id) => events.outgoing({ ...nothing, id }, true));
    chat.on("change", (change) => this.#change(change));
    chat.on("event", (event) => this.#event(event as unknown as Fields));
    chat.start();
  }

  async close(forget: boolean): Promise<void> {
    await this.#chat.close();
    if (!forget || !("indexedDB" in globalThis)) return;
    const storage = new IndexedDBStorage(this.#account);
    await storage.clear().catch(() => {
      // Private windows may have none.
    });
    storage.close();
  }

  retryNow(): void {
    this.#chat.retryNow();
  }

  // ---- what comes ----

  /** What the server keeps by connection is said again. */
  #session(): void {
    if (this.#open) this.opened(this.#open);
    if (this.#watched.length > 0) this.watch(this.#watched);
  }

  /**
   * Asks for all that concerns the user alone. A device is told each change once, and those of sessions before this page are
   * not kept: from then on they come by themselves.
   */
  async #readOwn(): Promise<void> {
    if (this.#own) return;
    this.#own = true;
    try {
      const conversations = Object.fromEntries(this.#chat.conversations.map((c) => [c.id, c.lastSeq]));
      let number = 0;
      for (let i = 0; i < mostPages; i++) {
        const page = await this.#ask("sync", { conversations, user_change: number });
        const changes = list(page.user_changes) as unknown as UserChange[];
        for (const change of changes) {
          this.#change(change);
          number = Math.max(number, change.number);
        }
        if (!page.more || changes.length === 0) break;
      }
    } catch {
      // The next time.
      this.#own = false;
    }
  }

  #conversation(c: SdkConversation): void {
    const peer = this.#peers.get(c.id);
    this.#put({
      ...(c as unknown as Conversation),
      peerReadSeq: Math.max(c.peerReadSeq, peer?.read ?? 0),
      peerDeliveredSeq: Math.max(c.peerDeliveredSeq, peer?.delivered ?? 0),
    });
  }

  #put(c: Conversation): void {
    this.#conversations.set(c.id, c);
    this.#events?.conversation(c);
  }

  #outgoing(o: SdkOutgoing): void {
    const waiting = this.#waiting.get(o.id);
    if (waiting && (o.seq > 0 || o.stage === "failed")) {
      this.#waiting.delete(o.id);
      if (o.seq > 0) waiting.resolve(o);
      else waiting.reject(new HalleyError(o.error?.code ?? "internal", o.error?.message ?? ""));
    }
    if (o.method === "message.send") this.#events?.outgoing(outgoingOf(o), o.seq > 0);
    // Changes that failed are told to who made them; they aren't tried again by hand.
    else if (o.stage === "failed") void this.#chat.discard(o.id);
  }

  #change({ number, kind, object, value }: UserChange): void {
    const key = `${kind} ${object}`;
    if (number <= (this.#numbers.get(key) ?? 0)) return;
    this.#numbers.set(key, number);
    const v = fields(value as Json);
    const e = this.#events;
    switch (kind) {
      case "mute":
      case "pin":
      case "hide":
        return this.#setting(object, { [kind]: v.on === true });
      case "draft":
        return this.#setting(object, { draft: text(v.text) });
      case "clear":
        return this.#setting(object, { clear: figure(v.seq) });
      case "delete": {
        const cut = object.lastIndexOf("/");
        return e?.deleted(object.slice(0, cut), Number(object.slice(cut + 1)));
      }
      case "contact":
        return e?.contact({ ...contactOf({ ...v, uid: object }), changedAt: figure(v.changed_at) || this.now() });
      case "block":
        return e?.blocked(object, v.on === true);
      case "group_request": {
        const cut = object.lastIndexOf("/");
        const state = text(v.state) as "asked" | "accepted" | "declined";
        return e?.groupRequest({ conversation: object.slice(0, cut), uid: object.slice(cut + 1), note: text(v.note), state });
      }
    }
  }

  #setting(id: string, change: Partial<Settings>): void {
    const next = { ...(this.#settings.get(id) ?? noSettings), ...change };
    this.#settings.set(id, next);
    this.#events?.settings(id, next);
  }

  #event(event: Fields): void {
    const typing = event.typing;
    const read = event["conversation.read"];
    const presence = event.presence;
    if (typing) {
      const f = fields(typing);
      this.#events?.typing(text(f.conversation), text(f.uid), f.off !== true);
    } else if (read) this.#marker(fields(read));
    else if (presence) this.#events?.presence(presenceOf(fields(presence)));
  }

  #marker(f: Fields): void {
    const id = text(f.conversation);
    const uid = text(f.uid);
    const [read, delivered] = [figure(f.read_seq), figure(f.delivered_seq)];
    if (uid === peerOf(id, this.uid)) {
      const old = this.#peers.get(id);
      this.#peers.set(id, { read: Math.max(read, old?.read ?? 0), delivered: Math.max(delivered, read, old?.delivered ?? 0) });
      const c = this.#chat.conversation(id);
      if (c) this.#conversation(c);
    }
    this.#events?.marker(id, uid, read);
  }

  // ---- asking ----

  /** A request by its name. The SDK has the types of those that it makes itself. */
  async #ask(method: string, params: object): Promise<Fields> {
    return (await this.#chat.request(method as "sync", params)) as unknown as Fields;
  }

  /** Waits for what becomes of something sent. */
  #outcome(o: SdkOutgoing): Promise<SdkOutgoing> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(o.id, { resolve, reject });
      setTimeout(() => {
        if (this.#waiting.delete(o.id)) resolve(o);
      }, longest);
    });
  }

  async #do(method: ChangeMethod, params: object): Promise<void> {
    await this.#outcome(this.#chat.change(method, params as never));
  }

  async #token(reason: string, keep: (token: string) => void): Promise<string> {
    const { name, token } = this.#credentials;
    if (reason === "connect" || name === "") return token;
    const fresh = await api.logIn(name);
    this.#credentials = { ...this.#credentials, token: fresh.token };
    keep(fresh.token);
    return fresh.token;
  }

  async history(conversation: string, range: Range): Promise<Entry[]> {
    try {
      return (await this.#chat.history(conversation, range)) as Entry[];
    } catch (error) {
      // Nothing was said to him yet.
      if (error instanceof HalleyError && error.code === "not_found" && conversation.startsWith("d/")) return [];
      throw error;
    }
  }

  async pinned(conversation: string): Promise<Entry[]> {
    const { entries } = await this.#ask("conversation.pinned", { conversation });
    return list(entries).map(entryOf);
  }

  async members(conversation: string, { cursor, limit, readSeq }: { cursor: string; limit: number; readSeq?: number }): Promise<Page<Member>> {
    const page = await this.#ask("conversation.members", { conversation, cursor, limit, ...(readSeq !== undefined && { read_seq: readSeq }) });
    return {
      items: list(page.members).map((m) => ({
        uid: text(m.uid),
        role: text(m.role),
        readSeq: figure(m.read_seq),
        deliveredSeq: figure(m.delivered_seq),
        mutedUntil: figure(m.muted_until),
        joinedAt: figure(m.joined_at),
      })),
      next: text(page.next),
    };
  }

  async reactors(conversation: string, seq: number, reaction: string): Promise<string[]> {
    const { uids } = await this.#ask("message.reactors", { conversation, seq, reaction, limit: 200 });
    return texts(uids);
  }

  // ---- messages ----

  send(conversation: string, { body, mentions, mentionAll }: Draft): void {
    this.#chat.send(conversation, body, { mentions, mentionAll });
  }

  resend(id: string): void {
    void this.#chat.retry(id);
  }

  discard(id: string): void {
    void this.#chat.discard(id);
  }

  async edit(conversation: string, seq: number, { body, mentions, mentionAll }: Draft): Promise<void> {
    await this.#outcome(this.#chat.edit(conversation, seq, body, { mentions, mentionAll }));
  }

  async recall(conversation: string, seq: number): Promise<void> {
    await this.#outcome(this.#chat.recall(conversation, seq));
  }

  async react(conversation: string, seq: number, reaction: string, on: boolean): Promise<void> {
    await this.#outcome(this.#chat.react(conversation, seq, reaction, !on));
  }

  async pin(conversation: string, seq: number, on: boolean): Promise<void> {
    await this.#outcome(this.#chat.pin(conversation, seq, !on));
  }

  async delete(conversation: string, seq: number): Promise<void> {
    await this.#ask("message.delete", { conversation, seq });
    this.#events?.deleted(conversation, seq);
  }

  read(conversation: string): void {
    this.#chat.read(conversation);
  }

  typing(conversation: string, on: boolean): void {
    void this.#ask("typing", { conversation, off: !on }).catch(() => {
      // Nobody misses it.
    });
  }

  opened(conversation: string): void {
    const before = this.#open;
    this.#open = conversation;
    const peer = peerOf(conversation, this.uid);
    if (peer && this.#chat.conversation(conversation)) this.#chat.markers(conversation).catch(() => {});
    if (!conversation.startsWith("g/") && !before.startsWith("g/")) return;
    void this.#ask("conversation.open", { conversation: conversation.startsWith("g/") ? conversation : "" }).catch(() => {
      // The next session says it again.
    });
  }

  async set(conversation: string, change: Partial<Settings>): Promise<void> {
    await this.#ask("conversation.set", { conversation, ...change });
    this.#setting(conversation, change);
  }

  // ---- groups ----

  async createGroup(title: string, members: string[]): Promise<string> {
    const { conversation } = await this.#outcome(this.#chat.createGroup(title, members));
    if (!conversation) throw new HalleyError("unavailable", "the group isn’t there yet");
    return conversation;
  }

  addMembers(conversation: string, members: string[]): Promise<void> {
    return this.#do("group.add", { conversation, members });
  }

  removeMembers(conversation: string, members: string[]): Promise<void> {
    return this.#do("group.remove", { conversation, members });
  }

  leave(conversation: string): Promise<void> {
    return this.#do("group.leave", { conversation });
  }

  setRole(conversation: string, uid: string, role: "member" | "admin" | "owner"): Promise<void> {
    return this.#do("group.role", { conversation, members: [uid], role });
  }

  muteMembers(conversation: string, members: string[], until: number): Promise<void> {
    return this.#do("group.mute", { conversation, members, until });
  }

  setInfo(conversation: string, { title, avatar, announcement, joinPolicy, muteAll, historyOpen }: InfoChange): Promise<void> {
    const info = { title, avatar, announcement, join_policy: joinPolicy, mute_all: muteAll, history_open: historyOpen };
    return this.#do("group.info", { conversation, ...Object.fromEntries(Object.entries(info).filter(([, value]) => value !== undefined)) });
  }

  dissolve(conversation: string): Promise<void> {
    return this.#do("group.dissolve", { conversation });
  }

  async askToJoin(conversation: string, note: string): Promise<void> {
    await this.#ask("group.ask", { conversation, note });
  }

  async answerJoin(conversation: string, uid: string, accept: boolean): Promise<void> {
    await this.#ask("group.answer", { conversation, uid, accept, client_msg_id: crypto.randomUUID?.() ?? `${Date.now()}-${uid}` });
  }

  // ---- people ----

  async users(uids: string[]): Promise<User[]> {
    const { users } = await this.#ask("user.get", { uids });
    return list(users).map(userOf);
  }

  async searchUsers(query: string): Promise<User[]> {
    const { users } = await this.#ask("user.search", { query });
    return list(users).map(userOf);
  }

  async updateMe(change: { name?: string; avatar?: string; visibility?: Visibility }): Promise<User> {
    return userOf(await this.#ask("user.update", change));
  }

  async askContact(uid: string, note: string, remark: string): Promise<void> {
    await this.#ask("contact.ask", { uid, note, remark });
  }

  async answerContact(uid: string, accept: boolean, remark: string): Promise<void> {
    await this.#ask("contact.answer", { uid, accept, remark });
  }

  async setRemark(uid: string, remark: string): Promise<void> {
    await this.#ask("contact.remark", { uid, remark });
  }

  async removeContact(uid: string): Promise<void> {
    await this.#ask("contact.remove", { uid });
  }

  async block(uid: string, on: boolean): Promise<void> {
    await this.#ask("block.set", { uid, off: !on });
    this.#events?.blocked(uid, on);
  }

  watch(uids: string[]): void {
    const gone = this.#watched.filter((uid) => !uids.includes(uid));
    this.#watched = uids;
    if (gone.length > 0) void this.#ask("presence.unwatch", { uids: gone }).catch(() => {});
    if (uids.length === 0) return;
    this.#ask("presence.watch", { uids }).then(
      ({ states }) => {
        for (const state of list(states)) this.#events?.presence(presenceOf(state));
      },
      () => {
        // The next session asks again.
      },
    );
  }
}

const nothing: Outgoing = { id: "", conversation: "", body: null, mentions: [], mentionAll: false, stage: "stored", at: 0, error: undefined };

function connectionOf(state: State): Connection {
  switch (state.name) {
    case "online":
      return { name: "online" };
    case "waiting":
      return { name: "waiting", until: state.until };
    case "closed":
      return { name: "closed", code: state.error.code, message: state.error.message };
    default:
      return { name: "connecting" };
  }
}

function outgoingOf(o: SdkOutgoing): Outgoing {
  const params = o.params as { body?: Json; mentions?: string[]; mention_all?: boolean };
  return {
    id: o.id,
    conversation: o.conversation,
    body: params.body ?? null,
    mentions: params.mentions ?? [],
    mentionAll: params.mention_all ?? false,
    stage: o.stage,
    at: o.at,
    error: o.error,
  };
}

function contactOf(f: Fields): Contact {
  const state = text(f.state);
  return {
    uid: text(f.uid),
    state: state === "requested" || state === "asked" || state === "accepted" ? state : "none",
    remark: text(f.remark),
    note: text(f.note),
    changedAt: figure(f.changed_at),
  };
}

function entryOf(f: Fields): Entry {
  return {
    seq: figure(f.seq),
    kind: text(f.kind),
    from: text(f.from),
    clientMsgId: text(f.client_msg_id),
    serverTime: figure(f.server_time),
    msgNo: figure(f.msg_no),
    changedSeq: figure(f.changed_seq) || figure(f.seq),
    target: figure(f.target),
    body: f.body ?? null,
    mentions: texts(f.mentions),
    mentionAll: f.mention_all === true,
    members: texts(f.members),
    role: text(f.role),
    mutedUntil: figure(f.muted_until),
    reaction: text(f.reaction),
    off: f.off === true,
    info: f.info === undefined ? undefined : (fields(f.info) as GroupInfo),
    edited: f.edited === true,
    recalled: f.recalled === true,
    pinned: f.pinned === true,
    reactions: list(f.reactions).map((r) => ({ reaction: text(r.reaction), count: figure(r.count), uids: texts(r.uids) })),
  };
}

function userOf(f: Fields): User {
  const user: User = { uid: text(f.uid), name: text(f.name), avatar: text(f.avatar) };
  if (f.visibility === "contacts" || f.visibility === "all" || f.visibility === "nobody") user.visibility = f.visibility;
  return user;
}

function presenceOf(f: Fields): Presence {
  return { uid: text(f.uid), online: f.online === true, platforms: texts(f.platforms), lastSeen: figure(f.last_seen) };
}

// JSON from the wire: what isn't as it should be is as if it weren't there.
const text = (value: Json | undefined): string => (typeof value === "string" ? value : "");
const figure = (value: Json | undefined): number => (typeof value === "number" ? value : 0);
const texts = (value: Json | undefined): string[] => (Array.isArray(value) ? value.map(text) : []);
const fields = (value: Json | undefined): Fields => (typeof value === "object" && value !== null && !Array.isArray(value) ? value : {});
const list = (value: Json | undefined): Fields[] => (Array.isArray(value) ? value.map(fields) : []);
