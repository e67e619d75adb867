// Calls over a cluster of two of each role, of which one is killed.
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { answer, button, call, caller, flow, flows, flowsOn, hangUp, madeUp, report, ringing, talking } from "../browser/caller.ts";
import { line, online, realHalley, talkTo } from "../browser/real.ts";
import { until } from "../browser/stack.ts";
import { cometAt, type Node, startCluster } from "./cluster.ts";
import { ownNetwork } from "./network.ts";

describe.skipIf(!ownNetwork)("two of each role", () => {
  const real = realHalley(madeUp, startCluster);

  /** Watches which comet a page is at. */
  function follow(page: Page): () => Node {
    let at = "";
    page.on("websocket", (socket) => {
      if (socket.url().includes("/sub")) at = socket.url();
    });
    return () => cometAt(at);
  }

  it("the logic that took the invite is killed while it rings: it goes on ringing, is answered, and is one call", { timeout: 180_000 }, async () => {
    const cluster = real.halley();
    const [ann, bob] = [await real.enter("ann", caller), await real.enter("bob", caller)];
    await talkTo(ann, "bob");
    const before = await Promise.all(([1, 2] as const).map((n) => cluster.served(n, "call.invite")));
    await button(ann, "Video call").click();
    await ringing(bob).waitFor();
    const after = await Promise.all(([1, 2] as const).map((n) => cluster.served(n, "call.invite")));
    const took = after.findIndex((n, i) => n > (before[i] ?? 0)) + 1;
    expect(took).toBeGreaterThan(0);
    cluster.kill(`logic${took as 1 | 2}`);
    await ann.locator(".call[data-state=ringing]").waitFor();
    await answer(bob);
    await Promise.all([talking(ann).waitFor({ timeout: 30_000 }), talking(bob).waitFor({ timeout: 30_000 })]);
    report(`logic${took}, which took the invite, is dead`, { ann: await flows(ann), bob: await flows(bob) });
    await hangUp(bob, ann);
    cluster.mend();
    await ann.locator(".call-record", { hasText: /^Video call/ }).waitFor();
    expect(await ann.locator(".call-record").count()).toBe(1);
    await real.leave(ann, bob);
  });

  it("a comet is killed in the middle of a call: media goes on, then signalling does", { timeout: 180_000 }, async () => {
    const cluster = real.halley();
    const at: (() => Node)[] = [];
    const prepare: NonNullable<typeof caller.prepare> = async (context) => void context.on("page", (page) => at.push(follow(page)));
    const [cat, dan] = [await real.enter("cat", { ...caller, prepare }), await real.enter("dan", { ...caller, prepare })];
    await talkTo(cat, "dan");
    const { near, far } = await call(cat, dan);
    report("before", { cat: near, dan: far });
    const dead = (at[1] as () => Node)();
    // How long nothing is decoded, at most, from here on.
    await cat.evaluate(() => {
      const pc = window.connections.at(-1);
      const seen = { frames: -1, at: performance.now(), gap: 0 };
      Object.assign(window, { seen });
      setInterval(() => {
        void pc?.getStats().then((rows) => {
          let frames = 0;
          rows.forEach((row) => (frames += row.type === "inbound-rtp" && row.kind === "video" ? (row.framesDecoded ?? 0) : 0));
          const now = performance.now();
          if (frames > seen.frames) Object.assign(seen, { frames, at: now });
          else seen.gap = Math.max(seen.gap, now - seen.at);
        });
      }, 50);
    });
    cluster.kill(dead);
    const during = await flowsOn(cat, await flow(cat), 20);
    report(`${dead} of dan has just been killed`, { cat: during });
    // He comes back by the other comet, and takes his leg again: what he does is told.
    await until(async () => (at[1] as () => Node)() !== dead, 60_000);
    await online(dan);
    await until(async () => (await talking(dan).count()) === 1 && (await talking(cat).count()) === 1, 60_000);
    await button(dan, "Mute microphone").click();
    await cat.getByTitle("dan’s microphone is off").waitFor();
    await button(cat, "Turn camera off").click();
    await dan.getByTitle("cat’s camera is off").waitFor();
    await button(cat, "Turn camera on").click();
    await dan.getByTitle("cat’s camera is off").waitFor({ state: "detached" });
    const [toCat, toDan] = [await flowsOn(cat, await flow(cat)), await flowsOn(dan, await flow(dan))];
    report("after", { cat: toCat, dan: toDan });
    const gap = await cat.evaluate(() => (window as unknown as { seen: { gap: number } }).seen.gap);
    console.log(`longest time without a picture at cat: ${Math.round(gap)} ms`);
    expect(gap).toBeLessThan(3000);
    expect(await cat.evaluate(() => window.connections.length)).toBe(1);
    await hangUp(cat, dan);
    cluster.mend();
    await line(cat, "dan").click();
    await cat.locator(".call-record", { hasText: /^Video call/ }).waitFor();
    expect(await cat.locator(".call-record").count()).toBe(1);
    await real.leave(cat, dan);
  });
});
