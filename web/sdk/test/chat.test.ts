import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { applyChange, Chat, type ChatOptions, type ChatStorage, directId, type Entry, MemoryStorage, peerOf, Timeline } from "../src/index.ts";
import { entryOf } from "../src/chat/entry.ts";
import { Log } from "../src/chat/log.ts";
import type * as wire from "../src/gen/halley/v1/client.ts";
import { pass } from "./set.ts";
import { fakeWebSocket } from "./server.ts";

const entry = (e: wire.Entry): Entry => entryOf({ kind: "message", from: "bob", msg_no: e.seq ?? 0, body: `m${e.seq}`, ...e });

describe("changes", () => {
  const vectors = JSON.parse(readFileSync(new URL("../../../proto/testdata/changes.json", import.meta.url), "utf8")) as {
    name: string;
    message: wire.Entry;
    changes: wire.Entry[];
    want: wire.Entry;
  }[];
  it.each(vectors)("make of a message what the vectors say: $name", ({ message, changes, want }) => {
    const before = entryOf(message);
    const got = changes.map(entryOf).reduce(applyChange, before);
    expect(got).toEqual(entryOf(want));
    expect(before).toEqual(entryOf(message));
  });
});

describe("Timeline", () => {
  it("shows messages as they are, in whatever order they and their changes come", () => {
    const messages = [1, 2, 4].map((seq) => entry({ seq }));
    const edit = entry({ seq: 3, kind: "edit", target: 2, body: "new" });
    const recall = entry({ seq: 5, kind: "recall", target: 1 });
    for (const order of [[...messages, edit, recall], [recall, edit, ...messages], [edit, ...[...messages].reverse(), recall, edit]]) {
      const t = new Timeline();
      for (const e of order) t.add([e]);
      expect(t.entries.map((e) => [e.seq, e.body, e.recalled])).toEqual([[1, null, true], [2, "new", false], [4, "m4", false]]);
    }
  });

  it("doesn't undo what history has by an older change, nor by an older copy", () => {
    const t = new Timeline();
    t.add([entry({ seq: 1, changed_seq: 9, body: "newest" })]);
    expect(t.add([entry({ seq: 3, kind: "edit", target: 1, body: "old" }), entry({ seq: 1, body: "first" })])).toEqual([]);
    expect(t.get(1)?.body).toBe("newest");
  });

  it("begins anew after a reset", () => {
    const t = new Timeline();
    t.add([entry({ seq: 1 })]);
    expect(t.take({ entries: [entry({ seq: 90 })], reset: true })).toEqual([90]);
    expect(t.first).toBe(90);
  });
});

describe("Log", () => {
  it("hands each entry over once, in whatever order they come", () => {
    for (let run = 0; run < 200; run++) {
      const log = new Log(Math.floor(Math.random() * 5));
      let next = log.have + 1;
      const last = next + Math.floor(Math.random() * 40);
      const take = (seq: number) => {
        for (const e of log.take(entry({ seq }))) expect(e.seq).toBe(next++);
      };
      for (let i = 0; i < 100; i++) take(1 + Math.floor(Math.random() * last));
      log.hear(last);
      for (let gap = log.missing(); gap; gap = log.missing()) {
        expect(gap.from).toBe(next);
        take(gap.from + Math.floor(Math.random() * (gap.to - gap.from + 1)));
        take(gap.from);
      }
      expect(next).toBe(last + 1);
    }
  });

  it("forgets the last of too many that wait, and knows that they are missing", () => {
    const log = new Log(0);
    for (let seq = 2; seq < 2100; seq++) log.take(entry({ seq }));
    expect(log.take(entry({ seq: 1 }))).toHaveLength(2001);
    expect(log.missing()).toEqual({ from: 2002, to: 2099 });
  });
});

describe("ids", () => {
  it("of two people are the same whoever asks", () => {
    expect(directId("bob", "ann")).toBe("d/ann/bob");
    expect(directId("ann", "Bob")).toBe("d/Bob/ann");
    expect(peerOf("d/ann/bob", "bob")).toBe("ann");
    expect(peerOf("g/1", "bob")).toBe("");
  });
});

