import type { Connection, Draft, Entry, InfoChange, Member, Outgoing, Page, Port, PortEvents, Range, Settings, User, Visibility } from "../types.ts";
import { type FakeConversation, type NewEntry, Refusal, type World } from "./world.ts";

let lastId = 0;

/** One user's connection to a World. It can be cut, and it can be slow. */
export class FakePort implements Port {
  readonly uid: string;
  /** How long answers take. */
  delay = 0;
  /** What the device keeps; another port that is given it is the same device after a reload. */
  readonly device: Map<string, string>;
  readonly #world: World;
  readonly #outgoing = new Map<string, Outgoing>();
  #events: PortEvents | undefined;
  #deaf: (() => void) | undefined;
  #online = true;

  constructor(world: World, uid: string, device = new Map<string, string>()) {
    this.device = device;
    this.#world = world;
    this.uid = uid;
    world.user(uid);
  }

  now(): number {
    return this.#world.now();
  }

  start(events: PortEvents): void {
    this.#events = events;
    this.#connect();
  }

  async close(): Promise<void> {
    this.#deaf?.();
  }

  /** Cuts the line, or mends it: then all that was missed is told. */
  setOnline(online: boolean): void {
    if (online === this.#online) return;
    this.#online = online;
    if (online) {
      this.#connect();
      for (const c of this.#world.conversations.values()) if (c.members.has(this.uid)) this.#events?.reset(c.id);
      for (const o of [...this.#outgoing.values()]) if (o.stage === "sending") void this.#deliver(o);
    } else {
      this.#deaf?.();
      this.#tell({ name: "waiting", until: Date.now() + 8000 });
    }
  }

  retryNow(): void {
    this.setOnline(true);
  }

  #tell(state: Connection): void {
    this.#events?.connection(state);
  }

  #connect(): void {
    const events = this.#events;
    if (!events) return;
    const w = this.#world;
    this.#deaf = w.hear(this.uid, events);
    for (const c of w.conversations.values()) if (c.members.has(this.uid)) events.conversation(w.view(c, this.uid));
    for (const [id, s] of w.settings.get(this.uid) ?? []) events.settings(id, s);
    for (const contact of w.contacts.get(this.uid)?.values() ?? []) events.contact(contact);
    for (const uid of w.blocks.get(this.uid) ?? []) events.blocked(uid, true);
    for (const c of w.conversations.values()) {
      if (this.#manages(c)) for (const request of c.requests.values()) events.groupRequest(request);
    }
    this.#tell({ name: "online" });
    events.synced();
  }

  async #answer<T>(what: () => T): Promise<T> {
    await new Promise((resolve) => setTimeout(resolve, this.delay));
    if (!this.#online) throw new Refusal("unavailable");
    return what();
  }

  #conversation(id: string): FakeConversation {
    const c = this.#world.conversations.get(id);
    if (!c) throw new Refusal("not_found");
    return c;
  }

  #role(c: FakeConversation): string {
    return c.members.get(this.uid)?.role ?? "none";
  }

  #manages(c: FakeConversation): boolean {
    const role = this.#role(c);
    return role === "owner" || role === "admin";
  }

