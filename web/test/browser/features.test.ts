// What people do with each other and with messages, each by click or key, on a Halley: README.md has the table.
import type { Page } from "playwright-core";
import { beforeAll, describe, expect, it } from "vitest";
import { act, box, close, details, find, line, manage, newGroup, online, realHalley, requests, say, shows, stored, sure, talkTo, texts } from "./real.ts";
import { glimpse, picture, until } from "./stack.ts";

const real = realHalley();
const [a, b, c] = ["ada", "ben", "cora"].map(real.name) as [string, string, string];
let ada: Page;
let ben: Page;
let cora: Page;
beforeAll(async () => {
  [ada, ben, cora] = [await real.enter(a), await real.enter(b, { colorScheme: "dark" }), await real.enter(c)];
});

const contacts = (page: Page) => page.getByRole("button", { name: /^Contacts/ }).click();
const chats = (page: Page) => page.getByRole("button", { name: /^Chats/ }).click();
const settings = (page: Page) => page.getByRole("button", { name: "Settings", exact: true }).click();

async function ask(page: Page, name: string, remark = ""): Promise<void> {
  await find(page, name);
  await page.getByRole("dialog").getByRole("button", { name: "Add", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: /^Add / });
  if (remark) await dialog.getByRole("textbox", { name: /Your name for them/ }).fill(remark);
  await dialog.getByRole("button", { name: "Add" }).click();
  await page.getByText("Waiting for an answer").first().waitFor();
  await close(page);
}

const card = (page: Page, name: string) => page.locator(".card").filter({ hasText: name });

