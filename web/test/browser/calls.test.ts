// A video call on a Halley: two people, of whom one has two devices, with cameras and microphones that Chromium makes up.
import type { Page } from "playwright-core";
import { expect, it } from "vitest";
import { line, realHalley, talkTo } from "./real.ts";
import { docsPicture, until } from "./stack.ts";

const real = realHalley(["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--allow-loopback-in-peer-connection"]);

declare global {
  interface Window {
    connections: RTCPeerConnection[];
  }
}

/** Keeps the page's peer connections, to look into them. */
function watch(): void {
  window.connections = [];
  const Real = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(config?: RTCConfiguration) {
      super(config);
      window.connections.push(this);
    }
  };
}

interface Flow {
  frames: number;
  packets: number;
  /** Types of the candidates in use. */
  pair: string;
}

/** What has come to a page by the connection that it has. */
function flow(page: Page): Promise<Flow> {
  return page.evaluate(async () => {
    const found = { frames: 0, packets: 0, pair: "" };
    const open = window.connections.filter((pc) => pc.connectionState === "connected").at(-1);
    const rows = new Map<string, Record<string, unknown>>();
    (await open?.getStats())?.forEach((row: Record<string, unknown>, id: string) => rows.set(id, row));
    for (const row of rows.values()) {
      if (row.type === "inbound-rtp" && row.kind === "video") found.frames += Number(row.framesDecoded ?? 0);
      if (row.type === "inbound-rtp" && row.kind === "audio") found.packets += Number(row.packetsReceived ?? 0);
      if (row.type === "transport") {
        const pair = rows.get(String(row.selectedCandidatePairId));
        found.pair = `${rows.get(String(pair?.localCandidateId))?.candidateType}-${rows.get(String(pair?.remoteCandidateId))?.candidateType}`;
      }
    }
    return found;
  });
}

async function flows(page: Page): Promise<Flow> {
  let now: Flow = { frames: 0, packets: 0, pair: "" };
  await until(async () => {
    now = await flow(page);
    return now.frames > 0 && now.packets > 0;
  }, 20_000);
  return now;
}

const talking = (page: Page) => page.locator(".call[data-state=active][data-connected=true]");
const ringing = (page: Page) => page.getByRole("alertdialog");

it("a video call: both devices ring, one answers, both see each other, one reloads, one hangs up", { timeout: 90_000 }, async () => {
  const [a, b] = [real.name("ann"), real.name("bob")];
  const [ann, bob, tablet] = [await real.enter(a, { before: watch }), await real.enter(b, { before: watch }), await real.enter(b)];
  await talkTo(ann, b);
  await ann.getByRole("button", { name: "Video call" }).click();
  await Promise.all([ringing(bob).waitFor(), ringing(tablet).waitFor()]);
  await docsPicture(bob, "call-incoming");
  await ann.locator(".call[data-state=ringing]").waitFor();

  const answered = Date.now();
  await ringing(bob).getByRole("button", { name: "Answer with video" }).click();
  await ringing(tablet).waitFor({ state: "detached", timeout: 3000 });
  await Promise.all([talking(ann).waitFor(), talking(bob).waitFor()]);
  const [toAnn, toBob] = await Promise.all([flows(ann), flows(bob)]);
  console.log(`both see each other ${Date.now() - answered} ms after the click; ann:`, toAnn, "bob:", toBob);
  expect(await ann.evaluate(() => window.connections.length)).toBe(1);
  await docsPicture(ann, "call");

  // What isn't sent any more is to be seen.
  await bob.getByRole("button", { name: "Mute microphone" }).click();
  await bob.getByRole("button", { name: "Turn camera off" }).click();
  await ann.getByTitle(`${b}’s microphone is off`).waitFor();
  await ann.getByTitle(`${b}’s camera is off`).waitFor();
  await bob.getByRole("button", { name: "Turn camera on" }).click();
  await ann.getByTitle(`${b}’s camera is off`).waitFor({ state: "detached" });

  await bob.reload();
  await talking(bob).waitFor();
  await talking(ann).waitFor();
  await flows(bob);

  await ann.getByRole("button", { name: "Hang up" }).click();
  await bob.locator(".call").waitFor({ state: "detached" });
  await ann.locator(".call").waitFor({ state: "detached" });
  await ann.locator(".call-record", { hasText: /^Video call, 0:\d\d/ }).waitFor();
  await line(bob, a).click();
  await bob.getByRole("button", { name: "Call back" }).waitFor();
});