  #change(id: string, right: (c: FakeConversation) => boolean, entry: Omit<NewEntry, "from">): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      if (!c.members.has(this.uid)) throw new Refusal("not_member");
      if (!right(c)) throw new Refusal("forbidden");
      this.#world.store(c, { ...entry, from: this.uid } as NewEntry);
    });
  }

  // ---- reading ----

  history(id: string, { before, from, to, limit }: Range): Promise<Entry[]> {
    return this.#answer(() => {
      const c = this.#world.conversations.get(id);
      const out: Entry[] = [];
      if (!c) return out;
      const high = before !== undefined ? before - 1 : from !== undefined ? Math.min(to ?? c.last, c.last, from + limit - 1) : c.last;
      const low = from ?? Math.max(1, high - limit + 1);
      for (let seq = low; seq <= high; seq++) {
        const e = this.#world.at(c, seq);
        if (e) out.push(e);
      }
      return out;
    });
  }

  pinned(id: string): Promise<Entry[]> {
    return this.#answer(() => [...(this.#world.conversations.get(id)?.entries.values() ?? [])].filter((e) => e.pinned).sort((a, b) => a.seq - b.seq));
  }

  members(id: string, { cursor, limit, readSeq }: { cursor: string; limit: number; readSeq?: number }): Promise<Page<Member>> {
    return this.#answer(() => {
      const all = [...this.#conversation(id).members.values()]
        .filter((m) => m.uid > cursor && (readSeq === undefined || m.readSeq >= readSeq))
        .sort((a, b) => (a.uid < b.uid ? -1 : 1));
      const items = all.slice(0, limit).map((m) => ({ ...m }));
      return { items, next: all.length > limit ? (items.at(-1)?.uid ?? "") : "" };
    });
  }

  member(id: string, uid: string): Promise<Member | undefined> {
    return this.#answer(() => {
      const member = this.#conversation(id).members.get(uid);
      return member && { ...member };
    });
  }

  reactors(id: string, seq: number, reaction: string): Promise<string[]> {
    return this.#answer(() => this.#world.at(this.#conversation(id), seq)?.reactions.find((r) => r.reaction === reaction)?.uids ?? []);
  }

  // ---- messages ----

  send(conversation: string, draft: Draft): void {
    const id = `fake-${this.uid}-${++lastId}`;
    void this.#deliver({ id, conversation, ...draft, stage: "sending", at: this.now(), error: undefined });
  }

  resend(id: string): void {
    const o = this.#outgoing.get(id);
    if (o) void this.#deliver({ ...o, stage: "sending", error: undefined });
  }

  discard(id: string): void {
    const o = this.#outgoing.get(id);
    if (!o) return;
    this.#outgoing.delete(id);
    this.#events?.outgoing(o, true);
  }

  async #deliver(o: Outgoing): Promise<void> {
    this.#outgoing.set(o.id, o);
    this.#events?.outgoing(o, false);
    try {
      await this.#answer(() => {
        const [type, a = "", b = ""] = o.conversation.split("/");
        const peer = a === this.uid ? b : a;
        const c = type === "d" ? this.#world.direct(a, b) : this.#conversation(o.conversation);
        const me = c.members.get(this.uid);
        if (!me) throw new Refusal("not_member");
        if (type === "d" && this.#world.blocks.get(peer)?.has(this.uid)) throw new Refusal("blocked");
        if (me.mutedUntil > this.now() || (c.muteAll && me.role === "member")) throw new Refusal("muted");
        if (o.mentionAll && !this.#manages(c)) throw new Refusal("forbidden");
        if (JSON.stringify(o.body).length > 32 << 10) throw new Refusal("too_large");
        // One that was stored before has its outcome.
        if ([...c.entries.values()].some((e) => e.from === this.uid && e.clientMsgId === o.id)) return;
        this.#world.say(c, this.uid, o.body, { clientMsgId: o.id, mentions: o.mentions, mentionAll: o.mentionAll });
      });
      this.#outgoing.delete(o.id);
      this.#events?.outgoing({ ...o, stage: "stored" }, true);
    } catch (reason) {
      // Without a line it waits for one.
      if (reason instanceof Refusal && reason.code !== "unavailable") {
        const failed: Outgoing = { ...o, stage: "failed", error: { code: reason.code, message: reason.message } };
        this.#outgoing.set(o.id, failed);
        this.#events?.outgoing(failed, false);
      }
    }
  }

  edit(id: string, seq: number, draft: Draft): Promise<void> {
    return this.#change(id, (c) => this.#world.at(c, seq)?.from === this.uid, { kind: "edit", target: seq, ...draft });
  }

  recall(id: string, seq: number): Promise<void> {
    return this.#change(id, (c) => this.#world.at(c, seq)?.from === this.uid || this.#manages(c), { kind: "recall", target: seq });
  }

  react(id: string, seq: number, reaction: string, on: boolean): Promise<void> {
    return this.#change(id, () => true, { kind: "reaction", target: seq, reaction, off: !on });
  }

  pin(id: string, seq: number, on: boolean): Promise<void> {
    return this.#change(id, (c) => c.type === "direct" || this.#manages(c), { kind: "pin", target: seq, off: !on });
  }

  delete(id: string, seq: number): Promise<void> {
    return this.#answer(() => this.#world.tell(this.uid, (events) => events.deleted(id, seq)));
  }

  read(id: string): void {
    const c = this.#world.conversations.get(id);
    if (c && this.#online) this.#world.read(c, this.uid);
  }

  typing(id: string, on: boolean): void {
    const c = this.#world.conversations.get(id);
    if (c && this.#online) this.#world.type(c, this.uid, on);
  }

  opened(): void {}

  set(id: string, change: Partial<Settings>): Promise<void> {
    return this.#answer(() => {
      if (new TextEncoder().encode(change.draft).length > 4096) throw new Refusal("invalid_request");
      this.#world.set(this.uid, id, change);
    });
  }

  keptDrafts(): ReadonlyMap<string, string> {
    return this.device;
  }

  keepDraft(id: string, text: string | undefined): void {
    if (text === undefined) this.device.delete(id);
    else this.device.set(id, text);
  }

  // ---- groups ----

  createGroup(title: string, members: string[]): Promise<string> {
    return this.#answer(() => {
      const c = this.#world.make(`g/${Date.now().toString(36)}-${++lastId}`, { title, owner: this.uid });
      this.#world.join(c, this.uid, "owner");
      for (const uid of members) this.#world.join(c, uid);
      this.#world.store(c, { kind: "created", from: this.uid, members: [this.uid, ...members], info: { title } });
      return c.id;
    });
  }

  addMembers(id: string, uids: string[]): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      if (c.joinPolicy === "by_admins" && !this.#manages(c)) throw new Refusal("forbidden");
      const fresh = uids.filter((uid) => !c.members.has(uid));
      for (const uid of fresh) this.#world.join(c, uid);
      this.#world.store(c, { kind: "joined", from: this.uid, members: fresh });
    });
  }

  removeMembers(id: string, uids: string[]): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      if (!this.#manages(c) || uids.includes(c.owner)) throw new Refusal("forbidden");
      this.#world.store(c, { kind: "removed", from: this.uid, members: uids });
      this.#gone(c, uids);
    });
  }

  leave(id: string): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      if (c.owner === this.uid) throw new Refusal("forbidden");
      this.#world.store(c, { kind: "left", from: this.uid, members: [this.uid] });
      this.#gone(c, [this.uid]);
    });
  }

  #gone(c: FakeConversation, uids: string[]): void {
    for (const uid of uids) c.members.delete(uid);
    this.#world.refresh(c);
    for (const uid of uids) this.#world.tell(uid, (events) => events.conversation(this.#world.view(c, uid)));
  }

  setRole(id: string, uid: string, role: "member" | "admin" | "owner"): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      const [me, other] = [c.members.get(this.uid), c.members.get(uid)];
      if (!other) throw new Refusal("not_found");
      if (!me || me.role !== "owner") throw new Refusal("forbidden");
      other.role = role;
      if (role === "owner") {
        me.role = "admin";
        c.owner = uid;
      }
      this.#world.store(c, { kind: "role", from: this.uid, members: [uid], role });
    });
  }

  muteMembers(id: string, uids: string[], until: number): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      if (!this.#manages(c)) throw new Refusal("forbidden");
      for (const uid of uids) {
        const m = c.members.get(uid);
        if (m) m.mutedUntil = until;
      }
      this.#world.store(c, { kind: "muted", from: this.uid, members: uids, mutedUntil: until });
    });
  }

  setInfo(id: string, change: InfoChange): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      if (!this.#manages(c)) throw new Refusal("forbidden");
      if (change.title !== undefined) c.title = change.title;
      if (change.announcement !== undefined) c.announcement = change.announcement;
      if (change.joinPolicy !== undefined) c.joinPolicy = change.joinPolicy;
      if (change.muteAll !== undefined) c.muteAll = change.muteAll;
      if (change.historyOpen !== undefined) c.historyOpen = change.historyOpen;
      this.#world.store(c, {
        kind: "info",
        from: this.uid,
        info: {
          ...(change.title !== undefined && { title: change.title }),
          ...(change.announcement !== undefined && { announcement: change.announcement }),
          ...(change.joinPolicy !== undefined && { join_policy: change.joinPolicy }),
          ...(change.muteAll !== undefined && { mute_all: change.muteAll }),
          ...(change.historyOpen !== undefined && { history_open: change.historyOpen }),
        },
      });
    });
  }

  dissolve(id: string): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      if (c.owner !== this.uid) throw new Refusal("forbidden");
      c.dissolved = true;
      this.#world.store(c, { kind: "dissolved", from: this.uid });
    });
  }

  askToJoin(id: string, note: string): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      const request = { conversation: id, uid: this.uid, note, state: "asked" as const };
      c.requests.set(this.uid, request);
      for (const m of c.members.values()) if (m.role !== "member") this.#world.tell(m.uid, (events) => events.groupRequest(request));
    });
  }

  answerJoin(id: string, uid: string, accept: boolean): Promise<void> {
    return this.#answer(() => {
      const c = this.#conversation(id);
      const old = c.requests.get(uid);
      if (!old || !this.#manages(c)) throw new Refusal("forbidden");
      const request = { ...old, state: accept ? ("accepted" as const) : ("declined" as const) };
      c.requests.set(uid, request);
      for (const m of c.members.values()) if (m.role !== "member") this.#world.tell(m.uid, (events) => events.groupRequest(request));
      if (!accept) return;
      this.#world.join(c, uid);
      this.#world.store(c, { kind: "joined", from: this.uid, members: [uid] });
    });
  }

  // ---- people ----

  users(uids: string[]): Promise<User[]> {
    return this.#answer(() => uids.map((uid) => this.#world.users.get(uid)).filter((u) => u !== undefined));
  }

  searchUsers(query: string): Promise<User[]> {
    const q = query.toLowerCase();
    return this.#answer(() => [...this.#world.users.values()].filter((u) => u.uid.startsWith(query) || u.name.toLowerCase().startsWith(q)).slice(0, 20));
  }

  updateMe(change: { name?: string; avatar?: string; visibility?: Visibility }): Promise<User> {
    return this.#answer(() => {
      const user = { ...this.#world.user(this.uid), ...change };
      this.#world.users.set(this.uid, user);
      this.#world.tell(this.uid, (events) => events.user(user, false));
      return user;
    });
  }

  askContact(uid: string, note: string, remark: string): Promise<void> {
    return this.#answer(() => {
      if (!this.#world.users.has(uid)) throw new Refusal("not_found");
      if (this.#world.blocks.get(uid)?.has(this.uid)) throw new Refusal("blocked");
      const at = this.now();
      if (this.#world.contacts.get(this.uid)?.get(uid)?.state === "asked") return this.#world.befriend(this.uid, uid, remark);
      this.#world.setContact(this.uid, { uid, state: "requested", remark, note, changedAt: at });
      this.#world.setContact(uid, { uid: this.uid, state: "asked", remark: "", note, changedAt: at });
    });
  }

  answerContact(uid: string, accept: boolean, remark: string): Promise<void> {
    return this.#answer(() => (accept ? this.#world.befriend(this.uid, uid, remark) : this.#end(uid)));
  }

  setRemark(uid: string, remark: string): Promise<void> {
    return this.#answer(() => {
      const old = this.#world.contacts.get(this.uid)?.get(uid);
      if (!old) throw new Refusal("not_found");
      this.#world.setContact(this.uid, { ...old, remark });
    });
  }

  removeContact(uid: string): Promise<void> {
    return this.#answer(() => this.#end(uid));
  }

  #end(uid: string): void {
    const none = { state: "none" as const, remark: "", note: "", changedAt: this.now() };
    this.#world.setContact(this.uid, { uid, ...none });
    this.#world.setContact(uid, { uid: this.uid, ...none });
  }

  block(uid: string, on: boolean): Promise<void> {
    return this.#answer(() => {
      const all = this.#world.blocks.get(this.uid) ?? new Set();
      this.#world.blocks.set(this.uid, all);
      if (on) all.add(uid);
      else all.delete(uid);
      this.#world.tell(this.uid, (events) => events.blocked(uid, on));
    });
  }

  watch(uids: string[]): void {
    for (const uid of uids) {
      const p = this.#world.presences.get(uid);
      if (p) this.#events?.presence(p);
    }
  }
}

