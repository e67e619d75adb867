// Groups, each thing that one can do with them, by click, on a Halley: README.md has the table.
import type { Page } from "playwright-core";
import { beforeAll, describe, expect, it } from "vitest";
import { act, box, close, details, groupId, line, member, newGroup, person, realHalley, requests, say, stored, sure, talkTo } from "./real.ts";
import { glimpse, picture, until } from "./stack.ts";

const real = realHalley();
const [h, i, j, k] = ["hal", "ida", "jon", "kim"].map(real.name) as [string, string, string, string];
let hal: Page;
let ida: Page;
let jon: Page;
let kim: Page;
let group = "";
beforeAll(async () => {
  [hal, ida, jon, kim] = [await real.enter(h), await real.enter(i), await real.enter(j), await real.enter(k)];
});

async function join(page: Page, id: string, note = ""): Promise<void> {
  await page.getByRole("button", { name: "New…" }).click();
  await page.getByRole("menuitem", { name: "Join a group" }).click();
  await page.getByRole("textbox", { name: "Group id" }).fill(id);
  if (note) await page.getByRole("textbox", { name: "Say who you are" }).fill(note);
  await page.getByRole("button", { name: "Ask to join" }).click();
}

async function set(page: Page, what: string, text: string): Promise<void> {
  await page.getByRole("button", { name: `Edit: ${what}` }).click();
  await page.getByRole("dialog").getByRole("textbox").fill(text);
  await sure(page, "Save");
}

/** Decides who lets people in; it is so from then on for whoever asks. */
async function letIn(page: Page, who: "by_admins" | "by_members" | "open"): Promise<void> {
  await page.getByRole("combobox", { name: "Who lets people in" }).selectOption(who);
  // The newest line: there are some that say the same.
  await page.locator("[data-message]").last().getByText("You changed who may join").waitFor();
}

const chats = (page: Page) => page.getByRole("button", { name: /^Chats/ }).click();

