// The port on the SDK: what the messenger wants, said in the SDK's words.
import { Chat, type ChangeMethod, HalleyError, IndexedDBStorage, type Outgoing as SdkOutgoing, type State, type UserChange } from "@halley-im/sdk";
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
/** What concerns the user alone. */
const ownKinds = ["mute", "pin", "hide", "draft", "clear", "delete", "contact", "block", "group_request"];

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
  readonly #waiting = new Map<string, Waiting>();
  /** Whether what concerns the user alone was taken over. */
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
    chat.on("session", () => this.watch(this.#watched));
    chat.on("synced", () => this.#readOwn());
    chat.on("marker", ({ conversation, uid, readSeq }) => events.marker(conversation, uid, readSeq));
    chat.on("typing", ({ conversation, uid, off }) => events.typing(conversation, uid, !off));
    chat.on("conversations", (all) => {
      for (const c of all) this.#put(c as unknown as Conversation);
      // What was kept of an earlier visit is there as soon as the list is.
      if (!this.#own) this.#readOwn();
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

  /** Takes over all that concerns the user alone; what changes of it is told from then on. */
  #readOwn(): void {
    this.#own = true;
    for (const kind of ownKinds) {
      for (const [object, value] of this.#chat.changes(kind)) this.#change({ number: 0, kind, object, value });
    }
  }

  #put(c: Conversation): void {
    this.#conversations.set(c.id, c);
    this.#events?.conversation(c);
  }

  #outgoing(o: SdkOutgoing): void {
    const waiting = this.#waiting.get(o.id);
    const placed = o.stage === "stored" || o.seq > 0;
    if (waiting && (placed || o.stage === "failed")) {
      this.#waiting.delete(o.id);
      if (placed) waiting.resolve(o);
      else waiting.reject(new HalleyError(o.error?.code ?? "internal", o.error?.message ?? ""));
    }
    if (o.method === "message.send") this.#events?.outgoing(outgoingOf(o), placed);
    // Changes that failed are told to who made them; they aren't tried again by hand.
    else if (o.stage === "failed") void this.#chat.discard(o.id);
  }

  #change({ kind, object, value }: UserChange): void {
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
    if (event.presence) this.#events?.presence(presenceOf(fields(event.presence)));
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
    this.#chat.typing(conversation, !on);
  }

  opened(conversation: string): void {
    this.#chat.open(conversation);
    if (peerOf(conversation, this.uid) && this.#chat.conversation(conversation)) {
      this.#chat.markers(conversation).catch(() => {
        // The next one that moves tells.
      });
    }
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