describe("people", () => {
  it("profile: others find and see the name that one gives oneself", async () => {
    await settings(ada);
    await ada.getByRole("textbox", { name: "Display name" }).fill("Ada Lovelace");
    await ada.getByRole("button", { name: "Save" }).click();
    await ada.getByText("Saved.").waitFor();
    await close(ada);
    // By the beginning of the name, and by the id.
    await find(ben, "Ada Lo", "Ada Lovelace");
    await close(ben);
    await find(ben, a, "Ada Lovelace");
    await ben.getByRole("dialog").getByRole("button", { name: "Message" }).click();
    await ben.getByRole("main", { name: "Ada Lovelace" }).waitFor();
  });

  it("contacts: asked for, declined, taken back", async () => {
    await ask(ada, b);
    await requests(ben);
    await card(ben, "Ada Lovelace").getByText("Hello, I’m Ada Lovelace.").waitFor();
    await card(ben, "Ada Lovelace").getByRole("button", { name: "Decline" }).click();
    await ben.getByText("No requests", { exact: true }).waitFor();
    await requests(ada);
    await ada.getByText("No requests", { exact: true }).waitFor();
    await ask(ada, b);
    await card(ben, "Ada Lovelace").waitFor();
    await requests(ada);
    await card(ada, b).getByRole("button", { name: "Take back" }).click();
    await ben.getByText("No requests", { exact: true }).waitFor();
  });

  it("contacts: asked for with a name of one's own, accepted", async () => {
    await ask(ada, b, "Benny");
    await card(ben, "Ada Lovelace").getByRole("button", { name: "Accept" }).click();
    await line(ben, "Ada Lovelace").waitFor();
    await contacts(ada);
    await line(ada, "Benny").click();
    await ada.getByRole("heading", { name: "Benny" }).waitFor();
  });

  it("contacts: a remark is changed, and stands everywhere", async () => {
    await ada.getByRole("button", { name: "Edit", exact: true }).click();
    await ada.getByRole("textbox", { name: "Only you see it" }).fill("Ben the baker");
    await ada.getByRole("button", { name: "Save" }).click();
    await ada.getByRole("heading", { name: "Ben the baker" }).waitFor();
    await ada.getByRole("button", { name: "Message", exact: true }).click();
    await ada.getByRole("main", { name: "Ben the baker" }).waitFor();
    await say(ada, "hello");
    await line(ada, "Ben the baker").getByText("hello").waitFor();
  });

  it("presence: contacts see who is there, and when he was last, unless he doesn't want it", async () => {
    const status = ada.locator(".pane-sub");
    await line(ada, "Ben the baker").click();
    await status.getByText("online").waitFor();
    const away = ben;
    await real.leave(away);
    await status.getByText(/^last seen/).waitFor();
    ben = await real.enter(b, { colorScheme: "dark" });
    await status.getByText("online").waitFor();
    await settings(ben);
    await ben.getByRole("radio", { name: "Nobody" }).check({ force: true });
    await ben.getByText("Saved.").waitFor();
    // Asked for anew there is nothing to be seen.
    await ada.reload();
    await online(ada);
    await ada.getByRole("main", { name: "Ben the baker" }).waitFor();
    await until(async () => !/online|last seen/.test((await status.textContent()) ?? ""));
    await ben.getByRole("radio", { name: "My contacts" }).check({ force: true });
    await close(ben);
    // Asked for anew he is there again, once the server has heard of it.
    await until(async () => {
      await ada.reload();
      await online(ada);
      return status.getByText("online").waitFor({ timeout: 5000 }).then(
        () => true,
        () => false,
      );
    });
    // Who is no contact sees nothing.
    await talkTo(cora, b);
    await say(cora, "good morning");
    await until(async () => !/online|last seen/.test((await cora.locator(".pane-sub").textContent()) ?? ""));
  });

  it("contacts: blocked, nothing of theirs comes; let go, it does", async () => {
    await line(ada, "Ben the baker").click();
    await details(ada);
    await ada.getByRole("button", { name: "Block", exact: true }).click();
    await sure(ada, "Block");
    await ada.getByText("You have blocked this person.").waitFor();
    await line(ben, "Ada Lovelace").click();
    await box(ben).fill("are you there?");
    await box(ben).press("Enter");
    await ben.getByText(/^Not sent:/).waitFor();
    await ada.getByRole("button", { name: "Unblock" }).first().click();
    await box(ada).waitFor();
    await ben.getByRole("button", { name: "Send again" }).click();
    await stored(ada, "are you there?").waitFor();
  });

  it("contacts: removed, on both sides", async () => {
    await ask(cora, a);
    await requests(ada);
    await card(ada, c).getByRole("button", { name: "Accept" }).click();
    await line(ada, c).click();
    await contacts(cora);
    await line(cora, "Ada Lovelace").waitFor();
    await ada.getByRole("button", { name: "Remove contact" }).click();
    await sure(ada, "Remove contact");
    for (const [page, name] of [[ada, c], [cora, "Ada Lovelace"]] as const) await line(page, name).waitFor({ state: "detached" });
  });
});

