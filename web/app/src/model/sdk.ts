// The port on the SDK: what the messenger wants, said in the SDK's words.
import { Chat, type ChangeMethod, entryOf, HalleyError, IndexedDBStorage, type Outgoing as SdkOutgoing, type Params, type State, type UserChange, type wire } from "@halley-im/sdk";
import type { Phone, RelayReport } from "@halley-im/sdk/call";
import * as api from "../api.ts";
import { justBefore } from "./cursor.ts";
import { Drafts } from "./drafts.ts";
import { Profiles } from "./profiles.ts";
import {
  type Connection,
  type Contact,
  type Conversation,
  type Draft,
  type Entry,
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
/** Pushes of this op are text for people: what /admin sends to everybody, unless it is told another one. */
const noticeOp = 1000;
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
  readonly #profiles: Profiles;
  #phone: Promise<Phone> | undefined;
  readonly #drafts: Drafts;

  /** keep is told of each new token. */
  constructor(credentials: Credentials, first: api.Endpoint[], keep: (token: string) => void) {
    this.uid = credentials.uid;
    this.#credentials = credentials;
    this.#account = credentials.uid;
    this.#profiles = new Profiles(credentials.uid);
    this.#drafts = new Drafts(credentials.uid);
    this.#chat = new Chat({
      account: this.#account,
      url: (attempt) => api.cometUrl(attempt, first),
      token: (reason) => this.#token(reason, keep),
    });
  }

  now(): number {
    return this.#chat.now();
  }

  start(events: PortEvents): void {
    this.#events = events;
    const chat = this.#chat;
    chat.on("state", (state) => events.connection(connectionOf(state)));
    chat.on("session", () => {
      this.watch(this.#watched);
      void this.#lookForCalls();
    });
    chat.on("event", (event) => {
      if (!this.#phone && Object.keys(event).some((name) => name.startsWith("call."))) events.calls();
    });
    chat.on("synced", () => {
      this.#readOwn();
      events.synced();
    });
    chat.on("marker", ({ conversation, uid, readSeq }) => events.marker(conversation, uid, readSeq));
    chat.on("typing", ({ conversation, uid, off }) => events.typing(conversation, uid, !off));
    chat.on("conversations", (all) => {
      for (const c of all) this.#put(c);
      // What was kept of an earlier visit is there as soon as the list is.
      if (!this.#own) this.#readOwn();
    });
    chat.on("gone", (id) => {
      const c = this.#conversations.get(id);
      // It stays in view until the page is opened again, with nothing to be done in it.
      if (c) this.#put({ ...c, role: "none", unread: 0, mentions: 0 });
    });
    chat.on("entries", ({ conversation, entries, reset }) => {
      for (const entry of entries) events.entry(conversation, entry);
      if (reset) events.reset(conversation);
    });
    chat.on("outgoing", (o) => this.#outgoing(o));
    chat.on("discarded", (id) => events.outgoing({ ...nothing, id }, true));
    chat.on("change", (change) => this.#change(change));
    chat.on("presence", (presence) => events.presence(presence));
    chat.on("push", ({ op, body }) => op === noticeOp && events.notice(new TextDecoder().decode(body)));
    for (const user of this.#profiles.all) events.user(user, true);
    chat.start();
  }

  async close(forget: boolean): Promise<void> {
    await this.#chat.close();
    if (!forget) return;
    this.#profiles.forget();
    this.#drafts.forget();
    if (!("indexedDB" in globalThis)) return;
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

  // ---- asking ----

  /** Waits for what becomes of something sent. */
  #outcome(o: SdkOutgoing): Promise<SdkOutgoing> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(o.id, { resolve, reject });
      setTimeout(() => {
        if (this.#waiting.delete(o.id)) resolve(o);
      }, longest);
    });
  }

  async #do<M extends ChangeMethod>(method: M, params: Omit<Params<M>, "client_msg_id">): Promise<void> {
    await this.#outcome(this.#chat.change(method, params));
  }

  async #token(reason: string, keep: (token: string) => void): Promise<string> {
    const { name, token } = this.#credentials;
    if (reason === "connect" || name === "") return token;
    const fresh = await api.logIn(name);
    this.#credentials = { ...this.#credentials, token: fresh.token };
    keep(fresh.token);
    return fresh.token;
  }

  // ---- calls ----

  phone(): Promise<Phone> {
    this.#phone ??= import("@halley-im/sdk/call").then(
      ({ Phone, lineOf }) => new Phone(lineOf(this.#chat)),
      (error) => {
        // The network may be better the next time.
        this.#phone = undefined;
        throw error;
      },
    );
    return this.#phone;
  }

  async testRelays(): Promise<RelayReport> {
    const { testRelays, lineOf } = await import("@halley-im/sdk/call");
    return testRelays(lineOf(this.#chat));
  }

  async hasCall(conversation: string): Promise<boolean> {
    const { calls } = await this.#chat.request("call.current", { conversation });
    return (calls ?? []).length > 0;
  }

  /** Asks whether something rings, or goes on since before a reload: else nothing of calls is loaded. */
  async #lookForCalls(): Promise<void> {
    if (this.#phone) return;
    try {
      const { calls } = await this.#chat.request("call.current", {});
      if (calls?.length) this.#events?.calls();
    } catch {
      // A server without calls, or a bad moment: what rings is told by an event as well.
    }
  }

  async history(conversation: string, range: Range): Promise<Entry[]> {
    if (this.#chat.state.name !== "online" && range.from === undefined) {
      const kept = await this.#chat.kept(conversation, range).catch(() => []);
      if (kept.length > 0) return kept;
    }
    try {
      return await this.#chat.history(conversation, range);
    } catch (error) {
      // Nothing was said to him yet.
      if (error instanceof HalleyError && error.code === "not_found" && conversation.startsWith("d/")) return [];
      throw error;
    }
  }

  async pinned(conversation: string): Promise<Entry[]> {
    const { entries } = await this.#chat.request("conversation.pinned", { conversation });
    return (entries ?? []).map(entryOf);
  }

  async members(conversation: string, { cursor, limit, readSeq }: { cursor: string; limit: number; readSeq?: number }): Promise<Page<Member>> {
    const page = await this.#chat.request("conversation.members", { conversation, cursor, limit, ...(readSeq !== undefined && { read_seq: readSeq }) });
    return { items: (page.members ?? []).map(memberOf), next: page.next ?? "" };
  }

  async member(conversation: string, uid: string): Promise<Member | undefined> {
    const { items } = await this.members(conversation, { cursor: justBefore(uid), limit: 1 });
    return items.find((member) => member.uid === uid);
  }

  async reactors(conversation: string, seq: number, reaction: string): Promise<string[]> {
    const { uids } = await this.#chat.request("message.reactors", { conversation, seq, reaction, limit: 200 });
    return uids ?? [];
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
    await this.#chat.request("message.delete", { conversation, seq });
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
    await this.#chat.request("conversation.set", { conversation, ...change });
    this.#setting(conversation, change);
  }

  keptDrafts(): ReadonlyMap<string, string> {
    return this.#drafts.all;
  }

  keepDraft(conversation: string, text: string | undefined): void {
    this.#drafts.keep(conversation, text);
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
    await this.#chat.request("group.ask", { conversation, note });
  }

  async answerJoin(conversation: string, uid: string, accept: boolean): Promise<void> {
    await this.#chat.request("group.answer", { conversation, uid, accept, client_msg_id: crypto.randomUUID?.() ?? `${Date.now()}-${uid}` });
  }

  // ---- people ----

  async users(uids: string[]): Promise<User[]> {
    const { users } = await this.#chat.request("user.get", { uids });
    const all = (users ?? []).map(userOf);
    this.#profiles.keep(all);
    return all;
  }

  async searchUsers(query: string): Promise<User[]> {
    const { users } = await this.#chat.request("user.search", { query });
    return (users ?? []).map(userOf);
  }

  async updateMe(change: { name?: string; avatar?: string; visibility?: Visibility }): Promise<User> {
    const me = userOf(await this.#chat.request("user.update", change));
    this.#profiles.keep([me]);
    return me;
  }

  async askContact(uid: string, note: string, remark: string): Promise<void> {
    await this.#chat.request("contact.ask", { uid, note, remark });
  }

  async answerContact(uid: string, accept: boolean, remark: string): Promise<void> {
    await this.#chat.request("contact.answer", { uid, accept, remark });
  }

  async setRemark(uid: string, remark: string): Promise<void> {
    await this.#chat.request("contact.remark", { uid, remark });
  }

  async removeContact(uid: string): Promise<void> {
    await this.#chat.request("contact.remove", { uid });
  }

  async block(uid: string, on: boolean): Promise<void> {
    await this.#chat.request("block.set", { uid, off: !on });
    this.#events?.blocked(uid, on);
  }

  watch(uids: string[]): void {
    const gone = this.#watched.filter((uid) => !uids.includes(uid));
    this.#watched = uids;
    if (gone.length > 0) void this.#chat.request("presence.unwatch", { uids: gone }).catch(() => {});
    if (uids.length === 0) return;
    this.#chat.request("presence.watch", { uids }).then(
      ({ states }) => {
        for (const state of states ?? []) this.#events?.presence(presenceOf(state));
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

function memberOf(m: wire.ConversationMember): Member {
  const { uid = "", role = "", read_seq: readSeq = 0, delivered_seq: deliveredSeq = 0, muted_until: mutedUntil = 0, joined_at: joinedAt = 0 } = m;
  return { uid, role, readSeq, deliveredSeq, mutedUntil, joinedAt };
}

function userOf({ uid = "", name = "", avatar = "", visibility }: wire.User): User {
  const user: User = { uid, name, avatar };
  if (visibility === "contacts" || visibility === "all" || visibility === "nobody") user.visibility = visibility;
  return user;
}

function presenceOf({ uid = "", online = false, platforms = [], last_seen: lastSeen = 0 }: wire.Presence): Presence {
  return { uid, online, platforms, lastSeen };
}

// Values of user changes: what isn't as it should be is as if it weren't there.
const text = (value: Json | undefined): string => (typeof value === "string" ? value : "");
const figure = (value: Json | undefined): number => (typeof value === "number" ? value : 0);
const fields = (value: Json | undefined): Fields => (typeof value === "object" && value !== null && !Array.isArray(value) ? value : {});
