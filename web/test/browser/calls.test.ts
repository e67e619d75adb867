// A video call on a Halley: two people, of whom one has two devices, with cameras and microphones that Chromium makes up. More of them
// are in test/calls.
import { expect, it } from "vitest";
import { answer, button, caller, flows, flowsOn, madeUp, report, ringing, talking, tryRelays } from "./caller.ts";
import { line, realHalley, talkTo } from "./real.ts";
import { docsPicture, glimpse, until } from "./stack.ts";

const real = realHalley(madeUp);

it("a video call: both devices ring, one answers, both see each other, one reloads, one hangs up", { timeout: 240_000 }, async () => {
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

  // Chromium's microphone beeps: who speaks sees that he is heard.
  await (await glimpse(bob, ".call-mic[data-heard=true]"))();
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
  await ann.locator(".call-record", { hasText: /^Video call, \d+:\d\d/ }).waitFor();
  await line(bob, a).click();
  await button(bob, "Call back").waitFor();
});

it("what a browser can't do is said in plain words, with a way on; the test of the connection says that relays work", { timeout: 240_000 }, async () => {
  const [n, o] = [real.name("noor"), real.name("otto")];
  await real.leave(await real.enter(o));
  const noor = await real.enter(n, caller);
  await talkTo(noor, o);
  const fail = (how: Record<string, string>) =>
    noor.evaluate((names) => {
      navigator.mediaDevices.getUserMedia = async (want) => {
        const [name] = [want?.video && names.video, want?.audio && names.audio].filter((one) => typeof one === "string");
        if (name) throw new DOMException("by the test", name);
        const sound = new AudioContext().createMediaStreamDestination().stream;
        return sound;
      };
    }, how);
  for (const [how, words] of [
    [{ video: "NotFoundError" }, ["Others can’t see you: there is no such device."]],
    [{ video: "NotAllowedError", audio: "NotAllowedError" }, ["Others can’t hear you: the browser wasn’t given leave.", "Others can’t see you: the browser wasn’t given leave."]],
    [{ video: "NotReadableError" }, ["Others can’t see you: another program is using it."]],
  ] as const) {
    await fail(how);
    await button(noor, "Video call").click();
    // It calls all the same.
    await noor.locator(".call").waitFor();
    for (const text of words) await noor.locator(".call-note", { hasText: text }).waitFor();
    await until(async () => (await noor.locator(".call-note").count()) === words.length);
    await button(noor, "Hang up").click();
    await noor.locator(".call").waitFor({ state: "detached" });
  }

  const relays = await tryRelays(noor);
  expect(relays).toEqual({ problem: "none", faults: { udp: "", tcp: "" } });

  await noor.evaluate(() => Object.defineProperty(window, "isSecureContext", { value: false }));
  await button(noor, "Video call").click();
  await noor.getByText(/browsers allow calls only on pages that come over HTTPS; open this page by its https/).first().waitFor();
  await noor.evaluate(() => Reflect.deleteProperty(window, "RTCPeerConnection"));
  await button(noor, "Video call").click();
  await noor.getByText(/this browser can’t make calls; try a current Chrome/).first().waitFor();
  expect(await noor.locator(".call").count()).toBe(0);
});
