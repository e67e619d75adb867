// Calls from each to each on one `halley all`, without a relay in the way.
import type { Page } from "playwright-core";
import { expect, it } from "vitest";
import { answer, button, call, caller, flow, flows, flowsOn, hangUp, madeUp, report, ringing, talking } from "../browser/caller.ts";
import { faults } from "../browser/faults.ts";
import { docsPicture, until } from "../browser/stack.ts";
import { line, newGroup, online, realHalley, talkTo } from "../browser/real.ts";

// The second of three cameras is one of depths, whose pictures nobody can encode.
const real = realHalley([...madeUp, "--use-fake-device-for-media-stream=device-count=3"]);

/** Two who talk in a video call. */
async function two(a: string, b: string, options = caller): Promise<[Page, Page]> {
  const [one, other] = [await real.enter(a, options), await real.enter(b, options)];
  await talkTo(one, b);
  const { near, far } = await call(one, other);
  report(`${a} calls ${b}`, { [a]: near, [b]: far });
  return [one, other];
}

it("answered on the second of two devices: it stops everywhere else within a second, in each window", async () => {
  const [ann, laptop, tablet] = [await real.enter("ann", caller), await real.enter("bob", caller), await real.enter("bob", caller)];
  // A second window of the laptop, which shares its connection.
  const beside = await laptop.context().newPage();
  await beside.goto(real.halley().url);
  await beside.getByLabel("Your name").fill("bob");
  await beside.getByLabel("Your name").press("Enter");
  await online(beside);
  await talkTo(ann, "bob");
  await button(ann, "Video call").click();
  await Promise.all([laptop, beside, tablet].map((page) => ringing(page).waitFor()));

  const stopped = (page: Page) =>
    page.evaluate(
      () =>
        new Promise<number>((resolve) => {
          const look = () => (document.querySelector("[role=alertdialog]") ? setTimeout(look, 5) : resolve(Date.now()));
          look();
        }),
    );
  const accepted = tablet.evaluate(
    () => new Promise<number>((resolve) => document.querySelector("[role=alertdialog]")?.addEventListener("click", () => resolve(Date.now()), { capture: true, once: true })),
  );
  const stops = Promise.all([laptop, beside].map(stopped));
  await answer(tablet);
  const [at, ...after] = [await accepted, ...(await stops)];
  console.log(`stopped ${after.map((t) => `${t - at} ms`).join(" and ")} after the click on the other device`);
  for (const t of after) expect(t - at).toBeLessThan(1000);
  await Promise.all([talking(ann).waitFor(), talking(tablet).waitFor()]);
  report("answered on the second device", { ann: await flows(ann), tablet: await flows(tablet) });

  // He goes on at the other one; the first one lets go of its camera, says so, and could take it back.
  await laptop.getByText("You are in a call on another device.").waitFor();
  await button(laptop, "Continue here").click();
  await tablet.getByText("This call goes on on another device.").waitFor();
  await Promise.all([talking(ann).waitFor(), talking(laptop).waitFor()]);
  report("taken over by the first one", { ann: await flows(ann), laptop: await flows(laptop) });
  expect(await flow(tablet)).toEqual([]);
  await tablet.locator(".call").getByRole("button", { name: "Close" }).click();
  await hangUp(ann, laptop);
  for (const page of [laptop, beside, tablet]) await page.getByText("You are in a call on another device.").waitFor({ state: "detached" });
  await real.leave(ann, laptop, tablet);
});

/** A device whose clock is an hour ahead. */
const ahead: NonNullable<typeof caller.prepare> = async (context) => {
  await context.addInitScript(() => {
    const { now } = Date;
    Date.now = () => now() + 3_600_000;
  });
};

