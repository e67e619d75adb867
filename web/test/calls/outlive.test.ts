// Relayed calls that outlive their credentials, on both servers at a time: that of `halley all` (pion/turn) checks a credential again whenever
// something is refreshed, coturn when a relay is made.
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { call, caller, expectRelayed, flow, flowsOn, hangUp, madeUp, report, talking } from "../browser/caller.ts";
import { type EnterOptions, type Real, realHalley, talkTo } from "../browser/real.ts";
import { startHalley } from "../browser/stack.ts";
import { startCoturn, stopCoturn } from "./coturn.ts";
import { relayPorts } from "./network.ts";

/** How long a credential is good, when the client is told to take a new one, and how long the calls last: Chromium refreshes permissions at 4 minutes. */
const life = 90_000;
const renew = 60_000;
const callFor = 300_000;

const secret = "a secret for the test of credentials";
const dir = mkdtempSync(join(tmpdir(), "halley-outlive-"));
let coturn: Record<string, string> = {};
beforeAll(() => {
  coturn = startCoturn(dir);
}, 60_000);
afterAll(() => {
  stopCoturn(dir);
  rmSync(dir, { recursive: true });
});

const common = { HALLEY_LOGIC_TURN_RELAY_ONLY: "true" };
const inside = realHalley(madeUp, () => startHalley({ ...relayPorts, ...common, HALLEY_LOGIC_TURN_SECRET: secret }));
const outside = realHalley(madeUp, () => startHalley({ ...coturn, ...common }));

/** Credentials are good for the longest call; these are cut short on their way to the page. */
function shortLived(key: () => string): EnterOptions {
  const prepare = (context: BrowserContext) =>
    context.routeWebSocket(/\/sub/, (socket) => {
      const server = socket.connectToServer();
      server.onMessage((message) => socket.send(typeof message === "string" ? message : shorten(message, key())));
    });
  return { ...caller, prepare };
}

interface List {
  servers?: { username?: string; credential?: string }[];
  expires_at?: number;
  renew_at?: number;
}

/** Rewrites the answers to ice.servers in a WebSocket message: frames of 16 bytes of header and a body, one after the other. */
function shorten(message: Buffer, key: string): Buffer {
  const out: Buffer[] = [];
  for (let at = 0; at + 16 <= message.length; ) {
    const size = message.readInt32BE(at);
    const frame = message.subarray(at, at + size);
    at += size;
    const text = frame.subarray(16).toString();
    if (!text.includes('"renew_at"')) {
      out.push(frame);
      continue;
    }
    const reply = JSON.parse(text) as { "ice.servers": List };
    const list = reply["ice.servers"];
    const expires = Date.now() + life;
    for (const one of list.servers ?? []) {
      if (!one.username) continue;
      one.username = one.username.replace(/^\d+/, String(Math.floor(expires / 1000)));
      one.credential = createHmac("sha1", key).update(one.username).digest("base64");
    }
    Object.assign(list, { expires_at: expires, renew_at: Date.now() + renew });
    const body = Buffer.from(JSON.stringify(reply));
    const head = Buffer.from(frame.subarray(0, 16));
    head.writeInt32BE(16 + body.length, 0);
    out.push(head, body);
  }
  return Buffer.concat(out);
}

/** When the credentials that a page uses end. */
const expiry = (page: Page) =>
  page.evaluate(() => {
    const [server] = window.connections.at(-1)?.getConfiguration().iceServers?.filter((s) => s.username) ?? [];
    return Number((server?.username ?? "").split(":")[0]) * 1000;
  });

async function outlive(name: string, real: Real, key: () => string): Promise<void> {
  const [ann, bob] = [await real.enter("ann", shortLived(key)), await real.enter("bob", shortLived(key))];
  await talkTo(ann, "bob");
  const { near, far } = await call(ann, bob);
  report(`through ${name}, credentials good for ${life / 1000} s`, { ann: near, bob: far });
  expectRelayed([...near, ...far], "udp");
  const first = await expiry(ann);
  expect(first).toBeLessThan(Date.now() + life + 1000);
  const end = Date.now() + callFor;
  while (Date.now() < end) {
    const before = await Promise.all([flow(ann), flow(bob)]);
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    // A restart puts another pair in the place of the one before; pictures go on.
    await Promise.all([flowsOn(ann, before[0], 5), flowsOn(bob, before[1], 5)]);
  }
  await Promise.all([talking(ann).waitFor(), talking(bob).waitFor()]);
  const [toAnn, toBob] = await Promise.all([flow(ann), flow(bob)]);
  const last = await expiry(ann);
  report(`through ${name}, ${Math.round((Date.now() - first) / 1000)} s after the first credential ended; the last one is good for ${Math.round((last - Date.now()) / 1000)} s more`, { ann: toAnn, bob: toBob });
  expectRelayed([...toAnn, ...toBob], "udp");
  expect(last).toBeGreaterThan(Date.now());
  // All on the connection that there was from the beginning.
  expect(await ann.evaluate(() => window.connections.length)).toBe(1);
  await hangUp(ann, bob);
}

it("a relayed call outlives its credentials on both servers", { timeout: callFor + 120_000 }, async () => {
  await Promise.all([outlive("the relay of halley all", inside, () => secret), outlive("coturn", outside, () => coturn.HALLEY_LOGIC_TURN_SECRET ?? "")]);
});
