// What the tests of calls share: people with cameras and microphones that Chromium makes up, and what comes of them at the others'.
import type { Locator, Page } from "playwright-core";
import { expect } from "vitest";
import type { EnterOptions } from "./real.ts";
import { docsPicture, until } from "./stack.ts";

declare global {
  interface Window {
    /** All that the page has made. */
    connections: RTCPeerConnection[];
  }
}

/** Chromium's arguments. Where a machine, or a network namespace, has nothing but loopback, calls go over that. */
export const madeUp = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--allow-loopback-in-peer-connection", "--autoplay-policy=no-user-gesture-required"];

/** Keeps the page's peer connections, to look into them, and has its camera make a picture that many can encode on one machine. */
function watch(): void {
  window.connections = [];
  const Real = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Real {
    constructor(config?: RTCConfiguration) {
      super(config);
      window.connections.push(this);
    }
  };
  // An empty page has none.
  const mediaDevices = navigator.mediaDevices as MediaDevices | undefined;
  if (!mediaDevices) return;
  const get = mediaDevices.getUserMedia.bind(mediaDevices);
  mediaDevices.getUserMedia = (want) => {
    if (!want?.video) return get(want);
    const { deviceId } = want.video === true ? {} : want.video;
    return get({ ...want, video: { width: 640, height: 480, frameRate: 10, ...(deviceId !== undefined && { deviceId }) } });
  };
}

/** For whoever calls. */
export const caller: EnterOptions = { before: watch };

/** What has come by one peer connection. */
export interface Flow {
  /** Decoded, of camera and screen together. */
  frames: number;
  /** Of those, the screen's. */
  screen: number;
  /** Packets of sound. */
  packets: number;
  /** The candidates in use: type, and the transport to a relay. */
  pair: string;
  /** Their addresses. */
  path: string;
}

/** What has come to a page by each connection that it has now. */
export function flow(page: Page): Promise<Flow[]> {
  return page.evaluate(async () => {
    const all: Flow[] = [];
    for (const pc of window.connections.filter((one) => one.connectionState === "connected")) {
      const found = { frames: 0, screen: 0, packets: 0, pair: "", path: "" };
      const rows = new Map<string, Record<string, unknown>>();
      (await pc.getStats()).forEach((row: Record<string, unknown>, id: string) => rows.set(id, row));
      const places = pc.getTransceivers().map((t) => t.mid);
      for (const row of rows.values()) {
        if (row.type === "inbound-rtp" && row.kind === "video") {
          found.frames += Number(row.framesDecoded ?? 0);
          if (places.indexOf(String(row.mid)) === 2) found.screen += Number(row.framesDecoded ?? 0);
        }
        if (row.type === "inbound-rtp" && row.kind === "audio") found.packets += Number(row.packetsReceived ?? 0);
        if (row.type === "transport") {
          const pair = rows.get(String(row.selectedCandidatePairId));
          const [near, far] = [rows.get(String(pair?.localCandidateId)), rows.get(String(pair?.remoteCandidateId))];
          const transport = near?.relayProtocol ? ` by ${String(near.relayProtocol)}` : "";
          found.pair = `${String(near?.candidateType)}${transport}-${String(far?.candidateType)}`;
          found.path = [near, far].map((c) => `${String(c?.address ?? c?.ip)}:${String(c?.port)}`).join(" - ");
        }
      }
      all.push(found);
    }
    return all;
  });
}

/** Waits until pictures and sound have come from each of so many; what came then. */
export async function flows(page: Page, from = 1, limit = 30_000): Promise<Flow[]> {
  let now: Flow[] = [];
  const probe = async () => {
    now = await flow(page);
    return now.length === from && now.every((f) => f.frames > 0 && f.packets > 0 && !f.pair.startsWith("undefined"));
  };
  await until(probe, limit).catch((error: Error) => {
    throw new Error(`no pictures and sound from each of ${from}: ${JSON.stringify(now)}`, { cause: error });
  });
  return now;
}

/** Waits until more pictures have come from each than there were. */
export async function flowsOn(page: Page, than: readonly Flow[], more = 10, limit = 30_000): Promise<Flow[]> {
  let now: Flow[] = [];
  const probe = async () => {
    now = await flow(page);
    return now.length === than.length && now.every((f, i) => f.frames >= (than[i]?.frames ?? 0) + more);
  };
  await until(probe, limit).catch((error: Error) => {
    throw new Error(`no more pictures than ${JSON.stringify(than)}: ${JSON.stringify(now)}`, { cause: error });
  });
  return now;
}

/** For people: what came to whom, and how. */
export function report(what: string, of: Record<string, readonly Flow[]>): void {
  console.log(what);
  for (const [who, all] of Object.entries(of)) {
    for (const f of all) console.log(`  to ${who}: ${f.frames} frames decoded${f.screen ? `, ${f.screen} of a screen` : ""}, ${f.packets} packets of sound; pair ${f.pair} (${f.path})`);
  }
}

export const talking = (page: Page): Locator => page.locator(".call[data-state=active][data-connected=true]");
export const ringing = (page: Page): Locator => page.getByRole("alertdialog");
export const button = (page: Page, name: string): Locator => page.getByRole("button", { name, exact: true });

export async function answer(page: Page): Promise<void> {
  await ringing(page).getByRole("button", { name: "Answer with video" }).click();
}

/** Two who have a conversation open, or one of them, call each other; both see and hear. */
export async function call(from: Page, to: Page): Promise<{ near: Flow[]; far: Flow[] }> {
  await button(from, "Video call").click();
  await answer(to);
  await Promise.all([talking(from).waitFor(), talking(to).waitFor()]);
  const [near, far] = await Promise.all([flows(from), flows(to)]);
  return { near, far };
}

/** Hangs up, and waits until all are out. */
export async function hangUp(by: Page, ...others: Page[]): Promise<void> {
  await button(by, "Hang up").click();
  for (const page of [by, ...others]) await page.locator(".call").waitFor({ state: "detached" });
}

/** Which relays it goes through, by which transport: all pairs are of two. */
export function expectRelayed(of: readonly Flow[], transport: "udp" | "tcp"): void {
  expect(of.map((f) => f.pair)).toEqual(of.map(() => `relay by ${transport}-relay`));
}

/** Has the page try the relays, and returns what it says is wrong: of all, and of each way. */
export async function tryRelays(page: Page): Promise<{ problem: string; faults: Record<string, string> }> {
  await button(page, "Settings").click();
  await button(page, "Test calls").click();
  const dialog = page.getByRole("dialog", { name: "Test calls" });
  await dialog.locator("[data-problem]").waitFor({ timeout: 30_000 });
  const problem = (await dialog.locator("[data-problem]").getAttribute("data-problem")) ?? "";
  const rows = await dialog.locator("[data-way]").evaluateAll((all) => all.map((row) => [row.getAttribute("data-way"), row.getAttribute("data-fault")]));
  console.log(`the test of relays: ${problem}; ${(await dialog.locator(".relays li").allTextContents()).join("; ")}`);
  if (problem === "none") await docsPicture(page, "call-test");
  for (const name of ["Test calls", "Settings"]) await page.getByRole("dialog", { name }).getByRole("button", { name: "Close" }).click();
  return { problem, faults: Object.fromEntries(rows) as Record<string, string> };
}
