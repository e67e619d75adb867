// The SDK in a real Chromium: several tabs of one user, what survives a reload, and one connection for all. The server is a
// small one of the test's own, which can be told to keep silent.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Chat, Entry, IndexedDBStorage } from "../../sdk/src/index.ts";
import { D, Tiny } from "../tiny.ts";
import { startBrowser, until } from "./stack.ts";

/** What the pages put into their window. */
interface PageWindow {
  chat: Chat;
  Storage: typeof IndexedDBStorage;
  bodies: unknown[];
  /** Entries that came out of their turn. */
  jumps: string[];
  stages: string[];
}

let browser: Browser;
let context: BrowserContext;
let http: Server;
let tiny: Tiny;
let url = "";
let sdk = "";

beforeAll(async () => {
  const built = await build({
    configFile: false,
    logLevel: "error",
    build: { write: false, lib: { entry: new URL("../../sdk/src/index.ts", import.meta.url).pathname, formats: ["es"] } },
  });
  const [bundle] = built as { output: { code?: string }[] }[];
  sdk = bundle?.output[0]?.code ?? "";
  browser = await startBrowser();
});
afterAll(() => browser?.close());

beforeEach(async () => {
  http = createServer((request, response) => {
    const script = request.url === "/sdk.js";
    response.setHeader("content-type", script ? "text/javascript" : "text/html");
    response.end(
      script
        ? sdk
        : `<!doctype html><link rel="icon" href="data:,"><script type="module">
            import { Chat, IndexedDBStorage } from "/sdk.js";
            const chat = new Chat({ url: location.origin.replace("http", "ws") + "/sub", token: "ann", account: "ann", backoff: { base: 50, max: 100 } });
            window.bodies = []; window.stages = []; window.jumps = []; let last = 0; window.chat = chat; window.Storage = IndexedDBStorage;
            chat.on("entries", ({ entries, reset }) => {
              window.bodies.push(...entries.map((e) => e.body));
              if (reset) last = 0;
              for (const { seq } of entries) {
                if (last && seq !== last + 1) window.jumps.push(last + " " + seq);
                last = seq;
              }
            });
            chat.on("outgoing", ({ params, stage }) => window.stages.push(params.body + " " + stage));
            chat.start();
          </script>`,
    );
  });
  tiny = new Tiny(http);
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  context = await browser.newContext();
});
afterEach(async () => {
  await context.close();
  for (const socket of tiny.sockets.keys()) socket.terminate();
  http.closeAllConnections();
  await new Promise((resolve) => http.close(resolve));
});

async function open(): Promise<Page> {
  const page = await context.newPage();
  await page.goto(url);
  await page.waitForFunction(() => (window as unknown as PageWindow).chat?.state.name === "online");
  return page;
}

const say = (page: Page, body: string) =>
  page.evaluate(([id, text]) => void (window as unknown as PageWindow).chat.send(id as string, text as string), [D, body]);
const bodies = (page: Page) => page.evaluate(() => (window as unknown as PageWindow).bodies);
/** What the device's storage has, some milliseconds after it happened: what waits to be sent, and up to where all was handed over. */
const saved = (page: Page) =>
  page.evaluate(async (id) => {
    const storage = new (window as unknown as PageWindow).Storage("ann");
    const { outgoing, conversations } = await storage.load().finally(() => storage.close());
    return { outgoing: outgoing.map((o) => (o.params as { body?: unknown }).body), have: conversations.find((c) => c.conversation.id === id)?.have };
  }, D);
const speaking = (page: Page) => page.evaluate(() => (window as unknown as PageWindow).chat.speaking);

it("one tab speaks for all, and each shows what any of them sends", async () => {
  const [a, b] = [await open(), await open()];
  expect([await speaking(a), await speaking(b)]).toEqual([true, false]);
  await say(b, "from b");
  await say(a, "from a");
  tiny.store("bob", "x", "from bob");
  for (const page of [a, b]) {
    await until(async () => (await bodies(page)).length === 3);
    expect([...(await bodies(page))].sort()).toEqual(["from a", "from b", "from bob"]);
  }
  expect(tiny.connections).toBe(1);
  const history = await b.evaluate((id) => (window as unknown as PageWindow).chat.history(id), D);
  expect((history as Entry[]).map((e) => e.seq)).toEqual([1, 2, 3]);
  const shown = await b.evaluate((id) => (window as unknown as PageWindow).chat.conversation(id)?.lastSeq, D);
  expect(shown).toBe(3);
});

