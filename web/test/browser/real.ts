// What the tests of the messenger on a Halley share: one of it, people who come to it, and what they do all the time.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { type Halley, Line, listen, picture, startBrowser, startHalley, through, until } from "./stack.ts";

export type EnterOptions = Parameters<Browser["newContext"]>[0] & {
  /** The line that the page's connection goes through. */
  line?: Line;
  /** Runs in the page before anything of its own. */
  before?: () => void;
  /** Sets the window up before it shows anything. */
  prepare?: (context: BrowserContext) => Promise<void>;
  /** Whether he stays logged in. */
  stay?: boolean;
};

export interface Real<H extends Halley = Halley> {
  halley(): H;
  /** Somebody logs in by name, in a window of his own. */
  enter(name: string, options?: EnterOptions): Promise<Page>;
  /** A window of nobody's at a path. */
  visit(path: string, options?: EnterOptions): Promise<Page>;
  /** Ends what a test opened; pages that are for a whole file stay. */
  leave(...pages: Page[]): Promise<void>;
  /** Another name on each run: on a Halley that isn't ours what was said the last time has stayed. */
  name(name: string): string;
}

/**
 * Sets a file's tests up; browserArgs go to Chromium, start starts what they run against. Whatever a browser complains of fails the test in which
 * it does.
 */
export function realHalley<H extends Halley>(browserArgs: string[], start: () => Promise<H>): Real<H>;
export function realHalley(browserArgs?: string[]): Real;
export function realHalley(browserArgs: string[] = [], start: () => Promise<Halley> = () => startHalley()): Real {
  let halley: Halley;
  let browser: Browser;
  const contexts: BrowserContext[] = [];
  const complaints: string[] = [];
  const run = process.env.HALLEY_URL ? `-${Date.now().toString(36)}` : "";

  beforeAll(async () => {
    [halley, browser] = await Promise.all([start(), startBrowser(browserArgs)]);
  }, 180_000);
  afterAll(async () => {
    await browser?.close();
    await halley?.stop();
  });
  afterEach(async ({ task }) => {
    if (task.result?.state === "fail") {
      for (const [i, context] of contexts.entries()) {
        const [page] = context.pages();
        if (page) await picture(page, `failed-${task.name.replaceAll(/\W+/g, "-")}-${i}`).catch(() => {});
      }
    }
    expect(complaints.splice(0)).toEqual([]);
  });

  async function open(path: string, { line, before, prepare, ...options }: EnterOptions): Promise<Page> {
    // Without the service worker, which tests can't see behind, unless it is what is looked at.
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: "light", locale: "en-GB", serviceWorkers: "block", ...options });
    contexts.push(context);
    if (line) await through(line, context, halley.url);
    if (before) await context.addInitScript(before);
    await prepare?.(context);
    const page = await context.newPage();
    page.setDefaultTimeout(Number(process.env.HALLEY_PATIENCE ?? 30_000));
    listen(page, complaints, /WebSocket connection to|Failed to load resource|Service Worker registration blocked/);
    await page.goto(`${halley.url}${path}`);
    return page;
  }

  return {
    halley: () => halley,
    name: (name) => name + run,
    visit: (path, options = {}) => open(path, options),
    enter: async (name, { stay = false, ...options } = {}) => {
      const page = await open("", options);
      if (stay) await page.getByRole("checkbox", { name: "Stay logged in on this device" }).check();
      await page.getByLabel(/^(Your name|你的名字)/).fill(name);
      await page.getByLabel(/^(Your name|你的名字)/).press("Enter");
      await online(page);
      return page;
    },
    leave: async (...pages) => {
      for (const page of pages) {
        contexts.splice(contexts.indexOf(page.context()), 1);
        await page.context().close();
      }
    },
  };
}

