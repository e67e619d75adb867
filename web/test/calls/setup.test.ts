// How long it takes from the click that answers to the first picture, direct and by two relays. No test of how fast a machine is: figures for
// docs/performance.md.
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { answer, button, caller, flows, hangUp, madeUp, ringing } from "../browser/caller.ts";
import { realHalley, talkTo } from "../browser/real.ts";
import { startHalley } from "../browser/stack.ts";
import { relayPorts } from "./network.ts";

const rounds = 5;

/** When a page's newest connection has decoded its first picture. */
const firstPicture = (page: Page) =>
  page.evaluate(
    () =>
      new Promise<number>((resolve) => {
        const before = window.connections.length;
        const look = async () => {
          let frames = 0;
          if (window.connections.length > before) {
            (await window.connections.at(-1)?.getStats())?.forEach((row) => (frames += row.type === "inbound-rtp" && row.kind === "video" ? (row.framesDecoded ?? 0) : 0));
          }
          if (frames > 0) resolve(Date.now());
          else setTimeout(() => void look(), 5);
        };
        void look();
      }),
  );

const clicked = (page: Page) =>
  page.evaluate(() => new Promise<number>((resolve) => document.querySelector("[role=alertdialog]")?.addEventListener("click", () => resolve(Date.now()), { capture: true, once: true })));

const median = (of: number[]) => [...of].sort((a, b) => a - b)[of.length >> 1];

describe.each<[string, Record<string, string>]>([
  ["direct", {}],
  ["relays only", { HALLEY_LOGIC_TURN_RELAY_ONLY: "true" }],
])("%s", (name, settings) => {
  const real = realHalley(madeUp, () => startHalley({ ...relayPorts, ...settings }));

  it("time to the first picture", async () => {
    const [ann, bob] = [await real.enter("ann", caller), await real.enter("bob", caller)];
    await talkTo(ann, "bob");
    const times: Record<"caller" | "callee", number[]> = { caller: [], callee: [] };
    for (let i = 0; i < rounds; i++) {
      await button(ann, "Video call").click();
      await ringing(bob).waitFor();
      const [at, near, far] = [clicked(bob), firstPicture(ann), firstPicture(bob)];
      await answer(bob);
      times.caller.push((await near) - (await at));
      times.callee.push((await far) - (await at));
      await flows(ann);
      await hangUp(ann, bob);
    }
    console.log(`${name}: from the click that answers to the first picture, medians of ${rounds}: ${median(times.caller)} ms at who calls (${times.caller.join(", ")}), ${median(times.callee)} ms at who answers (${times.callee.join(", ")})`);
    expect(times.caller).toHaveLength(rounds);
    await real.leave(ann, bob);
  });
});
