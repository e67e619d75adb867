// People talk over a server that keeps its promises and nothing beyond them: it loses answers and events, tells things twice,
// cuts pages, stores late, refuses, and breaks connections. The same as client/chaos_test.go.
import { afterEach, expect, it } from "vitest";
import { WebSocket } from "ws";
import { Chat, type Entry, MemoryStorage, type WebSocketConstructor } from "../src/index.ts";
import { Op } from "../src/frame.ts";
import { type Asked, type ScriptedConnection, ScriptedServer } from "./scripted.ts";

/** Numbers from 0 to 1 that a seed repeats (mulberry32). */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface StoredEntry {
  seq: number;
  from: string;
  client_msg_id: string;
  [field: string]: unknown;
}

interface ChatRecord {
  conversation: string;
  from: string;
  id: string;
  body: unknown;
}

const members: Record<string, string[]> = { "d/ann/bob": ["ann", "bob"], "d/ann/cy": ["ann", "cy"], "g/tea": ["ann", "bob", "cy"] };

class Chaos {
  calm = false;
  readonly entries = new Map<string, StoredEntry[]>(Object.keys(members).map((id) => [id, []]));
  /** conversation, sender, id → seq; 0: rejected */
  readonly outcomes = new Map<string, number>();
  readonly queue: ChatRecord[] = [];
  readonly uids = new Map<ScriptedConnection, string>();

  constructor(
    readonly server: ScriptedServer,
    readonly rng: () => number,
  ) {}

  chance(percent: number): boolean {
    return !this.calm && this.rng() * 100 < percent;
  }

  turn(): void {
    for (const c of this.server.connections) {
      if (!c.auth || this.uids.has(c)) continue;
      const uid = JSON.parse(new TextDecoder().decode(c.auth.body)).token as string;
      this.uids.set(c, uid);
      if (this.chance(10)) c.socket.terminate();
      else c.answer(Op.AuthReply, c.auth.seq, { uid, connection: String(this.uids.size), heartbeat: 30 });
    }
    for (const asked of this.server.asked.splice(0)) this.#answer(asked);
    while (this.queue.length > 0 && !this.chance(30)) this.#judge(this.queue.shift() as ChatRecord);
    if (this.chance(2)) this.server.connections[Math.floor(this.rng() * this.server.connections.length)]?.socket.terminate();
  }

  #answer(a: Asked): void {
    const uid = this.uids.get(a.connection) ?? "";
    const q = a.json as Record<string, any>;
    const reply = (body: unknown) => {
      if (!this.chance(5)) a.connection.answer(Op.Reply, a.seq, body);
    };
    const fail = (code: string) => reply({ error: { code, message: code, retry: true } });
    if (this.chance(10)) return fail("unavailable");
    if (q["message.send"]) {
      const { conversation, client_msg_id: id, body } = q["message.send"];
      this.queue.push({ conversation, from: uid, id, body });
      if (this.chance(20)) fail("unknown");
      else reply({ "message.send": { id: "x" } });
    } else if (q.sync) reply({ sync: this.#page(uid, q.sync) });
    else if (q["conversation.history"]) {
      const { conversation, from, to } = q["conversation.history"];
      const list = (this.entries.get(conversation) ?? []).slice(from - 1, to);
      const cut = this.chance(50) ? 1 + Math.floor(this.rng() * list.length) : list.length;
      reply({ "conversation.history": { entries: list.slice(0, cut) } });
    } else if (q["sync.cursor"]) {
      const mine = [...this.entries].filter(([id]) => members[id]?.includes(uid));
      reply({ "sync.cursor": { seqs: mine.reduce((sum, [, all]) => sum + all.length, 0) } });
    } else {
      const [method] = Object.keys(q);
      reply({ [method as string]: {} });
    }
  }

  #page(uid: string, { conversations: have = {}, above = "", up_to: upTo = "" }: Record<string, any>): unknown {
    const conversations: unknown[] = [];
    let more = false;
    for (const [id, all] of this.entries) {
      const from = have[id] ?? 0;
      if (!members[id]?.includes(uid) || from >= all.length || id <= above || (upTo && id > upTo)) continue;
      if (conversations.length > 0 && this.chance(30)) {
        more = true;
        continue;
      }
      let entries = all.slice(from);
      if (entries.length > 3 && this.chance(50)) {
        entries = entries.slice(0, 3);
        more ||= this.chance(50);
      }
      conversations.push({ conversation: { id, last_seq: all.length, last: all.at(-1), role: "member", visible_from: 1 }, entries });
    }
    return { conversations, more };
  }

