// What the tests of the messenger on its made-up world share.
import type { Browser, BrowserContext, Locator, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import type {} from "../../app/src/model/fake/page.ts";
import { type FakeSite, startFakeSite } from "./fake.ts";
import { listen, picture, startBrowser, until } from "./stack.ts";

type Options = Parameters<Browser["newContext"]>[0];

/** Sets a file's tests up, and returns what opens the messenger in a window of its own. */
export function messengers(): (options?: Options, query?: string) => Promise<Page> {
  let site: FakeSite;
  let browser: Browser;
  const contexts: BrowserContext[] = [];
  const complaints: string[] = [];

  beforeAll(async () => {
    [site, browser] = await Promise.all([startFakeSite(), startBrowser()]);
  }, 180_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
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

  return async (options = {}, query = "quiet") => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: "light", locale: "en-GB", ...options });
    contexts.push(context);
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    listen(page, complaints);
    await page.goto(`${site.url}?demo=fake&${query}`);
    await page.locator(".line, .empty").first().waitFor();
    return page;
  };
}

export const line = (page: Page, name: string) => page.locator(".list .line").filter({ has: page.locator(".line-name", { hasText: name }) });
export const bubble = (page: Page, text: string) => page.locator(".bubble").filter({ hasText: text }).last();
export const box = (page: Page) => page.getByRole("textbox", { name: /^Message to/ });

export async function talk(page: Page, name: string): Promise<void> {
  await line(page, name).click();
  await page.getByRole("main", { name }).waitFor();
  await page.locator(".bubble, .messages-box .empty").first().waitFor();
}

export async function say(page: Page, text: string): Promise<void> {
  await box(page).fill(text);
  await box(page).press("Enter");
  await bubble(page, text).waitFor();
}

export async function act(page: Page, target: Locator, action: string): Promise<void> {
  await target.click({ button: "right" });
  await page.getByRole(action.startsWith("React") ? "menuitemcheckbox" : "menuitem", { name: action, exact: true }).click();
}

/** The first row in view, but for one that is half above it, and where it stands. */
const inView = (list: Locator) =>
  list.evaluate((box) => {
    const top = box.getBoundingClientRect().top;
    const row = [...box.querySelectorAll<HTMLElement>("[data-seq]")].find((r) => r.getBoundingClientRect().top > top + 100);
    return row && { seq: Number(row.dataset.seq), at: row.getBoundingClientRect().top };
  });

export async function place(list: Locator): Promise<{ seq: number; at: number }> {
  let row = await inView(list);
  // A slow machine draws them a moment after the turn of the wheel.
  await until(async () => (row ??= await inView(list)) !== undefined);
  return row!;
}

/** Waits until the list stands still for some frames. */
export const still = (list: Locator) =>
  list.evaluate(
    (box) =>
      new Promise<void>((resolve) => {
        let [last, same] = [NaN, 0];
        const look = () => {
          same = box.scrollTop === last ? same + 1 : 0;
          last = box.scrollTop;
          if (same > 3) resolve();
          else requestAnimationFrame(look);
        };
        look();
      }),
  );

/** Waits until all that was asked for is loaded and drawn. */
export async function rest(page: Page, list: Locator): Promise<void> {
  let before = await place(list);
  await until(async () => {
    await still(list);
    const now = await place(list);
    const same = now.seq === before.seq && Math.abs(now.at - before.at) < 1;
    before = now;
    return same && (await page.locator(".loading-bar").count()) === 0;
  });
}