describe("a conversation of two", () => {
  beforeAll(async () => {
    for (const page of [ada, ben, cora]) await chats(page);
    await line(ada, "Ben the baker").click();
    await line(ben, "Ada Lovelace").click();
  });

  it("typing: the other one sees it, and that it ends", async () => {
    const seen = [await glimpse(ada, ".pane-sub .line-typing"), await glimpse(ada, ".list .line-typing")];
    await box(ben).pressSequentially("I th");
    for (const both of seen) await both();
    await box(ben).fill("");
    await ada.locator(".pane-sub .line-typing").waitFor({ state: "detached" });
  });

  it("stages: a message is sent, delivered, read", async () => {
    await chats(ben);
    await say(ada, "Bread at six?");
    await ada.locator(".row", { hasText: "Bread at six?" }).locator(".stage.read").waitFor();
  });

  it("replies: what is answered stands above, and leads there", async () => {
    await act(ben, "Bread at six?", "Reply");
    await ben.getByText("Replying to Ada Lovelace").waitFor();
    await say(ben, "At seven.");
    const quote = stored(ada, "At seven.").getByRole("button", { name: /Bread at six\?/ });
    await quote.getByText("You").or(quote.getByText("Ada Lovelace")).waitFor();
    const shown = await glimpse(ada, ".row.flash", "Bread at six?");
    await quote.click();
    await shown();
  });

  it("reactions: given, counted, taken back, and who gave them", async () => {
    await act(ada, "At seven.", "React with 🎉");
    const given = (page: Page, n: number) => page.getByRole("button", { name: n === 1 ? "🎉, 1 reaction" : `🎉, ${n} reactions` });
    await given(ben, 1).click();
    await given(ada, 2).waitFor();
    await given(ada, 2).click({ button: "right" });
    await ada.getByRole("dialog", { name: "🎉" }).getByText("Ben the baker").waitFor();
    await ada.keyboard.press("Escape");
    await given(ada, 2).click();
    await given(ben, 1).waitFor();
    expect(await given(ada, 1).getAttribute("aria-pressed")).toBe("false");
  });

  it("edit: by the menu and by the arrow, and it says so", async () => {
    await act(ben, "At seven.", "Edit");
    await box(ben).fill("At half past six.");
    await box(ben).press("Enter");
    await stored(ada, "At half past six.").getByText("edited").waitFor();
    await ben.keyboard.press("ArrowUp");
    await ben.getByText("Editing a message").waitFor();
    await box(ben).fill("At eight, sorry.");
    await box(ben).press("Enter");
    await stored(ada, "At eight, sorry.").waitFor();
  });

  it("pin: it stands above, for both, until it is taken off", async () => {
    await act(ada, "At eight, sorry.", "Pin");
    await ben.locator(".board").getByText("At eight, sorry.").waitFor();
    await act(ben, "At eight, sorry.", "Unpin");
    await ada.locator(".board").waitFor({ state: "detached" });
  });

  it("forward: it says who wrote it", async () => {
    await act(ben, "Bread at six?", "Forward");
    const dialog = ben.getByRole("dialog", { name: "Forward to…" });
    await dialog.getByRole("searchbox").fill(c);
    await dialog.locator(".pick", { hasText: c }).click();
    await dialog.getByRole("button", { name: "Forward" }).click();
    await line(cora, b).getByText("Bread at six?").waitFor();
    await line(cora, b).click();
    await stored(cora, "Bread at six?").getByText("Forwarded from Ada Lovelace").waitFor();
  });

  it("recall: it is gone for both, and can be written anew", async () => {
    await say(ada, "wrong window");
    await stored(ben, "wrong window").waitFor();
    await act(ada, "wrong window", "Recall");
    await sure(ada, "Recall");
    await ben.getByText("Ada Lovelace recalled a message").waitFor();
    expect(await stored(ben, "wrong window").count()).toBe(0);
    await line(ben, "Ada Lovelace").getByText("Message recalled").waitFor();
    await ada.getByRole("button", { name: "Write anew" }).click();
    expect(await box(ada).inputValue()).toBe("wrong window");
    await box(ada).fill("");
  });
});

