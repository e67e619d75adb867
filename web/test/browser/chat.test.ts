// The messenger on a Halley: people talk, reload, lose their line, and find everything as it is.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Halley, Line, picture, startBrowser, startHalley, through, until } from "./stack.ts";

let halley: Halley;
let browser: Browser;
const contexts: BrowserContext[] = [];
const complaints: string[] = [];
/** Names of their own for each test: what was said stays. */
let run = "";

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
  expect(complaints.splice(0)).toEqual([]);
});

async function enter(name: string, options: Parameters<Browser["newContext"]>[0] & { line?: Line } = {}): Promise<Page> {
  const { line, ...rest } = options;
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: "light", locale: "en-GB", ...rest });
  contexts.push(context);
  if (line) await through(line, context, halley.url);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (m) => {
    if ((m.type() === "error" || m.type() === "warning") && !/WebSocket connection to|Failed to load resource/.test(m.text())) complaints.push(m.text());
  });
  await page.goto(halley.url);
  await page.getByLabel("Your name").fill(name);
  await page.keyboard.press("Enter");
  await online(page);
  return page;
}

const online = (page: Page) => page.locator("[role=status][data-state=online]").waitFor({ state: "attached" });
const line = (page: Page, name: string) => page.locator(".list .line").filter({ has: page.locator(".line-name", { hasText: name }) });
const stored = (page: Page, text: string) => page.locator(".bubble:not(.unsent)").filter({ hasText: text });
const box = (page: Page) => page.getByRole("textbox", { name: /^Message to/ });

async function find(page: Page, name: string): Promise<void> {
  await page.getByRole("button", { name: "New…" }).click();
  await page.getByRole("menuitem", { name: "Add contact" }).click();
  await page.getByRole("searchbox", { name: "Name or id" }).fill(name);
  await page.getByRole("dialog").locator(".person", { hasText: name }).waitFor();
}

async function talkTo(page: Page, name: string): Promise<void> {
  await find(page, name);
  await page.getByRole("dialog").getByRole("button", { name: "Message" }).click();
  await page.getByRole("main", { name }).waitFor();
}

async function say(page: Page, text: string): Promise<void> {
  await box(page).fill(text);
  await page.keyboard.press("Enter");
  await stored(page, text).waitFor();
}

async function act(page: Page, text: string, action: string): Promise<void> {
  await stored(page, text).click({ button: "right" });
  await page.getByRole("menuitem", { name: action, exact: true }).click();
}

const texts = (page: Page) => page.locator(".bubble .text").allTextContents();

describe("two people", () => {
  it("talk, reload, lose the line, and find all as it is; a third comes to their group", async () => {
    run = Date.now().toString(36);
    const [a, b, c] = [`ann-${run}`, `bob-${run}`, `cleo-${run}`];
    const cable = new Line();
    try {
      const [ann, bob] = [await enter(a), await enter(b, { line: cable, colorScheme: "dark" })];
      await talkTo(ann, b);
      await say(ann, "Do you see the comet?");
      await line(bob, a).getByText("Do you see the comet?").waitFor();
      await until(async () => (await bob.title()) === "(1) Halley");
      await line(bob, a).click();
      await stored(bob, "Do you see the comet?").waitFor();
      await ann.locator(".stage.read").first().waitFor();
      await say(bob, "I do. Low in the west, just after sunset.");
      await stored(ann, "Low in the west").waitFor();

      // One reloads: everything is there, once.
      await ann.reload();
      await online(ann);
      await line(ann, b).click();
      await stored(ann, "Low in the west").waitFor();
      expect(await texts(ann)).toEqual(["Do you see the comet?", "I do. Low in the west, just after sunset."]);

      // One is away: meanwhile there is a message, one is recalled, one is edited, and he writes, too.
      cable.cut();
      await bob.locator("[role=status][data-state=waiting]").waitFor({ state: "attached" });
      await say(ann, "Never mind the next one.");
      await say(ann, "wrong window");
      await act(ann, "wrong window", "Recall");
      await ann.getByRole("dialog").getByRole("button", { name: "Recall" }).click();
      await ann.getByText("You recalled a message").waitFor();
      await act(ann, "Never mind", "Edit");
      await box(ann).fill("It will be back in 2061.");
      await ann.keyboard.press("Enter");
      await stored(ann, "back in 2061").getByText("edited").waitFor();
      await act(ann, "Low in the west", "React with 👍");
      await box(bob).fill("said into the dark");
      await bob.keyboard.press("Enter");
      await bob.getByTitle("Waiting for a connection").waitFor();
      await picture(bob, "chat-offline");
      cable.mend();
      await online(bob);
      await stored(bob, "said into the dark").waitFor();
      await stored(bob, "back in 2061").getByText("edited").waitFor();
      await bob.getByText(`${a} recalled a message`).waitFor();
      await bob.getByRole("button", { name: "👍, 1 reaction" }).waitFor();
      await stored(ann, "said into the dark").waitFor();
      const all = ["Do you see the comet?", "I do. Low in the west, just after sunset.", "It will be back in 2061.", "said into the dark"];
      for (const page of [ann, bob]) expect(await texts(page)).toEqual(all);
      await picture(ann, "chat-ann");
      await picture(bob, "chat-bob");

      // A group of the two, to which a third is added.
      const cleo = await enter(c);
      await ann.getByRole("button", { name: "Details" }).click();
      await ann.getByRole("complementary").getByRole("button", { name: "New group" }).click();
      const make = ann.getByRole("dialog", { name: "New group" });
      await make.getByRole("textbox", { name: "Group name" }).fill("Comet watch");
      await make.getByRole("button", { name: "Create" }).click();
      await ann.getByRole("main", { name: "Comet watch" }).waitFor();
      await say(ann, "Saturday at the hill?");
      await line(bob, "Comet watch").click();
      await stored(bob, "Saturday at the hill?").waitFor();
      await ann.getByRole("button", { name: "Add members" }).click();
      const add = ann.getByRole("dialog", { name: "Add members" });
      await add.getByRole("searchbox").fill(c);
      await ann.keyboard.press("Enter");
      await add.getByRole("button", { name: "Add members" }).click();
      await ann.getByText(`You added ${c}`).waitFor();
      await bob.getByText(`${a} added ${c}`).waitFor();
      await line(cleo, "Comet watch").click();
      await say(cleo, "I bring the tea. 🫖");
      for (const page of [ann, bob]) await stored(page, "I bring the tea.").waitFor();
      // Who comes later sees from then on.
      expect(await stored(cleo, "Saturday at the hill?").count()).toBe(0);
      await picture(ann, "chat-group");
    } finally {
      await cable.stop();
    }
  });
});