describe("a chat", () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: 1_700_000_000_000 });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  async function set(options: Partial<ChatOptions> = {}) {
    const net = fakeWebSocket();
    const chat = new Chat({ url: "ws://a/sub", token: "t", webSocket: net.webSocket, random: () => 0.5, tabs: false, ...options });
    chat.start();
    await pass();
    const sync = async (page: wire.SyncPage = {}) => {
      net.last.accept();
      await pass();
      net.last.answer({ sync: page }, 103);
      await pass();
    };
    return { net, chat, sync };
  }

  it("goes on with what it has in memory when nothing can be kept", async () => {
    const broken = Object.fromEntries(
      ["load", "add", "save", "clear"].map((name) => [name, () => Promise.reject(new Error(name))]),
    ) as unknown as ChatStorage;
    broken.close = () => {};
    const { net, chat, sync } = await set({ storage: broken });
    const errors: unknown[] = [];
    chat.on("storageError", (error) => errors.push((error as Error).message));
    await sync();
    chat.send("d/ann/bob", "hi");
    await pass();
    expect(net.last.take(100).json).toMatchObject({ "message.send": { body: "hi" } });
    expect(errors).toContain("add");
  });

  it("goes by the server's clock as soon as it knows it, and tells other tabs what it knows", async () => {
    const { net, chat } = await set();
    expect(chat.now()).toBe(Date.now());
    net.last.accept({ server_time: Date.now() - 5000 });
    expect(chat.now()).toBe(Date.now() - 5000);
    expect(chat.session?.clockOffset).toBe(-5000);
  });

  it("sends what failed once more under another id, and forgets what is discarded", async () => {
    const storage = new MemoryStorage();
    const { net, chat, sync } = await set({ storage });
    await sync();
    const first = chat.send("d/ann/bob", "hi");
    await pass();
    net.last.answer({ error: { code: "blocked", message: "no" } });
    await pass();
    expect(chat.outgoing).toMatchObject([{ id: first.id, stage: "failed", error: { code: "blocked" } }]);
    const again = chat.retry(first.id);
    await pass();
    const second = await again;
    expect(second?.id).not.toBe(first.id);
    net.last.answer({ error: { code: "blocked", message: "no" } });
    await pass();
    expect(await chat.discard(second?.id ?? "")).toBe(true);
    await pass();
    expect(chat.outgoing).toEqual([]);
    expect((await storage.load()).outgoing).toEqual([]);
  });

  it("doesn't take back what was accepted", async () => {
    const { net, chat, sync } = await set();
    await sync();
    const sent = chat.send("d/ann/bob", "hi");
    await pass();
    net.last.answer({ "message.send": { id: "x" } });
    await pass();
    expect(await chat.discard(sent.id)).toBe(false);
  });

  it("waits for a connection when it is asked at once", async () => {
    const net = fakeWebSocket();
    const chat = new Chat({ url: "ws://a/sub", token: "t", webSocket: net.webSocket, tabs: false });
    chat.start();
    const history = chat.history("d/ann/bob");
    await pass();
    net.last.accept();
    await pass();
    net.last.answer({ "conversation.history": { entries: [{ seq: 1 }] } }, 103);
    expect(await history).toMatchObject([{ seq: 1 }]);
  });

  it("tells presence, pushes, and events that it doesn't know", async () => {
    const { net, chat, sync } = await set();
    const told: unknown[] = [];
    chat.on("presence", (presence) => told.push(presence));
    chat.on("push", ({ op, body }) => told.push([op, new TextDecoder().decode(body)]));
    chat.on("event", (event) => told.push(event));
    await sync();
    net.last.event({ presence: { uid: "bob", last_seen: 7 } });
    net.last.batch({ op: 1000, body: { text: "hello" } });
    net.last.event({ unheard: { of: 1 } } as never);
    await pass();
    expect(told).toEqual([{ uid: "bob", online: false, platforms: [], lastSeen: 7 }, [1000, '{"text":"hello"}'], { unheard: { of: 1 } }]);
  });

  it("keeps what is handed over and what is read, where that can be kept", async () => {
    const storage = new MemoryStorage() as ChatStorage;
    const saved: string[] = [];
    storage.entries = async () => [entry({ seq: 8 })];
    const { save } = storage;
    storage.save = (changes) => {
      for (const { conversation, entries, from } of changes.entries ?? []) saved.push(`${conversation} ${entries.map((e) => e.seq).join(" ")} from ${from}`);
      return save.call(storage, changes);
    };
    const { net, chat, sync } = await set({ storage });
    await sync({ conversations: [{ conversation: { id: "d/ann/bob", last_seq: 500 }, entries: [499, 500].map((seq) => ({ seq, kind: "message", from: "bob" })) }] });
    const history = chat.history("d/ann/bob", { before: 202 });
    await pass();
    net.last.answer({ "conversation.history": { entries: [200, 201].map((seq) => ({ seq, kind: "message", from: "bob" })) } }, 103);
    await history;
    net.last.event({ "user.change": { number: 1, kind: "clear", object: "d/ann/bob", value: { seq: 499 } } });
    await pass();
    expect(saved).toEqual(["d/ann/bob 499 500 from 201", "d/ann/bob 201 from 201", "d/ann/bob  from 500"]);
    expect(await chat.kept("d/ann/bob")).toMatchObject([{ seq: 8 }]);
  });

  it("is left alone by a server that has no conversations", async () => {
    const { net, chat } = await set();
    net.last.accept();
    await pass();
    net.last.answer({ error: { code: "unknown_method", message: "no" } }, 103);
    await pass(2000);
    expect(net.last.sent).toEqual([]);
    expect(chat.state.name).toBe("online");
  });
});