export const online = (page: Page) => page.locator("[role=status][data-state=online]").waitFor({ state: "attached" });
export const line = (page: Page, name: string) => page.locator(".list .line").filter({ has: page.locator(".line-name", { hasText: name }) });
export const stored = (page: Page, text: string) => page.locator(".bubble:not(.unsent)").filter({ hasText: text });
export const box = (page: Page) => page.getByRole("textbox", { name: /^Message to/ });
export const texts = (page: Page) => page.locator(".bubble .text").allTextContents();

/** Waits until these are the messages in view, and no others: a list is drawn in more than one go. */
export async function shows(page: Page, want: readonly string[]): Promise<void> {
  let now: string[] = [];
  await until(async () => (now = await texts(page)).join("\n") === want.join("\n"), 30_000).catch(() => expect(now).toEqual(want));
}

export const person = (page: Page, name: string) => page.locator(".details .person").filter({ hasText: name });

/** Says yes to what is asked. */
export const sure = (page: Page, label: string) => page.getByRole("dialog").getByRole("button", { name: label, exact: true }).click();

export async function find(page: Page, query: string, name = query): Promise<void> {
  await page.getByRole("button", { name: "New…" }).click();
  await page.getByRole("menuitem", { name: "Add contact" }).click();
  await page.getByRole("searchbox", { name: "Name or id" }).fill(query);
  await page.getByRole("dialog").locator(".person", { hasText: name }).waitFor();
}

export async function talkTo(page: Page, query: string, name = query): Promise<void> {
  await find(page, query, name);
  await page.getByRole("dialog").getByRole("button", { name: "Message" }).click();
  await page.getByRole("main", { name }).waitFor();
}

export async function say(page: Page, text: string): Promise<void> {
  await box(page).fill(text);
  await box(page).press("Enter");
  await stored(page, text).waitFor();
}

/** Closes the dialog on top. */
export async function close(page: Page): Promise<void> {
  await page.getByRole("dialog").last().getByRole("button", { name: "Close" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
}

/** Does something with a message, by its menu. */
export async function act(page: Page, text: string, action: string): Promise<void> {
  await stored(page, text).first().click({ button: "right" });
  await page.getByRole(action.startsWith("React") ? "menuitemcheckbox" : "menuitem", { name: action, exact: true }).click();
}

/** Does something with a conversation, by its menu in the list. */
export async function manage(page: Page, name: string, action: string): Promise<void> {
  await line(page, name).click({ button: "right" });
  await page.getByRole("menuitem", { name: action, exact: true }).click();
}

/** Does something with a member, by the menu in the details. */
export async function member(page: Page, name: string, action: string): Promise<void> {
  await person(page, name).getByRole("button", { name: /^More/ }).click();
  await page.getByRole("menuitem", { name: action, exact: true }).click();
}

export async function newGroup(page: Page, title: string, members: string[]): Promise<void> {
  await page.getByRole("button", { name: "New…" }).click();
  await page.getByRole("menuitem", { name: "New group" }).click();
  const dialog = page.getByRole("dialog", { name: "New group" });
  await dialog.getByRole("textbox", { name: "Group name" }).fill(title);
  for (const name of members) {
    await dialog.getByRole("searchbox").fill(name);
    await dialog.locator(".pick", { hasText: name }).first().waitFor();
    await dialog.getByRole("searchbox").press("Enter");
    await dialog.locator(".chosen-one", { hasText: name }).waitFor();
  }
  await dialog.getByRole("button", { name: "Create" }).click();
  await page.getByRole("main", { name: title }).waitFor();
}

export async function details(page: Page): Promise<void> {
  const button = page.getByRole("button", { name: "Details" });
  if ((await button.getAttribute("aria-expanded")) !== "true") await button.click();
  await page.getByRole("complementary").waitFor();
}

export async function requests(page: Page): Promise<void> {
  await page.getByRole("button", { name: /^Contacts/ }).click();
  await line(page, "Requests").click();
}

/** The id of the group whose details are shown. */
export async function groupId(page: Page): Promise<string> {
  await details(page);
  return (await page.locator(".fact-value .mono").textContent()) ?? "";
}