it("the window of a call is moved, made small, and fills the screen; another camera is chosen, and seen; axe finds no fault", async () => {
  const [ann, zed] = await two("ann", "zed", { ...caller, reducedMotion: "reduce", prepare: ahead });
  expect(await faults(ann)).toEqual([]);
  const box = ann.locator(".call");
  // Who began it is there with the keyboard as well. Readers hear that it is connected, and not each second of it; those count by the server's clock.
  expect(await ann.evaluate(() => document.activeElement?.className)).toBe("call");
  await box.getByRole("timer").getByText(/^\d+:\d\d$/).waitFor();
  expect(await box.getByRole("status").allTextContents()).toEqual(["Connected"]);
  const at = async () => {
    const { x, y, width, height } = (await box.boundingBox()) ?? { x: 0, y: 0, width: 0, height: 0 };
    return { x, y, width, height };
  };
  const before = await at();
  await ann.mouse.move(before.x + 60, before.y + 20);
  await ann.mouse.down();
  await ann.mouse.move(before.x - 140, before.y - 80, { steps: 4 });
  await ann.mouse.up();
  expect(await at()).toEqual({ ...before, x: before.x - 200, y: before.y - 100 });
  await button(ann, "Minimise").click();
  expect((await at()).width).toBeLessThan(before.width / 2);
  expect(await faults(ann)).toEqual([]);
  await button(ann, "Enlarge").click();
  await button(ann, "Full screen").click();
  await until(async () => (await at()).width === 1280);
  await button(ann, "Leave full screen").click();
  await until(async () => (await at()).width === before.width);
  // Where a page can't have the screen, as on some phones, it has the window.
  await ann.evaluate(() => (document.documentElement.requestFullscreen = () => Promise.reject(new Error("by the test"))));
  await button(ann, "Full screen").click();
  await until(async () => (await at()).width === 1280);
  await button(ann, "Leave full screen").click();
  await until(async () => (await at()).width === before.width);

  const camera = () => ann.evaluate(() => window.connections.at(-1)?.getTransceivers()[1]?.sender.track?.getSettings().deviceId ?? "");
  const first = await camera();
  const had = await flow(zed);
  const devices = async () => {
    await button(ann, "Devices").click();
    return { cameras: ann.getByRole("menuitemradio", { name: /^Camera: / }), speakers: ann.getByRole("menuitemradio", { name: /^Speaker: / }) };
  };
  await (await devices()).cameras.last().click();
  await until(async () => ![first, ""].includes(await camera()));
  report("another camera", { zed: await flowsOn(zed, had) });
  const { cameras, speakers } = await devices();
  expect(await cameras.last().getAttribute("aria-checked")).toBe("true");
  expect(await faults(ann)).toEqual([]);
  await speakers.last().click();
  await until(() => ann.evaluate(() => (document.querySelector("audio")?.sinkId ?? "") !== ""));

  // Pulled out: in words, and with a way on.
  await ann.evaluate(() => {
    const track = window.connections.at(-1)?.getTransceivers()[1]?.sender.track;
    track?.stop();
    track?.dispatchEvent(new Event("ended"));
  });
  await ann.locator(".call-note", { hasText: "Others can’t see you: it was unplugged. Plug it in again, or choose another one." }).waitFor();
  await zed.getByTitle("ann’s camera is off").waitFor();
  await button(ann, "Turn camera on").click();
  await ann.locator(".call-note").waitFor({ state: "detached" });
  await zed.getByTitle("ann’s camera is off").waitFor({ state: "detached" });
  report("plugged in again", { zed: await flowsOn(zed, await flow(zed)) });

  await button(ann, "Hang up").focus();
  await ann.keyboard.press("Enter");
  for (const page of [ann, zed]) await page.locator(".call").waitFor({ state: "detached" });
  await until(() => ann.evaluate(() => document.activeElement?.id === "main"));

  await button(ann, "Video call").click();
  await ringing(zed).waitFor();
  await ann.locator(".call[data-state=ringing]").waitFor();
  for (const page of [ann, zed]) expect(await faults(page)).toEqual([]);
  await ringing(zed).getByRole("button", { name: "Decline" }).click();
  await ann.locator(".call-record", { hasText: "Declined call" }).waitFor();
  expect(await faults(ann)).toEqual([]);
  await real.leave(ann, zed);
});

it("a reload of either: the call goes on, and is one call in the end", async () => {
  const [ann, cleo] = await two("ann", "cleo");
  await cleo.reload();
  await Promise.all([talking(cleo).waitFor(), talking(ann).waitFor()]);
  report("after a reload of who was called", { ann: await flows(ann), cleo: await flows(cleo) });
  await ann.reload();
  await Promise.all([talking(cleo).waitFor(), talking(ann).waitFor()]);
  report("after a reload of who called", { ann: await flows(ann), cleo: await flows(cleo) });
  await hangUp(cleo, ann);
  await line(ann, "cleo").click();
  await ann.locator(".call-record").waitFor();
  expect(await ann.locator(".call-record").count()).toBe(1);
  await real.leave(ann, cleo);
});

it("where nobody looks a notification rings, and goes when the call does; a page that is left ends a call", { timeout: 180_000 }, async () => {
  const [ann, kit] = [await real.enter("ann", caller), await real.enter("kit", { ...caller, permissions: ["notifications"] })];
  await kit.evaluate(() => {
    const notes: { title: string; open: boolean }[] = [];
    Object.assign(globalThis, { notes });
    document.hasFocus = () => false;
    globalThis.Notification = class {
      static permission = "granted";
      readonly note;
      constructor(title: string) {
        notes.push((this.note = { title, open: true }));
      }
      close() {
        this.note.open = false;
      }
    } as unknown as typeof Notification;
  });
  const notes = () => kit.evaluate(() => (globalThis as unknown as { notes: object[] }).notes);
  await talkTo(ann, "kit");
  await button(ann, "Voice call").click();
  await ringing(kit).waitFor();
  await until(async () => (await notes()).length === 1);
  expect(await notes()).toEqual([{ title: "ann calls", open: true }]);
  await hangUp(ann);
  await ringing(kit).waitFor({ state: "detached" });
  expect((await notes())[0]).toEqual({ title: "ann calls", open: false });
  await ann.locator(".call-record", { hasText: "Cancelled call" }).waitFor();
  await line(kit, "ann").click();
  await kit.locator(".call-record.missed", { hasText: "Missed call" }).waitFor();

  // After 5 s, if the browser still sends that the page goes; else when the leg's lease and grace are over.
  await call(ann, kit);
  const left = Date.now();
  await kit.goto("about:blank");
  await ann.getByText("The connection was lost.").first().waitFor({ timeout: 80_000 });
  console.log(`ended ${Date.now() - left} ms after its page was left`);
  await ann.locator(".call").waitFor({ state: "detached" });
  await ann.locator(".call-record", { hasText: /^Video call, \d+:/ }).waitFor();
  await real.leave(ann, kit);
});