describe("a group", () => {
  it("made: by search and by id; each member has it", async () => {
    await newGroup(hal, "Board", [i, j]);
    for (const page of [ida, jon]) {
      await line(page, "Board").click();
      await page.getByText(`${h} made the group “Board”`).waitFor();
    }
    group = await groupId(hal);
    await person(hal, h).getByText("Owner").waitFor();
  });

  it("name and announcement: changed for all, and told", async () => {
    await set(hal, "Announcement", "Meeting at nine");
    await ida.locator(".board").getByText("Meeting at nine").waitFor();
    await set(hal, "Group name", "The board");
    await line(ida, "The board").waitFor();
    await jon.getByText(`${h} named the group “The board”`).waitFor();
    // Who doesn't look after it can't.
    await details(jon);
    expect(await jon.getByRole("button", { name: "Edit: Group name" }).count()).toBe(0);
    expect(await jon.getByText("Management").count()).toBe(0);
  });

  it("messages: who has read them is counted and named", async () => {
    await say(hal, "Who is there?");
    for (const page of [ida, jon]) await stored(page, "Who is there?").waitFor();
    await hal.locator(".row", { hasText: "Who is there?" }).locator(".read-by", { hasText: "2" }).waitFor();
    await act(hal, "Who is there?", "Who has read it");
    const readers = hal.getByRole("dialog", { name: "Who has read it" });
    await readers.getByRole("heading", { name: "Read 2" }).waitFor();
    await readers.getByText(i).waitFor();
    await close(hal);
  });

  it("typing: members who have it open see who", async () => {
    const typing = await glimpse(ida, ".pane-sub", `${j} is typing…`);
    await box(jon).pressSequentially("Well");
    await typing();
    await box(jon).fill("");
    await ida.locator(".pane-sub").getByText(/3 members/).waitFor();
  });

  it("mentions: one by name, who is told in the list and finds the way", async () => {
    await talkTo(jon, h);
    await box(hal).pressSequentially(`Look, @${j.slice(0, 2)}`);
    await hal.getByRole("listbox", { name: "People to mention" }).getByRole("option", { name: new RegExp(`^${j}`), selected: true }).waitFor();
    await hal.keyboard.press("Enter");
    await box(hal).pressSequentially("please");
    await hal.keyboard.press("Enter");
    await line(jon, "The board").getByText("[You were mentioned]").waitFor();
    expect(await line(ida, "The board").getByText("[You were mentioned]").count()).toBe(0);
    await line(jon, "The board").click();
    await stored(jon, "Look").locator(".mention.me").waitFor();
    await line(jon, "The board").getByText("[You were mentioned]").waitFor({ state: "detached" });
  });

  it("mentions: of all, by who looks after it only", async () => {
    await box(jon).pressSequentially("@Every");
    await until(async () => (await jon.getByRole("option", { name: "Everybody" }).count()) === 0);
    await box(jon).fill("");
    await box(hal).pressSequentially("@Every");
    await hal.getByRole("option", { name: "Everybody" }).waitFor();
    await hal.keyboard.press("Enter");
    await box(hal).pressSequentially("read this");
    await hal.keyboard.press("Enter");
    for (const page of [ida, jon]) await stored(page, "read this").locator(".mention.me").waitFor();
  });

  it("pins: by who looks after it, on the board of all", async () => {
    await act(hal, "read this", "Pin");
    await jon.locator(".board").getByText("read this").waitFor();
    const shown = await glimpse(jon, ".row.flash", "read this");
    await jon.getByText(`${h} pinned a message`).getByRole("button", { name: "Show" }).click();
    await shown();
    await stored(jon, "Who is there?").click({ button: "right" });
    expect(await jon.getByRole("menuitem", { name: "Pin", exact: true }).count()).toBe(0);
    await jon.keyboard.press("Escape");
  });

  it("recall: by who looks after it, of what others said", async () => {
    await say(jon, "not nice");
    await stored(hal, "not nice").waitFor();
    await act(hal, "not nice", "Recall");
    await sure(hal, "Recall");
    await jon.getByText(`${h} recalled a message of yours`).waitFor();
    await ida.getByText(`${h} recalled a message of ${j}`).waitFor();
    expect(await stored(ida, "not nice").count()).toBe(0);
  });

  it("roles: made an admin, who then looks after it, and not any more", async () => {
    await member(hal, i, "Make admin");
    await ida.getByText(`${h} made you an admin`).waitFor();
    await details(ida);
    await ida.getByText("Management").waitFor();
    await person(hal, i).getByText("Admin").waitFor();
    await member(hal, i, "Make ordinary member");
    await ida.getByText("Management").waitFor({ state: "detached" });
    // What the menu offers is what the one who opens it knows.
    await person(hal, i).getByText("Admin").waitFor({ state: "detached" });
    await member(hal, i, "Make admin");
    await ida.getByText("Management").waitFor();
  });

  it("mute: of one member, by an admin, and undone", async () => {
    await member(ida, j, "Mute for an hour");
    await jon.getByText(/You can’t write here until/).waitFor();
    for (const page of [hal, ida]) await person(page, j).getByText(/muted until/).waitFor();
    await member(ida, j, "Unmute");
    await box(jon).waitFor();
  });

  it("mute: of all but admins", async () => {
    await hal.getByRole("switch", { name: "Only admins may write" }).click();
    await jon.getByText("Only admins can write here now.").waitFor();
    await box(ida).waitFor();
    // Else the switch may stand either way.
    await hal.getByText("You let only admins write").last().waitFor();
    await hal.getByRole("switch", { name: "Only admins may write" }).click();
    await box(jon).waitFor();
  });

  it("asking to join: declined, then accepted", async () => {
    await letIn(hal, "by_admins");
    const asked = await glimpse(kim, ".toast", "The admins were asked.");
    await join(kim, group, "Ida told me.");
    await asked();
    await person(hal, k).getByText("Ida told me.").waitFor();
    await person(hal, k).getByRole("button", { name: "Decline" }).click();
    await person(hal, k).waitFor({ state: "detached" });
    await join(kim, group, "Really.");
    await requests(hal);
    await hal.locator(".card").filter({ hasText: `wants to join The board` }).getByRole("button", { name: "Accept" }).click();
    await line(kim, "The board").click();
    // Who comes late sees from then on.
    await kim.getByText(`${h} added you`).waitFor();
    expect(await stored(kim, "Who is there?").count()).toBe(0);
    await chats(hal);
    await picture(hal, "groups-details");
  });

  it("kick: he is told, and gets nothing any more", async () => {
    await member(hal, k, "Remove from group");
    await sure(hal, "Remove from group");
    await kim.getByText("You are no longer in this group.").waitFor();
    await say(hal, "without Kim");
    await stored(jon, "without Kim").waitFor();
    expect(await stored(kim, "without Kim").count()).toBe(0);
  });

  it("invite: by any member where that is allowed, with what was said before", async () => {
    await hal.getByRole("switch", { name: "New members see old messages" }).click();
    await letIn(hal, "by_members");
    await jon.getByText(`${h} changed who may join`).last().waitFor();
    await jon.getByRole("button", { name: "Add members" }).click();
    const dialog = jon.getByRole("dialog", { name: "Add members" });
    await dialog.getByRole("searchbox").fill(k);
    await dialog.locator(".pick", { hasText: k }).click();
    await dialog.getByRole("button", { name: "Add members" }).click();
    await kim.getByText(`${j} added you`).waitFor();
    await kim.reload();
    await stored(kim, "without Kim").waitFor();
    await stored(kim, "Who is there?").waitFor();
  });

  it("leave: by oneself; and an open group is joined without asking", async () => {
    await details(kim);
    await kim.getByRole("button", { name: "Leave group" }).click();
    await sure(kim, "Leave group");
    await kim.getByText("You are no longer in this group.").waitFor();
    await hal.getByText(`${k} left`).waitFor();
    await letIn(hal, "open");
    await ida.getByText(`${h} changed who may join`).last().waitFor();
    await join(kim, group);
    await box(kim).waitFor();
    await say(kim, "here I am again");
    await stored(hal, "here I am again").waitFor();
  });

  it("transfer: the group is handed over", async () => {
    const refused = await glimpse(hal, ".toast", "Hand the group over first, or dissolve it.");
    await hal.getByRole("button", { name: "Leave group" }).click();
    await refused();
    await member(hal, i, "Hand the group over");
    await sure(hal, "Hand the group over");
    await person(hal, i).getByText("Owner").waitFor();
    await jon.getByText(`${h} handed the group over to ${i}`).waitFor();
    await hal.getByRole("button", { name: "Dissolve group" }).waitFor({ state: "detached" });
    await hal.getByRole("button", { name: "Leave group" }).click();
    await sure(hal, "Leave group");
    await hal.getByText("You are no longer in this group.").waitFor();
  });

  it("dissolve: nobody writes any more, and what was said can be read", async () => {
    await ida.getByRole("button", { name: "Dissolve group" }).click();
    await sure(ida, "Dissolve group");
    for (const page of [ida, jon, kim]) await page.getByText("This group was dissolved.").waitFor();
    expect(await box(jon).count()).toBe(0);
    await jon.reload();
    await stored(jon, "here I am again").waitFor();
  });
});