describe("what is the user's alone, on all his devices", () => {
  let phone: Page;
  const name = "Ben the baker";
  beforeAll(async () => {
    phone = await real.enter(a, { viewport: { width: 390, height: 740 }, hasTouch: true });
    await line(phone, name).waitFor();
  });

  it("mute: what comes isn't counted, until it is undone on the other device", async () => {
    await manage(ada, name, "Mute");
    await line(phone, name).getByTitle("Muted").waitFor();
    // While Ada looks elsewhere.
    await contacts(ada);
    await say(ben, "psst");
    await line(phone, name).locator(".unread-dot").waitFor();
    for (const page of [ada, phone]) await until(async () => (await page.title()) === "Halley");
    await manage(phone, name, "Unmute");
    for (const page of [ada, phone]) await until(async () => (await page.title()) === "(1) Halley");
    await chats(ada);
    for (const page of [ada, phone]) await until(async () => (await page.title()) === "Halley");
  });

  it("pin: it is on top of what is newer", async () => {
    await manage(phone, name, "Pin to top");
    await line(ada, name).getByTitle("Pinned").waitFor();
    await talkTo(cora, a, "Ada Lovelace");
    await say(cora, "newer");
    await line(ada, c).waitFor();
    for (const page of [ada, phone]) await until(async () => (await page.locator(".line .line-name").first().textContent()) === name);
    await manage(ada, name, "Unpin");
    for (const page of [ada, phone]) await until(async () => (await page.locator(".line .line-name").first().textContent()) === c);
  });

  it("draft: what is begun on one device stands on the other", async () => {
    await line(ada, name).click();
    await box(ada).fill("not yet sent");
    await line(phone, name).getByText("[Draft] not yet sent").waitFor();
    await phone.reload();
    await online(phone);
    await line(phone, name).click();
    await until(async () => (await box(phone).inputValue()) === "not yet sent");
    await box(phone).fill("");
    await phone.getByRole("button", { name: "Back" }).click();
    await line(phone, name).getByText("[Draft]").waitFor({ state: "detached" });
  });

  it("delete for me: hidden on all devices, and there for the other", async () => {
    await box(ada).fill("");
    await say(ada, "seen by Ben only");
    await stored(ben, "seen by Ben only").waitFor();
    await line(phone, name).click();
    await stored(phone, "seen by Ben only").waitFor();
    await act(ada, "seen by Ben only", "Delete for me");
    for (const page of [ada, phone]) await stored(page, "seen by Ben only").waitFor({ state: "detached" });
    expect(await stored(ben, "seen by Ben only").count()).toBe(1);
  });

  it("clear: the conversation is empty, for him alone", async () => {
    await manage(ada, name, "Clear history");
    await sure(ada, "Clear history");
    for (const page of [ada, phone]) await page.getByText("Say hello").waitFor();
    await line(ada, name).getByText("No messages yet").waitFor();
    expect((await texts(ben)).length).toBeGreaterThan(3);
    await say(ben, "after the clearing");
    for (const page of [ada, phone]) {
      await stored(page, "after the clearing").waitFor();
      await shows(page, ["after the clearing"]);
    }
  });

  it("hide: off the list until something comes", async () => {
    await manage(ada, c, "Remove from list");
    await line(ada, c).waitFor({ state: "detached" });
    await say(cora, "back again");
    await line(ada, c).getByText("back again").waitFor();
    // A phone's own way back leads from the conversation to the list, and not out of the page.
    await phone.goBack();
    await line(phone, c).getByText("back again").waitFor();
    expect(await box(phone).count()).toBe(0);
    await real.leave(phone);
  });
});

describe("whatever people write", () => {
  it("scripts in names, groups and messages never run, under a strict policy", async () => {
    const evil = `<img src=x onerror="document.title='run'"><script>document.title='run'</script>`;
    const policy = (await fetch(real.halley().url)).headers.get("content-security-policy");
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self';");
    expect(policy).not.toContain("unsafe");
    await settings(cora);
    await cora.getByRole("textbox", { name: "Display name" }).fill(evil.slice(0, 80));
    await cora.getByRole("button", { name: "Save" }).click();
    await cora.getByText("Saved.").waitFor();
    await close(cora);
    await newGroup(cora, evil.slice(0, 80), [a, b]);
    await say(cora, evil);
    await say(cora, "javascript:alert(1) data:text/html,<script>x</script> [x](javascript:alert(1))");
    await details(cora);
    await cora.getByRole("button", { name: "Edit: Announcement" }).click();
    await cora.getByRole("dialog").getByRole("textbox").fill(evil);
    await sure(cora, "Save");
    await line(ada, "<img").click();
    await stored(ada, "<script>document").waitFor();
    await ada.locator(".board").getByText("<img").waitFor();
    await act(ada, "<script>document", "Reply");
    await say(ada, `@${c} ${evil}`);
    await details(ada);
    await ada.locator(".details .person").filter({ hasText: c }).getByRole("button", { name: /^More/ }).click();
    await ada.getByRole("menuitem", { name: "Profile" }).click();
    await ada.getByRole("heading", { name: "<img" }).waitFor();
    await chats(ada);
    await ada.locator(".details .person").filter({ hasText: "<img" }).first().waitFor();
    await ada.locator(".sender").filter({ hasText: "<img" }).first().waitFor();
    await picture(ada, "features-scripts");
    await line(ben, "<img").click();
    await stored(ben, "javascript:alert").waitFor();
    for (const page of [ada, ben, cora]) {
      expect(await page.title()).not.toContain("run");
      expect(await page.locator("img[src=x], .text script, a[href^=javascript], a[href^=data]").count()).toBe(0);
    }
    await ada.getByRole("button", { name: "Close" }).click();
  });
});