it("ICE restarts when the network changes: new credentials of the connection, the same connection, pictures go on", async () => {
  const [ann, dan] = await two("ann", "dan");
  const ufrag = (page: Page) => page.evaluate(() => window.connections.map((pc) => /a=ice-ufrag:(\S+)/.exec(pc.localDescription?.sdp ?? "")?.[1] ?? ""));
  const before = [await ufrag(ann), await ufrag(dan)];
  const had = await flow(dan);
  await ann.evaluate(() => dispatchEvent(new Event("online")));
  await until(async () => {
    const now = [await ufrag(ann), await ufrag(dan)];
    return now.every((all, i) => all.length === 1 && all[0] !== before[i]?.[0]);
  });
  report("after an ICE restart", { dan: await flowsOn(dan, had), ann: await flows(ann) });
  expect(await ann.evaluate(() => window.connections.map((pc) => [pc.signalingState, pc.connectionState]))).toEqual([["stable", "connected"]]);
  await hangUp(dan, ann);
  await real.leave(ann, dan);
});

it("a screen is shared beside the camera, seen, and not any more", async () => {
  const [ann, eve] = await two("ann", "eve");
  await button(ann, "Share screen").click();
  await eve.getByLabel("ann shares the screen").first().waitFor();
  await until(async () => ((await flow(eve))[0]?.screen ?? 0) > 5);
  await docsPicture(eve, "call-screen");
  const shared = await flow(eve);
  report("ann shares her screen", { eve: shared });
  await button(ann, "Stop sharing").click();
  await eve.getByLabel("ann shares the screen").first().waitFor({ state: "detached" });
  // The camera goes on.
  const end = await flow(eve);
  await flowsOn(eve, end);
  await hangUp(eve, ann);
  await real.leave(ann, eve);
});

it("a group of four: each sees each; one comes late, one leaves, the others go on; who left comes again", { timeout: 180_000 }, async () => {
  const names = ["fay", "gus", "hal", "ida"];
  const pages: Page[] = [];
  for (const name of names) pages.push(await real.enter(name, caller));
  const [fay, gus, hal, ida] = pages as [Page, Page, Page, Page];
  await newGroup(fay, "Climbers", ["gus", "hal", "ida"]);
  await button(fay, "Video call").click();
  await Promise.all([gus, hal, ida].map((page) => ringing(page).waitFor()));
  await answer(gus);
  await answer(hal);
  const three = [fay, gus, hal];
  await Promise.all(three.map((page) => talking(page).waitFor()));
  for (const page of three) await flows(page, 2);
  report("three of four", Object.fromEntries(await Promise.all(three.map(async (page, i) => [names[i], await flow(page)] as const))));

  await answer(ida);
  await talking(ida).waitFor();
  // Others see it; readers say it.
  await fay.getByRole("status").getByText("ida is in the call.").waitFor({ state: "attached" });
  for (const page of pages) await flows(page, 3, 60_000);
  await docsPicture(fay, "call-group");
  report("all four", Object.fromEntries(await Promise.all(pages.map(async (page, i) => [names[i], await flow(page)] as const))));

  await button(gus, "Hang up").click();
  const left = [fay, hal, ida];
  await fay.getByRole("status").getByText("gus has left the call.").waitFor({ state: "attached" });
  for (const page of left) await until(async () => (await flow(page)).length === 2);
  for (const page of left) await flowsOn(page, await flow(page));

  // The call goes on: its conversation says so, and lets him in again.
  await line(gus, "Climbers").click();
  await button(gus, "Join").click();
  await talking(gus).waitFor();
  for (const page of pages) await flows(page, 3, 60_000);
  report("he who left is back", { gus: await flow(gus) });

  for (const page of [gus, hal, ida]) await button(page, "Hang up").click();
  // The last but one ends it.
  for (const page of pages) await page.locator(".call").waitFor({ state: "detached" });
  await fay.locator(".call-record", { hasText: /^Video call/ }).waitFor();
  await real.leave(...pages);
});
