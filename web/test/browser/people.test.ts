// The messenger in a browser, on its made-up world: people and groups, by button and menu.
import type { Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { box, line, messengers, talk } from "./messengers.ts";
import { picture, until } from "./stack.ts";

const open = messengers();

describe("people", () => {
  const contacts = (page: Page) => page.getByRole("button", { name: /^Contacts/ }).click();

  it("are found by name, asked, and accept", async () => {
    const page = await open();
    await page.getByRole("button", { name: "New…" }).click();
    await page.getByRole("menuitem", { name: "Add contact" }).click();
    await page.getByRole("searchbox", { name: "Name or id" }).fill("tyc");
    const found = page.getByRole("dialog", { name: "Find people" }).locator(".person", { hasText: "Tycho" });
    await found.getByRole("button", { name: "Add" }).click();
    const ask = page.getByRole("dialog", { name: "Add Tycho" });
    await ask.getByRole("textbox", { name: "Say who you are" }).fill("It’s Ann.");
    await ask.getByRole("textbox", { name: /Your name for them/ }).fill("Nose");
    await ask.getByRole("button", { name: "Add" }).click();
    await found.getByText("Waiting for an answer").waitFor();
    await page.keyboard.press("Escape");
    await page.evaluate(() => globalThis.fake!.world.befriend("tycho", "ann"));
    await contacts(page);
    await line(page, "Nose").click();
    await page.getByRole("heading", { name: "Nose" }).waitFor();
  });

  it("ask, and are accepted or declined; requests are taken back", async () => {
    const page = await open();
    await contacts(page);
    await line(page, "Requests").getByText("2").waitFor();
    await line(page, "Requests").click();
    const card = (name: string) => page.locator(".card").filter({ hasText: name });
    await card("张衡").getByText("地动仪").waitFor();
    await picture(page, "messenger-requests");
    await card("张衡").getByRole("button", { name: "Accept" }).click();
    await line(page, "张衡").waitFor();
    await card("Hypatia").getByText("wants to join Comet watch").waitFor();
    await card("Hypatia").getByRole("button", { name: "Decline" }).click();
    await card("Galileo").getByRole("button", { name: "Take back" }).click();
    await page.getByText("No requests", { exact: true }).waitFor();
  });

  it("get remarks, are blocked and let go, and removed", async () => {
    const page = await open();
    await contacts(page);
    await line(page, "Vera Rubin").click();
    await picture(page, "messenger-person");
    await page.getByRole("button", { name: "Edit", exact: true }).click();
    await page.getByRole("textbox", { name: "Only you see it" }).fill("Vera (dark matter)");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("heading", { name: "Vera (dark matter)" }).waitFor();
    await line(page, "Vera (dark matter)").waitFor();
    await page.getByRole("button", { name: "Block", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Block" }).click();
    await page.getByRole("button", { name: "Message", exact: true }).click();
    await page.getByText("You have blocked this person.").waitFor();
    await page.getByRole("button", { name: "Unblock" }).click();
    await box(page).waitFor();
    await contacts(page);
    await page.getByRole("button", { name: "Remove contact" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove contact" }).click();
    await line(page, "Vera").waitFor({ state: "detached" });
  });

  it("have their own name and visibility", async () => {
    const page = await open();
    await page.getByRole("button", { name: "Settings", exact: true }).click();
    await page.getByRole("textbox", { name: "Display name" }).fill("Annie");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("radio", { name: "Nobody" }).check({ force: true });
    await until(() => page.evaluate(() => globalThis.fake!.world.users.get("ann")!.visibility === "nobody"));
    expect(await page.evaluate(() => globalThis.fake!.world.users.get("ann")!.name)).toBe("Annie");
  });
});

describe("a group", () => {
  const world = (page: Page, what: string) => page.evaluate(what);
  const member = (page: Page, name: string) => page.locator(".details .person").filter({ hasText: name });

  async function menu(page: Page, name: string, action: string): Promise<void> {
    await member(page, name).getByRole("button", { name: /^More/ }).click();
    await page.getByRole("menuitem", { name: action, exact: true }).click();
  }

  it("is made, with people chosen by search", async () => {
    const page = await open();
    await page.getByRole("button", { name: "New…" }).click();
    await page.getByRole("menuitem", { name: "New group" }).click();
    const dialog = page.getByRole("dialog", { name: "New group" });
    await dialog.getByRole("textbox", { name: "Group name" }).fill("Saturday");
    await dialog.getByRole("searchbox").fill("mar");
    await dialog.getByRole("searchbox").press("Enter");
    await dialog.getByText("Cecilia Payne").click();
    await dialog.getByText("2 chosen").waitFor();
    await picture(page, "messenger-new-group");
    await dialog.getByRole("button", { name: "Create" }).click();
    await page.getByRole("main", { name: "Saturday" }).waitFor();
    await page.getByText("You made the group “Saturday”").waitFor();
    await page.getByText("3 members").waitFor();
  });

  it("is looked after: name, announcement, who joins, roles, mutes, kicks", async () => {
    const page = await open();
    await talk(page, "Comet watch");
    await page.getByRole("button", { name: "Details" }).click();
    await picture(page, "messenger-details");
    // Name and announcement.
    await page.getByRole("button", { name: "Edit: Group name" }).click();
    await page.getByRole("dialog").getByRole("textbox").fill("Comet party");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("You named the group “Comet party”").waitFor();
    await page.getByRole("button", { name: "Edit: Announcement" }).click();
    await page.getByRole("dialog").getByRole("textbox").fill("Party at nine");
    await page.getByRole("button", { name: "Save" }).click();
    await page.locator(".board").getByText("Party at nine").waitFor();
    // Somebody asks, somebody is added.
    await member(page, "Hypatia").getByRole("button", { name: "Accept" }).click();
    await page.getByText("You added Hypatia").waitFor();
    await page.getByRole("button", { name: "Add members" }).click();
    const add = page.getByRole("dialog", { name: "Add members" });
    await add.getByText("Vera Rubin").click();
    await add.getByRole("button", { name: "Add members" }).click();
    await page.getByText("You added Vera Rubin").waitFor();
    // Roles, mute, kick.
    await menu(page, "Maria Mitchell", "Make admin");
    await page.getByText("You made Maria Mitchell an admin").waitFor();
    await member(page, "Maria Mitchell").getByText("Admin").waitFor();
    await menu(page, "Maria Mitchell", "Make ordinary member");
    await member(page, "Maria Mitchell").getByText("Admin").waitFor({ state: "detached" });
    await menu(page, "Tycho", "Mute for an hour");
    await page.getByText(/You muted Tycho until/).waitFor();
    await member(page, "Tycho").getByText(/muted until/).waitFor();
    await menu(page, "Tycho", "Unmute");
    await member(page, "Tycho").getByText(/muted until/).waitFor({ state: "detached" });
    await menu(page, "Tycho", "Remove from group");
    await page.getByRole("dialog").getByRole("button", { name: "Remove from group" }).click();
    await page.getByText("You removed Tycho").waitFor();
    await member(page, "Tycho").waitFor({ state: "detached" });
    // Management.
    await page.getByRole("switch", { name: "Only admins may write" }).click();
    await page.getByText("You let only admins write").waitFor();
    await page.getByRole("combobox", { name: "Who lets people in" }).selectOption("open");
    await until(() => page.evaluate(() => globalThis.fake!.world.conversations.get("g/0191-comet")!.joinPolicy === "open"));
    await page.getByRole("switch", { name: "Mute", exact: true }).click();
    await line(page, "Comet party").getByTitle("Muted").waitFor();
  });

  it("is handed over, then left", async () => {
    const page = await open();
    await talk(page, "Comet watch");
    await page.getByRole("button", { name: "Details" }).click();
    await page.getByRole("button", { name: "Leave group" }).click();
    await page.getByText("Hand the group over first, or dissolve it.").waitFor();
    await menu(page, "Caroline Herschel", "Hand the group over");
    await page.getByRole("dialog").getByRole("button", { name: "Hand the group over" }).click();
    await page.getByText("You handed the group over to Caroline Herschel").waitFor();
    await member(page, "Caroline Herschel").getByText("Owner").waitFor();
    await page.getByRole("button", { name: "Leave group" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Leave group" }).click();
    await page.getByText("You are no longer in this group.").waitFor();
  });

  it("is dissolved, and nobody writes any more", async () => {
    const page = await open();
    await talk(page, "Comet watch");
    await page.getByRole("button", { name: "Details" }).click();
    await page.getByRole("button", { name: "Dissolve group" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Dissolve group" }).click();
    await page.getByText("This group was dissolved.").waitFor();
    expect(await box(page).count()).toBe(0);
  });

  it("says why one can't write", async () => {
    const page = await open();
    await talk(page, "公告与活动");
    await page.getByText("Only admins can write here now.").waitFor();
    await world(page, `{ const c = fake.world.conversations.get("g/0191-comet"); c.owner = "caroline"; c.members.get("ann").role = "member"; fake.world.store(c, { kind: "muted", from: "caroline", members: ["ann"], mutedUntil: Date.now() + 36e5 }); c.members.get("ann").mutedUntil = Date.now() + 36e5; fake.world.refresh(c); }`);
    await talk(page, "Comet watch");
    await page.getByText(/You can’t write here until/).waitFor();
  });

  it("is asked for by its id, or joined where it is open", async () => {
    const page = await open();
    await world(page, `{ const c = fake.world.make("g/closed", { title: "Closed", owner: "tycho", joinPolicy: "by_admins" }); fake.world.join(c, "tycho", "owner"); const o = fake.world.make("g/open", { title: "Open house", owner: "tycho", joinPolicy: "open" }); fake.world.join(o, "tycho", "owner"); fake.world.say(o, "tycho", { text: "come in" }); }`);
    const join = async (id: string) => {
      await page.getByRole("button", { name: "New…" }).click();
      await page.getByRole("menuitem", { name: "Join a group" }).click();
      await page.getByRole("textbox", { name: "Group id" }).fill(id);
      await page.getByRole("button", { name: "Ask to join" }).click();
    };
    await join("g/closed");
    await page.getByText("The admins were asked.").waitFor();
    await join("g/open");
    await page.getByRole("main", { name: "Open house" }).waitFor();
  });
});
