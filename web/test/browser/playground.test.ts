import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { glimpse, type Halley, Line, listen, picture, startBrowser, startHalley, through, until } from "./stack.ts";

let halley: Halley;
let browser: Browser;
const contexts: BrowserContext[] = [];
const complaints: string[] = [];
let room = "";

beforeAll(async () => {
  [halley, browser] = await Promise.all([startHalley(), startBrowser()]);
}, 180_000);
afterAll(async () => {
  await browser?.close();
  await halley?.stop();
});
afterEach(async ({ task }) => {
  for (const [i, context] of contexts.splice(0).entries()) {
    const [page] = context.pages();
    if (task.result?.state === "fail" && page) await picture(page, `failed-${task.name.replaceAll(/\W+/g, "-")}-${i}`);
    await context.close();
  }
  // A policy that is broken, or anything else that the browser complains of, shows here only.
  expect(complaints.splice(0)).toEqual([]);
});

/** Opens a window of its own, as another person would have it. */
async function open(options: Parameters<Browser["newContext"]>[0] & { line?: Line; expected?: RegExp } = {}): Promise<Page> {
  const { line, expected, ...rest } = options;
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: "light", locale: "en-GB", ...rest });
  contexts.push(context);
  if (line) await through(line, context, halley.url);
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  listen(page, complaints, expected);
  room = `test-${Date.now().toString(36)}`;
  await page.goto(`${halley.url}/playground`);
  return page;
}

async function logIn(page: Page, name: string): Promise<void> {
  await page.getByLabel("Your name").fill(name);
  await page.getByLabel("Your name").press("Enter");
  await state(page, "online");
}

const offline = "[role=status][data-state]:not([data-state=online])";
const state = (page: Page, name: string) => page.locator(`[role=status][data-state=${name}]`).waitFor();

async function join(page: Page, name: string): Promise<void> {
  await page.getByLabel("Name of a room to join").fill(name);
  await page.getByLabel("Name of a room to join").press("Enter");
  await page.getByRole("heading", { name, level: 1 }).waitFor();
}

async function say(page: Page, text: string): Promise<void> {
  await page.getByLabel(/^Message to/).fill(text);
  await page.getByLabel(/^Message to/).press("Enter");
}

/** How long something took, as the page writes it: of a machine that stood still it may be seconds. */
const took = /^(< 1 ms|\d+ ms|\d+\.\d s)$/;

const line = (page: Page, text: string) => page.getByRole("log", { name: "Messages" }).getByRole("listitem").filter({ hasText: text });

async function push(page: Page, to: "Room" | "Person" | "Everybody", name: string, text: string): Promise<void> {
  const form = page.getByRole("region", { name: "Push" });
  // The radio itself is invisible: people click its label.
  await form.locator("label").filter({ hasText: to }).click();
  if (name) await form.getByRole("textbox", { name: to }).fill(name);
  await form.getByLabel("Text of the push").fill(text);
  await form.getByRole("button", { name: "Push" }).click();
  await form.getByText("Accepted.").waitFor();
}