describe("people", () => {
  it("ask, accept, give names, and block", async () => {
    run = Date.now().toString(36);
    const [a, b] = [`ann-${run}`, `bob-${run}`];
    const [ann, bob] = [await enter(a), await enter(b)];
    await find(ann, b);
    await ann.getByRole("dialog").getByRole("button", { name: "Add", exact: true }).click();
    const ask = ann.getByRole("dialog", { name: `Add ${b}` });
    await ask.getByRole("textbox", { name: /Your name for them/ }).fill("Bobby");
    await ask.getByRole("button", { name: "Add" }).click();
    await ann.getByText("Request sent.").waitFor();
    await bob.getByRole("button", { name: /^Contacts/ }).click();
    await line(bob, "Requests").click();
    await bob.locator(".card").filter({ hasText: a }).getByRole("button", { name: "Accept" }).click();
    await line(bob, a).waitFor();
    await ann.keyboard.press("Escape");
    await ann.getByRole("button", { name: /^Contacts/ }).click();
    await line(ann, "Bobby").click();
    await ann.locator(".profile .presence-text.on").waitFor();

    // All of it is there after a reload.
    await ann.reload();
    await online(ann);
    await ann.getByRole("button", { name: /^Contacts/ }).click();
    await line(ann, "Bobby").click();
    await ann.getByRole("button", { name: "Block", exact: true }).click();
    await ann.getByRole("dialog").getByRole("button", { name: "Block" }).click();
    await ann.getByRole("button", { name: "Unblock" }).waitFor();
    await line(bob, a).click();
    await bob.getByRole("button", { name: "Message", exact: true }).click();
    await box(bob).fill("are you there?");
    await bob.keyboard.press("Enter");
    await bob.getByText(/^Not sent:/).waitFor();
    await ann.getByRole("button", { name: "Unblock" }).click();
    await ann.getByRole("button", { name: "Block", exact: true }).waitFor();
    await bob.getByRole("button", { name: "Send again" }).click();
    await stored(bob, "are you there?").waitFor();
  });

  it("keep mute, pin and draft on all their devices", async () => {
    run = Date.now().toString(36);
    const [a, b] = [`ann-${run}`, `bob-${run}`];
    const [ann, phone] = [await enter(a), await enter(a)];
    await enter(b);
    await talkTo(ann, b);
    await say(ann, "hello");
    await line(phone, b).waitFor();
    await line(ann, b).click({ button: "right" });
    await ann.getByRole("menuitem", { name: "Mute" }).click();
    await line(phone, b).getByTitle("Muted").waitFor();
    await line(phone, b).click({ button: "right" });
    await phone.getByRole("menuitem", { name: "Pin to top" }).click();
    await line(ann, b).getByTitle("Pinned").waitFor();
    await box(ann).fill("not yet sent");
    await line(phone, b).getByText("[Draft] not yet sent").waitFor();
    await phone.reload();
    await online(phone);
    await line(phone, b).getByTitle("Muted").waitFor();
    await line(phone, b).getByText("[Draft] not yet sent").waitFor();
  });
});
