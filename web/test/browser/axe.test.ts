// What axe knows of accessibility, on every screen of the messenger, in both colours.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type FakeSite, startFakeSite } from "./fake.ts";
import { faults } from "./faults.ts";
import { startBrowser } from "./stack.ts";

let site: FakeSite;
let browser: Browser;
const contexts: BrowserContext[] = [];

beforeAll(async () => {
  [site, browser] = await Promise.all([startFakeSite(), startBrowser()]);
}, 180_000);
afterAll(async () => {
  await browser?.close();
  await site?.stop();
});
afterEach(async () => {
  for (const context of contexts.splice(0)) await context.close();
});

describe.each(["light", "dark"] as const)("in the %s", (colorScheme) => {
  async function open(query: string): Promise<Page> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme, locale: "en-GB", reducedMotion: "reduce" });
    contexts.push(context);
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    await page.goto(`${site.url}${query}`);
    return page;
  }

  it("the conversation with all around it has no fault", async () => {
    const page = await open("?demo=fake&quiet");
    await page.getByText("Comet watch").first().click();
    await page.locator(".bubble").first().waitFor();
    await page.getByRole("button", { name: "Details" }).click();
    await page.getByText("Management").waitFor();
    expect(await faults(page)).toEqual([]);
    await page.locator(".bubble").last().click({ button: "right" });
    expect(await faults(page)).toEqual([]);
  });

  it("writing, with reply, mention and emoji, has none", async () => {
    const page = await open("?demo=fake&quiet");
    await page.getByText("Comet watch").first().click();
    await page.locator(".bubble").last().dblclick();
    await page.getByRole("textbox", { name: /^Message to/ }).pressSequentially("@");
    await page.getByRole("listbox").waitFor();
    expect(await faults(page)).toEqual([]);
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Emoji" }).click();
    await page.locator(".emoji").first().waitFor();
    expect(await faults(page)).toEqual([]);
  });

  it("what isn't sent, and no connection, have none", async () => {
    const page = await open("?demo=fake&quiet");
    await page.getByText("Vera Rubin").first().click();
    await page.evaluate(() => void globalThis.fake!.world.blocks.set("vera.rubin", new Set(["ann"])));
    await page.getByRole("textbox", { name: /^Message to/ }).fill("hello");
    await page.getByRole("textbox", { name: /^Message to/ }).press("Enter");
    await page.getByText(/^Not sent:/).waitFor();
    await page.evaluate(() => globalThis.fake!.port.setOnline(false));
    await page.getByText(/^Offline/).waitFor();
    expect(await faults(page)).toEqual([]);
  });

  it("people, requests, dialogs and settings have none", async () => {
    const page = await open("?demo=fake&quiet");
    await page.getByRole("button", { name: /^Contacts/ }).click();
    await page.getByRole("button", { name: /^Requests/ }).click();
    expect(await faults(page)).toEqual([]);
    await page.getByRole("button", { name: "Vera Rubin" }).click();
    expect(await faults(page)).toEqual([]);
    await page.getByRole("button", { name: "New…" }).click();
    await page.getByRole("menuitem", { name: "New group" }).click();
    await page.getByRole("dialog").getByText("Vera Rubin").waitFor();
    expect(await faults(page)).toEqual([]);
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Settings", exact: true }).click();
    await page.getByRole("dialog").waitFor();
    expect(await faults(page)).toEqual([]);
  });

  it("the doors have none", async () => {
    const page = await open("");
    await page.getByLabel("Your name").waitFor();
    expect(await faults(page)).toEqual([]);
    await page.goto(`${site.url}admin`);
    await page.getByLabel(/^API key/).waitFor();
    expect(await faults(page)).toEqual([]);
  });
});