describe("two windows", () => {
  it("see each other, each other's messages with their latency, and pushes", async () => {
    const [ann, bob] = [await open(), await open({ colorScheme: "dark" })];
    await picture(ann, "login-light");
    await picture(bob, "login-dark");
    const here = room;
    await logIn(ann, "ann");
    await picture(ann, "empty");
    await logIn(bob, "bob");
    await join(ann, here);
    await join(bob, here);

    const members = (page: Page) => page.getByRole("region", { name: `In ${here}` });
    for (const page of [ann, bob]) {
      await members(page).getByText("ann", { exact: true }).waitFor();
      await members(page).getByText("bob", { exact: true }).waitFor();
    }

    await say(ann, "Do you see the comet?");
    await line(bob, "Do you see the comet?").waitFor();
    await say(bob, "I do. Low in the west, just after sunset.");
    await line(ann, "Low in the west").waitFor();
    for (const shown of [line(bob, "Do you see the comet?"), line(ann, "Low in the west")]) {
      expect(await shown.locator(".took").textContent()).toMatch(took);
    }
    // One's own say how long the server took to accept them.
    await until(async () => took.test((await line(ann, "Do you see").locator(".took").textContent()) ?? ""));
    await say(ann, "It has two tails: one of dust, one of gas.");
    await say(ann, "The next time will be in 2061.");
    await line(bob, "2061").waitFor();

    // Elsewhere than in the list of pushes they are shown for a while only.
    const opens = await glimpse(bob, ".toast", "The observatory opens at nine.");
    await push(ann, "Room", "", "The observatory opens at nine.");
    await opens();
    await picture(ann, "talk-light");
    await picture(bob, "talk-dark");
    const bring = await glimpse(ann, ".toast", "Bring the binoculars.");
    await push(bob, "Person", "ann", "Bring the binoculars.");
    await bring();
    const clear = [await glimpse(ann, ".toast", "Clear skies to all."), await glimpse(bob, ".toast", "Clear skies to all.")];
    await push(ann, "Everybody", "", "Clear skies to all.");
    for (const seen of clear) await seen();

    await bob.getByRole("navigation", { name: "Rooms" }).getByRole("button", { name: /^Pushes/ }).click();
    const pushes = bob.getByRole("log", { name: "Pushes" }).getByRole("listitem");
    await until(async () => (await pushes.count()) === 2);
    await pushes.filter({ hasText: "Clear skies" }).getByText(took).waitFor();
    await picture(bob, "pushes-dark");

    await bob.getByRole("button", { name: "Log out" }).click();
    await bob.getByLabel("Your name").waitFor();
    await members(ann).getByText("bob", { exact: true }).waitFor({ state: "detached" });
  });

  it("count what was said while one looked elsewhere", async () => {
    const [ann, bob] = [await open(), await open()];
    const here = room;
    await logIn(ann, "ann");
    await logIn(bob, "bob");
    await join(ann, here);
    await join(bob, here);
    await ann.getByRole("button", { name: /^lobby/ }).click();
    await say(bob, "one");
    await say(bob, "two");
    await ann.getByRole("button", { name: `${here} 2 unread` }).click();
    await line(ann, "two").waitFor();
    await ann.getByRole("button", { name: here, exact: true }).waitFor();
    await ann.getByRole("button", { name: `Leave ${here}` }).click();
    await bob.getByRole("region", { name: `In ${here}` }).getByText("ann", { exact: true }).waitFor({ state: "detached" });
    await ann.getByRole("button", { name: here, exact: true }).waitFor({ state: "detached" });
  });
});

describe("a broken line", () => {
  it("is seen, counted down, and healed without losing the room", async () => {
    const cable = new Line();
    try {
      const [ann, bob] = [await open({ line: cable, expected: /WebSocket connection to/ }), await open()];
      const here = room;
      await logIn(ann, "ann");
      await logIn(bob, "bob");
      await join(ann, here);
      await join(bob, here);
      cable.cut();
      await state(ann, "waiting");
      await ann.getByRole("button", { name: "Now" }).waitFor();
      await until(async () => /in \d+ s/.test((await ann.locator(".status").textContent()) ?? ""));
      await picture(ann, "reconnecting");
      await say(ann, "said into the dark"); // waits for the line
      cable.mend();
      await state(ann, "online");
      await line(bob, "said into the dark").waitFor();
      await say(bob, "there you are");
      await line(ann, "there you are").waitFor();
      await ann.getByText("Connected again").waitFor();
    } finally {
      await cable.stop();
    }
  });

  it("can be tried at once", async () => {
    const cable = new Line();
    try {
      const ann = await open({ line: cable, expected: /WebSocket connection to/ });
      // The longest waits that may be: half a second, one, two, four, eight, as good as.
      await ann.addInitScript(() => (Math.random = () => 0.999));
      await ann.reload();
      await logIn(ann, "ann");
      cable.cut();
      // Let the waits grow, so that it isn't the timer that reconnects.
      let left = 0;
      await until(async () => (left = Number(/in (\d+) s/.exec((await ann.locator(".status").textContent()) ?? "")?.[1] ?? 0)) >= 7);
      const timer = Date.now() + (left - 1) * 1000;
      cable.mend();
      await ann.getByRole("button", { name: "Now" }).click();
      await ann.locator("[role=status][data-state=online]").waitFor();
      expect(Date.now()).toBeLessThan(timer);
    } finally {
      await cable.stop();
    }
  });
});