it("another tab takes over when the one that speaks is closed, and nothing is lost or doubled", async () => {
  const [a, b] = [await open(), await open()];
  await say(a, "1");
  await until(async () => (await bodies(b)).length === 1);
  tiny.silent = true;
  await say(a, "2");
  await until(async () => tiny.ids.size === 2);
  await say(b, "3");
  await a.close();
  tiny.silent = false;
  tiny.store("bob", "x", "from bob");
  await until(() => speaking(b));
  await until(async () => (await bodies(b)).length === 4);
  expect(await bodies(b)).toEqual(["1", "from bob", "2", "3"]);
  expect(tiny.entries).toHaveLength(4);
});

it("what was sent without a connection goes out after a new start, in order, once", async () => {
  let page = await open();
  await say(page, "1");
  await until(async () => (await bodies(page)).length === 1);
  tiny.silent = true;
  await say(page, "2");
  await until(async () => tiny.ids.size === 2);
  for (const socket of tiny.sockets.keys()) socket.terminate();
  await context.setOffline(true);
  await say(page, "3");
  await until(async () => {
    const { outgoing, have } = await saved(page);
    return outgoing.includes("3") && have === 1;
  });
  // Ended before there is a connection again, or it would send them itself.
  await page.close();
  await context.setOffline(false);
  tiny.silent = false;
  page = await open();
  await until(async () => tiny.entries.length === 3);
  expect(tiny.entries.map((e) => (e as { body: string }).body)).toEqual(["1", "2", "3"]);
  await until(async () => (await bodies(page)).length === 2);
  // What was handed over before is known: it isn't handed over again.
  expect(await bodies(page)).toEqual(["2", "3"]);
  await until(() => page.evaluate(() => (window as unknown as PageWindow).chat.outgoing.length === 0));
  const kept = await page.evaluate(() => (window as unknown as PageWindow).chat.conversations.map((c) => [c.id, c.lastSeq]));
  expect(kept).toEqual([[D, 3]]);
});

it("what was handed over is there after a new start, before there is a connection", async () => {
  let page = await open();
  for (const body of ["1", "2", "3"]) await say(page, body);
  await until(async () => (await bodies(page)).length === 3);
  const kept = (id: string) => page.evaluate(async (id) => (await (window as unknown as PageWindow).chat.kept(id)).map((e) => [e.seq, e.body]), id);
  await until(async () => (await kept(D)).length === 3);
  await page.close();
  page = await context.newPage();
  // Nobody answers any more.
  await page.routeWebSocket(/sub/, () => {});
  await page.goto(url);
  expect(await kept(D)).toEqual([[1, "1"], [2, "2"], [3, "3"]]);
  expect(await kept("d/ann/cy")).toEqual([]);
});

it("a database that the browser closes is opened again", async () => {
  const page = await open();
  await say(page, "1");
  await until(async () => (await bodies(page)).length === 1);
  tiny.silent = true;
  const devtools = await context.newCDPSession(page);
  await devtools.send("Storage.clearDataForOrigin", { origin: url, storageTypes: "indexeddb" });
  await say(page, "2");
  await until(async () => (await saved(page)).outgoing.includes("2"));
});

it("a database that doesn't answer holds up neither the start nor what is sent", async () => {
  let page = await open();
  // Whatever is done in it has no end.
  await page.evaluate(() => Object.defineProperty(IDBTransaction.prototype, "oncomplete", { set() {} }));
  await say(page, "1");
  await until(async () => (await bodies(page)).length === 1);
  await page.close();
  await context.addInitScript(() => (IDBFactory.prototype.open = () => ({}) as IDBOpenDBRequest));
  page = await open();
  for (const body of ["2", "3", "4"]) await say(page, body);
  await until(async () => tiny.entries.length === 4);
  expect(tiny.entries.map((e) => (e as { body: string }).body)).toEqual(["1", "2", "3", "4"]);
});

