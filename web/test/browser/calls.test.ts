// A video call on a Halley: two people, of whom one has two devices, with cameras and microphones that Chromium makes up. More of them
// are in test/calls.
import { expect, it } from "vitest";
import { answer, button, caller, flows, flowsOn, madeUp, report, ringing, talking } from "./caller.ts";
import { line, realHalley, talkTo } from "./real.ts";
import { docsPicture } from "./stack.ts";

const real = realHalley(madeUp);

it("a video call: both devices ring, one answers, both see each other, one reloads, one hangs up", { timeout: 120_000 }, async () => {
  const [a, b] = [real.name("ann"), real.name("bob")];
  const [ann, bob, tablet] = [await real.enter(a, caller), await real.enter(b, caller), await real.enter(b)];
  await talkTo(ann, b);
  await button(ann, "Video call").click();
  await Promise.all([ringing(bob).waitFor(), ringing(tablet).waitFor()]);
  await docsPicture(bob, "call-incoming");
  await ann.locator(".call[data-state=ringing]").waitFor();

  const answered = Date.now();
  await answer(bob);
  await ringing(tablet).waitFor({ state: "detached" });
  await Promise.all([talking(ann).waitFor(), talking(bob).waitFor()]);
  const [toAnn, toBob] = await Promise.all([flows(ann), flows(bob)]);
  report(`both see each other ${Date.now() - answered} ms after the click`, { ann: toAnn, bob: toBob });
  expect(await ann.evaluate(() => window.connections.length)).toBe(1);
  await flowsOn(ann, toAnn);
  await docsPicture(ann, "call");

  // What isn't sent any more is to be seen.
  await button(bob, "Mute microphone").click();
  await button(bob, "Turn camera off").click();
  await ann.getByTitle(`${b}’s microphone is off`).waitFor();
  await ann.getByTitle(`${b}’s camera is off`).waitFor();
  await button(bob, "Turn camera on").click();
  await ann.getByTitle(`${b}’s camera is off`).waitFor({ state: "detached" });

  await bob.reload();
  await Promise.all([talking(bob).waitFor(), talking(ann).waitFor()]);
  report("after a reload", { bob: await flows(bob) });

  await button(ann, "Hang up").click();
  await bob.locator(".call").waitFor({ state: "detached" });
  await ann.locator(".call").waitFor({ state: "detached" });
  await ann.locator(".call-record", { hasText: /^Video call, 0:\d\d/ }).waitFor();
  await line(bob, a).click();
  await button(bob, "Call back").waitFor();
});