describe("without a connection", () => {
  /** Whether a message stands in the device's own storage, as it is now. */
  const kept = (page: Page, text: string) =>
    page.evaluate(async (text) => {
      const done = <T>(request: IDBRequest<T>) =>
        new Promise<T>((resolve, reject) => {
          request.onsuccess = () => resolve(request.result);
          request.onerror = () => reject(request.error);
        });
      for (const { name } of await indexedDB.databases()) {
        if (!name?.startsWith("halley/")) continue;
        const db = await done(indexedDB.open(name));
        const all = await done(db.transaction("entries").objectStore("entries").getAll()).finally(() => db.close());
        if (JSON.stringify(all).includes(text)) return true;
      }
      return false;
    }, text);

  it("a reload or a new tab shows the conversation at once; it can be read, and what is written waits", async () => {
    // With the service worker, which keeps the page itself.
    let dan = await real.enter(real.name("dan"), { serviceWorkers: "allow", stay: true });
    await talkTo(dan, b);
    await say(dan, "before the tunnel");
    await line(ben, real.name("dan")).click();
    await say(ben, "see you behind it");
    await stored(dan, "see you behind it").waitFor();
    await act(dan, "before the tunnel", "Edit");
    await box(dan).fill("just before the tunnel");
    await box(dan).press("Enter");
    await stored(dan, "just before").getByText("edited").waitFor();
    await until(() => dan.evaluate(async () => (await caches.keys()).length > 0 && (await navigator.serviceWorker.ready).active?.state === "activated"));
    // What is seen is kept a moment later.
    for (const text of ["just before the tunnel", "see you behind it"]) await until(() => kept(dan, text));
    await dan.context().setOffline(true);
    await dan.reload();
    await dan.getByRole("main", { name: b }).waitFor();
    await stored(dan, "see you behind it").waitFor();
    await shows(dan, ["just before the tunnel", "see you behind it"]);
    await dan.getByText(/^Offline/).waitFor();
    await picture(dan, "features-offline");
    // What is only begun stays as well, and so does he who wanted to stay logged in.
    await box(dan).fill("out of i");
    const next = await dan.context().newPage();
    await dan.close();
    dan = next;
    await dan.goto(real.halley().url);
    await line(dan, b).click();
    await stored(dan, "see you behind it").waitFor();
    expect(await box(dan).inputValue()).toBe("out of i");
    await box(dan).fill("out of it");
    await box(dan).press("Enter");
    await dan.getByTitle("Waiting for a connection").waitFor();
    // What happens meanwhile is right when he is back.
    await act(ben, "see you behind it", "Recall");
    await sure(ben, "Recall");
    await say(ben, "said meanwhile");
    await dan.context().setOffline(false);
    await dan.getByRole("button", { name: "Try now" }).click({ timeout: 3000 }).catch(() => {
      // It was faster.
    });
    await online(dan);
    await stored(dan, "said meanwhile").waitFor();
    await stored(dan, "out of it").waitFor();
    await dan.getByText(`${b} recalled a message`).waitFor();
    await shows(dan, ["just before the tunnel", "said meanwhile", "out of it"]);
    await real.leave(dan);
  });
});
