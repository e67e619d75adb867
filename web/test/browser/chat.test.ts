// The messenger on a Halley: people talk, reload, lose their line, and find everything as it is.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Halley, Line, picture, startBrowser, startHalley, through, until } from "./stack.ts";

let halley: Halley;
let browser: Browser;
const contexts: BrowserContext[] = [];
const complaints: string[] = [];
/** Each test has people of its own: what was said stays. On a Halley that isn't ours it may have stayed from the last time. */
const run = process.env.HALLEY_URL ? `-${Date.now().toString(36)}` : "";

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
  await page.getByRole(action.startsWith("React") ? "menuitemcheckbox" : "menuitem", { name: action, exact: true }).click();
}

const texts = (page: Page) => page.locator(".bubble .text").allTextContents();

describe("two people", () => {
  it("talk, reload, lose the line, and find all as it is; a third comes to their group", async () => {
    const [a, b, c] = [`ann${run}`, `bob${run}`, `cleo${run}`];
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
    const [a, b] = [`dora${run}`, `emil${run}`];
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
    const [a, b] = [`fay${run}`, `gus${run}`];
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

describe("a group", () => {
  const member = (page: Page, name: string) => page.locator(".details .person").filter({ hasText: name });

  async function menu(page: Page, name: string, action: string): Promise<void> {
    await member(page, name).getByRole("button", { name: /^More/ }).click();
    await page.getByRole("menuitem", { name: action, exact: true }).click();
  }
  const sure = (page: Page, label: string) => page.getByRole("dialog").getByRole("button", { name: label }).click();

  it("is looked after by its owner, and ended", async () => {
    const [h, i, j, k] = [`hal${run}`, `ida${run}`, `jon${run}`, `kim${run}`];
    const [hal, ida, jon, kim] = [await enter(h), await enter(i), await enter(j), await enter(k)];
    await hal.getByRole("button", { name: "New…" }).click();
    await hal.getByRole("menuitem", { name: "New group" }).click();
    const make = hal.getByRole("dialog", { name: "New group" });
    await make.getByRole("textbox", { name: "Group name" }).fill("Board");
    for (const name of [i, j]) {
      await make.getByRole("searchbox").fill(name);
      await hal.keyboard.press("Enter");
    }
    await make.getByRole("button", { name: "Create" }).click();
    await hal.getByRole("main", { name: "Board" }).waitFor();
    await hal.getByRole("button", { name: "Details" }).click();
    for (const page of [ida, jon]) await line(page, "Board").click();

    // Name and announcement.
    await hal.getByRole("button", { name: "Edit: Announcement" }).click();
    await hal.getByRole("dialog").getByRole("textbox").fill("Meeting at nine");
    await sure(hal, "Save");
    await ida.locator(".board").getByText("Meeting at nine").waitFor();
    await hal.getByRole("button", { name: "Edit: Group name" }).click();
    await hal.getByRole("dialog").getByRole("textbox").fill("The board");
    await sure(hal, "Save");
    await line(ida, "The board").waitFor();

    // Somebody asks to be let in.
    const id = (await hal.locator(".fact-value .mono").textContent())!;
    await kim.getByRole("button", { name: "New…" }).click();
    await kim.getByRole("menuitem", { name: "Join a group" }).click();
    await kim.getByRole("textbox", { name: "Group id" }).fill(id);
    await kim.getByRole("textbox", { name: "Say who you are" }).fill("Ida told me.");
    await kim.getByRole("button", { name: "Ask to join" }).click();
    await kim.getByText("The admins were asked.").waitFor();
    await member(hal, k).getByText("Ida told me.").waitFor();
    await member(hal, k).getByRole("button", { name: "Accept" }).click();
    await line(kim, "The board").click();

    // Roles, mutes, mentions of all, pins.
    await menu(hal, i, "Make admin");
    await ida.getByText(`${h} made you an admin`).waitFor();
    await menu(hal, j, "Mute for an hour");
    await jon.getByText(/You can’t write here until/).waitFor();
    await menu(hal, j, "Unmute");
    await box(jon).waitFor();
    await box(ida).fill("@Every");
    await ida.keyboard.press("Enter");
    await box(ida).pressSequentially("please read this");
    await ida.keyboard.press("Enter");
    await stored(jon, "please read this").locator(".mention.me").waitFor();
    await act(ida, "please read this", "Pin");
    await jon.locator(".board").getByText("please read this").waitFor();
    await hal.getByRole("switch", { name: "Only admins may write" }).click();
    await jon.getByText("Only admins can write here now.").waitFor();
    await hal.getByRole("switch", { name: "Only admins may write" }).click();
    await box(jon).waitFor();

    // Who has read.
    await act(ida, "please read this", "Who has read it");
    await ida.getByRole("dialog").getByRole("heading", { name: /^Read/ }).waitFor();
    await ida.keyboard.press("Escape");

    // Out, handed over, left, ended.
    await menu(hal, j, "Remove from group");
    await sure(hal, "Remove from group");
    await jon.getByText("You are no longer in this group.").waitFor();
    await menu(hal, i, "Hand the group over");
    await sure(hal, "Hand the group over");
    await member(hal, i).getByText("Owner").waitFor();
    await hal.getByRole("button", { name: "Leave group" }).click();
    await sure(hal, "Leave group");
    await hal.getByText("You are no longer in this group.").waitFor();
    await ida.getByRole("button", { name: "Details" }).click();
    await ida.getByRole("button", { name: "Dissolve group" }).click();
    await sure(ida, "Dissolve group");
    for (const page of [ida, kim]) await page.getByText("This group was dissolved.").waitFor();
  });
});

describe("the page for operators", () => {
  it("finds people, kicks them, and looks into groups", async () => {
    const l = `lea${run}`;
    const lea = await enter(l);
    await lea.getByRole("button", { name: "New…" }).click();
    await lea.getByRole("menuitem", { name: "New group" }).click();
    const make = lea.getByRole("dialog", { name: "New group" });
    await make.getByRole("textbox", { name: "Group name" }).fill("Operated on");
    await make.getByRole("searchbox").fill(`mo${run}`);
    await lea.keyboard.press("Enter");
    await make.getByRole("button", { name: "Create" }).click();
    await lea.getByRole("main", { name: "Operated on" }).waitFor();

    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: "light", locale: "en-GB" });
    contexts.push(context);
    const admin = await context.newPage();
    admin.setDefaultTimeout(15_000);
    admin.on("pageerror", (error) => complaints.push(error.message));
    await admin.goto(`${halley.url}/admin`);
    await admin.getByLabel(/^API key/).fill("hk_wrong_key");
    await admin.keyboard.press("Enter");
    await admin.getByRole("alert").filter({ hasText: /isn’t valid/ }).waitFor();
    await admin.getByLabel(/^API key/).fill(halley.apiKey());
    await admin.keyboard.press("Enter");
    await admin.getByText(/1 comet/).waitFor();
    await admin.getByRole("searchbox").fill("le");
    const row = admin.locator(".item").filter({ hasText: l });
    await row.getByText(/online/).waitFor();
    await row.getByRole("button", { expanded: false }).click();
    await row.getByRole("cell", { name: "127.0.0.1" }).waitFor();
    await picture(admin, "admin-people");

    await row.getByRole("button", { name: /^Operated on/ }).click();
    await admin.getByRole("heading", { name: "Operated on" }).waitFor();
    await admin.getByText("owner").waitFor();
    await picture(admin, "admin-group");
    await admin.getByRole("button", { name: "‹ Groups" }).click();
    await admin.locator(".item-head").filter({ hasText: "Operated on" }).click();
    await admin.getByRole("button", { name: "Dissolve" }).click();
    await admin.getByRole("button", { name: "Yes, do it" }).click();
    await lea.getByText("This group was dissolved.").waitFor();
    await admin.getByText("dissolved").first().waitFor();

    await admin.getByRole("button", { name: "Broadcast" }).click();
    await admin.getByLabel("Some people, into their inbox").check();
    await admin.getByLabel(/^Ids/).fill(l);
    await admin.getByLabel("Text", { exact: true }).fill("The server restarts at nine.");
    await admin.getByRole("button", { name: "Send" }).click();
    await admin.getByText(/^Accepted as/).waitFor();
    await line(lea, "Halley").getByText("The server restarts at nine.").waitFor();
    await admin.getByRole("button", { name: "Cluster" }).click();
    await admin.getByText("alive").waitFor();
    await picture(admin, "admin-cluster");

    await admin.getByRole("button", { name: "People" }).click();
    await admin.getByRole("searchbox").fill(l);
    await row.getByRole("button", { expanded: false }).click();
    await row.getByRole("button", { name: "Kick all sessions" }).click();
    await admin.getByRole("button", { name: "Yes, do it" }).click();
    await lea.getByLabel("Your name").waitFor();
    await lea.getByRole("alert").filter({ hasText: "logged out by an administrator" }).waitFor();
  });
});

describe("two tabs of one person", () => {
  it("show the same, and the one that is left goes on", async () => {
    const [n, o] = [`nia${run}`, `oli${run}`];
    const first = await enter(n);
    const oli = await enter(o);
    await talkTo(first, o);
    await say(first, "from the first tab");
    const second = await first.context().newPage();
    second.setDefaultTimeout(15_000);
    await second.goto(halley.url);
    await second.getByLabel("Your name").fill(n);
    await second.keyboard.press("Enter");
    await line(second, o).click();
    await stored(second, "from the first tab").waitFor();
    await say(second, "from the second tab");
    await stored(first, "from the second tab").waitFor();
    await line(oli, n).click();
    await first.close();
    await say(second, "on my own now");
    await stored(oli, "on my own now").waitFor();
    await say(oli, "I see");
    await stored(second, "I see").waitFor();
    expect(await texts(second)).toEqual(["from the first tab", "from the second tab", "on my own now", "I see"]);
  });
});