  #judge({ conversation, from, id, body }: ChatRecord): void {
    const key = [conversation, from, id].join();
    const all = this.entries.get(conversation) ?? [];
    let seq = this.outcomes.get(key);
    if (seq === undefined) {
      seq = this.chance(10) ? 0 : all.length + 1;
      this.outcomes.set(key, seq);
      if (seq) all.push({ seq, kind: "message", from, client_msg_id: id, body, msg_no: seq, changed_seq: seq, server_time: seq });
    }
    for (const [c, uid] of this.uids) {
      let event: unknown;
      if (seq === 0 && uid === from) event = { "message.rejected": { conversation, client_msg_id: id, error: { code: "muted" } } };
      else if (seq > 0 && members[conversation]?.includes(uid)) event = { "message.stored": { conversation, entry: all[seq - 1] } };
      else continue;
      if (this.chance(20)) continue;
      c.events([event]);
      if (this.chance(20)) c.events([event]);
    }
  }
}

const after: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of after.splice(0).reverse()) await end();
});

it.each([1, 2, 3])("loses, doubles and reorders nothing (%#)", { timeout: 120_000 }, async (n) => {
  const seed = Date.now() + n;
  const rng = random(seed);
  const server = new ScriptedServer();
  const url = await server.listen();
  after.push(() => server.close());
  const chaos = new Chaos(server, rng);
  const turning = setInterval(() => chaos.turn(), 2);
  after.push(async () => clearInterval(turning));
  const people = ["ann", "ann", "bob", "cy"].map((uid, i) => {
    const storage = new MemoryStorage();
    const person = { uid, chat: undefined as unknown as Chat, handed: new Map<string, Entry[]>(), stages: new Map<string, string>(), sent: new Map<string, string[]>() };
    const start = () => {
      const chat = (person.chat = new Chat({
        url,
        token: uid,
        storage,
        tabs: false,
        webSocket: WebSocket as unknown as WebSocketConstructor,
        backoff: { base: 5, max: 20 },
        requestTimeout: 200,
        askEvery: 300,
        syncFirst: 100,
        deliveredAfter: 20,
        // One asks for all that is new in one go, the next one in parts.
        syncNamed: i % 3 || 3000,
      }));
      chat.on("entries", ({ conversation, entries, reset }) => {
        if (reset) throw new Error("a reset that nobody made");
        person.handed.set(conversation, [...(person.handed.get(conversation) ?? []), ...entries]);
      });
      chat.on("outgoing", ({ id, stage }) => person.stages.set(id, stage));
      chat.start();
    };
    start();
    after.push(() => person.chat.close());
    return { person, start };
  });
  // So many and not so long: a machine that stands still meanwhile would leave nearly nothing said.
  const each = 60;
  await Promise.all(
    people.map(async ({ person, start }) => {
      const mine = Object.keys(members).filter((id) => members[id]?.includes(person.uid));
      for (let i = 0; i < each; i++) {
        const id = mine[Math.floor(rng() * mine.length)] ?? "";
        person.sent.set(id, [...(person.sent.get(id) ?? []), person.chat.send(id, i).id]);
        await new Promise((resolve) => setTimeout(resolve, rng() * 40));
        if (rng() < 0.03) {
          // A reload in the middle of it all.
          await person.chat.close();
          start();
        }
      }
    }),
  );
  chaos.calm = true;
  for (const c of chaos.uids.keys()) c.events([{ resync: {} }]);
  const open = new Set(["sending", "accepted", undefined]);
  const settled = () =>
    chaos.queue.length === 0 &&
    people.every(({ person: p }) =>
      [...chaos.entries].every(
        ([id, all]) =>
          !members[id]?.includes(p.uid) ||
          ((p.handed.get(id)?.length ?? 0) >= all.length && !(p.sent.get(id) ?? []).some((m) => open.has(p.stages.get(m)))),
      ),
    );
  await server.until(() => settled() || undefined, () => `seed ${seed}: not settled in time`, 60_000);
  for (const { person: p } of people) {
    for (const [id, all] of chaos.entries) {
      if (!members[id]?.includes(p.uid)) continue;
      expect(p.handed.get(id)?.map((e) => [e.seq, e.clientMsgId]), `seed ${seed}, ${p.uid}`).toEqual(all.map((e) => [e.seq, e.client_msg_id]));
      const seqs = (p.sent.get(id) ?? []).map((m) => {
        const seq = chaos.outcomes.get([id, p.uid, m].join());
        expect(seq, `seed ${seed}: ${m} is ${p.stages.get(m)}`).toBeDefined();
        expect(p.stages.get(m) === "failed", `seed ${seed}: ${m}`).toBe(seq === 0);
        return seq as number;
      });
      const stored = seqs.filter((seq) => seq > 0);
      expect(stored, `seed ${seed}, ${p.uid}`).toEqual([...stored].sort((a, b) => a - b));
    }
  }
  expect(chaos.outcomes.size).toBeGreaterThan(50);
});