it("entries are kept as they are now, without a gap, until they aren't needed", async () => {
  const page = await open();
  const seen = await page.evaluate(async (D) => {
    const storage = new (window as unknown as PageWindow).Storage("kept");
    const message = (seq: number, more: object = {}) =>
      ({ seq, kind: "message", from: "bob", body: `${seq}`, changedSeq: seq, target: 0, mentions: [], reactions: [], ...more }) as unknown as Entry;
    const change = (seq: number, target: number, kind: string, body: string | null = null) => message(seq, { kind, target, body });
    const save = (from: number, ...entries: Entry[]) => storage.save({ entries: [{ conversation: D, entries, from }] });
    const kept = async (before = Infinity, limit = 50) => (await storage.entries(D, before, limit)).map((e) => `${e.seq} ${e.body}`).join(", ");
    const seen: Record<string, string> = {};
    await save(0, message(5), message(6), change(7, 6, "edit", "six"));
    seen.inOneSave = await kept();
    await save(0, change(8, 5, "recall"), message(9));
    seen.afterwards = await kept();
    await save(0, message(5), message(6, { body: "an older state", changedSeq: 6 }));
    seen.older = await kept();
    await save(0, message(1), message(2));
    seen.gap = await kept();
    await save(0, message(3), message(4, { body: "now", changedSeq: 9 }));
    seen.closed = await kept();
    seen.page = await kept(5, 2);
    await save(4, message(10));
    seen.dropped = await kept();
    await storage.save({ gone: [D] });
    seen.gone = await kept();
    await save(0, message(11));
    await storage.clear();
    seen.cleared = await kept();
    storage.close();
    return seen;
  }, D);
  expect(seen).toEqual({
    inOneSave: "5 5, 6 six, 7 null",
    afterwards: "5 null, 6 six, 7 null, 8 null, 9 9",
    older: "5 null, 6 six, 7 null, 8 null, 9 9",
    gap: "5 null, 6 six, 7 null, 8 null, 9 9",
    closed: "1 1, 2 2, 3 3, 4 now, 5 null, 6 six, 7 null, 8 null, 9 9",
    page: "3 3, 4 now",
    dropped: "4 now, 5 null, 6 six, 7 null, 8 null, 9 9, 10 10",
    gone: "",
    cleared: "",
  });
});

it("tabs that come and go, and lines that break, lose and double nothing", { timeout: 300_000 }, async () => {
  const seed = 1 + (Date.now() % 1e6);
  let state = seed;
  const random = (n: number) => Math.floor(((state = (state * 16807) % 2147483647) / 2147483647) * n);
  const tabs = [await open(), await open()];
  let sent = 0;
  const said = new Map<Page, string[]>();
  // What a page was told to send and neither the storage nor the server has ends with it. The storage is asked first: what leaves it is stored.
  const safe = (page: Page) =>
    until(async () => {
      const { outgoing } = await saved(page);
      const has = new Set([...outgoing, ...tiny.entries.map((e) => (e as { body: unknown }).body)]);
      return (said.get(page) ?? []).every((body) => has.has(body));
    });
  // However the dice fall, some messages are sent.
  for (let step = 0; step < 60 || sent < 16; step++) {
    const page = tabs[random(tabs.length)] as Page;
    switch (random(10)) {
      case 0:
        if (tabs.length < 4) {
          const fresh = await context.newPage();
          await fresh.goto(url);
          await fresh.waitForFunction(() => "chat" in window);
          tabs.push(fresh);
        }
        break;
      case 1:
        if (tabs.length > 1) {
          await safe(page);
          tabs.splice(tabs.indexOf(page), 1);
          await page.close();
        }
        break;
      case 2:
        for (const socket of tiny.sockets.keys()) socket.terminate();
        break;
      case 3:
        tiny.silent = !tiny.silent;
        break;
      case 4:
        await safe(page);
        await page.reload();
        await page.waitForFunction(() => "chat" in window);
        break;
      default: {
        const body = `message ${++sent}`;
        said.set(page, [...(said.get(page) ?? []), body]);
        await say(page, body);
      }
    }
  }
  tiny.silent = false;
  for (const socket of tiny.sockets.keys()) socket.terminate();
  await until(async () => new Set(tiny.entries.map((e) => (e as { body: string }).body)).size === sent);
  expect(tiny.entries, `seed ${seed}`).toHaveLength(sent);
  for (const page of tabs) {
    await until(() => page.evaluate((n) => (window as unknown as PageWindow).chat.conversations[0]?.lastSeq === n, sent));
    await until(() => page.evaluate(() => (window as unknown as PageWindow).chat.outgoing.length === 0));
    expect(await page.evaluate(() => (window as unknown as PageWindow).jumps), `seed ${seed}`).toEqual([]);
  }
});