describe("a restart of the server", () => {
  it("is seen, and both come back to their room", async ({ skip }) => {
    const { restart } = halley;
    if (!restart) return skip("this Halley is not ours to stop");
    const expected = /WebSocket connection to|Failed to load resource/;
    const [ann, bob] = [await open({ expected }), await open({ expected })];
    const here = room;
    await logIn(ann, "ann");
    await logIn(bob, "bob");
    await join(ann, here);
    await join(bob, here);
    const down = [await glimpse(ann, offline), await glimpse(bob, offline)];
    await restart();
    for (const seen of down) await seen();
    for (const page of [ann, bob]) await state(page, "online");
    await say(ann, "back again");
    await line(bob, "back again").waitFor();
    await ann.getByText("Connected again").waitFor();
  });
});

describe("the page", () => {
  it("keeps person and rooms over a reload", async () => {
    const ann = await open();
    await logIn(ann, "ann");
    await join(ann, room);
    await ann.reload();
    await state(ann, "online");
    await ann.getByRole("button", { name: room, exact: true }).waitFor();
  });

  it("shows messages as text and runs nothing of them", async () => {
    const [ann, bob] = [await open(), await open()];
    const here = room;
    await logIn(ann, "ann");
    await logIn(bob, "bob");
    await join(ann, here);
    await join(bob, here);
    const evil = `<img src=x onerror="document.title='run'"><script>document.title='run'</script>`;
    await say(ann, evil);
    await line(bob, evil).waitFor();
    expect(await bob.title()).toBe("Halley playground");
  });

  it("tells what to do where nobody may log in by name", async () => {
    const page = await open({ expected: /403/ });
    await page.route("**/v1/demo/login", (route) => route.fulfill({ status: 403, contentType: "application/problem+json", json: { code: "forbidden" } }));
    const login = await fetch(`${halley.url}/v1/demo/login`, { method: "POST", body: '{"name":"carl"}', headers: { "Content-Type": "application/json" } });
    const { token } = (await login.json()) as { token: string };
    await page.getByLabel("Your name").fill("carl");
    await page.getByLabel("Your name").press("Enter");
    await page.getByText("halley token").waitFor();
    await picture(page, "token");
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Connect" }).click();
    await state(page, "online");
    await page.getByText("Log in with an API key").waitFor();
    await page.getByRole("button", { name: "Pushes" }).click();
    await picture(page, "no-pushes");
  });

  it("goes back to the door, with the reason, when the token is refused", async () => {
    const page = await open();
    await page.getByRole("button", { name: "I have a token" }).click();
    await page.getByLabel("Token").fill("not.a.token");
    await page.getByRole("button", { name: "Connect" }).click();
    await page.getByRole("alert").filter({ hasText: /token/i }).waitFor();
  });

  it("is usable on a phone", async () => {
    const page = await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
    await picture(page, "phone-login");
    await logIn(page, "phone");
    const views = page.getByRole("navigation", { name: "Views" });
    await views.getByRole("button", { name: "Rooms" }).click();
    await picture(page, "phone-rooms");
    await join(page, room);
    await say(page, "from a phone, with a text that is long enough to need more than one line");
    await line(page, "from a phone").waitFor();
    await picture(page, "phone-talk");
    await views.getByRole("button", { name: "Push & log" }).click();
    await picture(page, "phone-more");
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
  });

  it("is usable by keyboard alone", async () => {
    const page = await open();
    await page.locator("input[name=name]:focus").waitFor();
    await page.keyboard.type("keys");
    await page.keyboard.press("Enter");
    await state(page, "online");
    await page.locator("textarea:focus").waitFor();
    await page.keyboard.type("no mouse");
    await page.keyboard.press("Enter");
    await line(page, "no mouse").waitFor();
    await page.keyboard.press("Tab"); // the button is off without a text: on to the details
    const seen = new Set<string>();
    for (let i = 0; i < 30; i++) {
      seen.add(await page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent ?? ""));
      await page.keyboard.press("Tab");
    }
    for (const want of ["Text of the push", "Push", "Skip to the conversation", "Log out", "Name of a room to join", "Pushes"]) {
      expect([...seen]).toContain(want);
    }
  });
});
