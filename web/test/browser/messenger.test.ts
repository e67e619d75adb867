// The messenger in a browser, on its made-up world: conversations, by button, menu and key.
import { describe, expect, it } from "vitest";
import { act, box, bubble, line, messengers, place, rest, say, still, talk } from "./messengers.ts";
import { glimpse, picture, until } from "./stack.ts";

const open = messengers();

describe("a conversation", () => {
  it("shows what is sent and what comes, and who types", async () => {
    const page = await open({}, "");
    await talk(page, "Vera Rubin");
    // Until the answer is there.
    const typing = await glimpse(page, ".pane-sub .line-typing");
    await say(page, "How do you know? https://example.org/a_(b) <b>bold</b>");
    const link = bubble(page, "How do you know").getByRole("link");
    expect(await link.getAttribute("href")).toBe("https://example.org/a_(b)");
    expect(await link.getAttribute("rel")).toContain("noopener");
    expect(await bubble(page, "How do you know").locator("b").count()).toBe(0);
    await typing();
    await page.locator(".row:not(.mine) .bubble").nth(2).waitFor();
    await page.locator(".mine .stage.read").first().waitFor();
    expect(await box(page).inputValue()).toBe("");
  });

  it("runs nothing of what people write, wherever it is shown", async () => {
    const page = await open();
    const evil = `<img src=x onerror="document.title='run'"><script>document.title='run'</script>`;
    await page.evaluate((evil) => {
      const { world } = globalThis.fake!;
      world.user("mallory", evil);
      const c = world.make("g/evil", { title: evil, announcement: evil, owner: "mallory" });
      for (const uid of ["mallory", "ann"]) world.join(c, uid, uid === "mallory" ? "owner" : "member");
      world.say(c, "mallory", { text: evil, reply: { seq: 1, from: "mallory", text: evil } });
      world.say(c, "mallory", { text: "javascript:alert(1) data:text/html,x" });
      world.store(c, { kind: "reaction", from: "mallory", target: 1, reaction: evil });
      world.store(c, { kind: "info", from: "mallory", info: { title: evil } });
    }, evil);
    await talk(page, "<img");
    await bubble(page, "<script>").waitFor();
    expect(await bubble(page, "javascript:").getByRole("link").count()).toBe(0);
    await page.getByRole("button", { name: "Details" }).click();
    await page.getByText("Management").waitFor({ state: "detached" });
    expect(await page.title()).not.toContain("run");
    expect(await page.locator("img[src=x]").count()).toBe(0);
  });

  it("is answered, forwarded, copied, reacted to, pinned, edited, recalled and deleted", async () => {
    const page = await open({ permissions: ["clipboard-read", "clipboard-write"] });
    await talk(page, "Comet watch");
    // Reply, and the way back to what is quoted.
    await act(page, bubble(page, "pick you up").or(bubble(page, "can you pick me up")), "Reply");
    await page.getByText("Replying to Maria Mitchell").waitFor();
    await say(page, "I will be there.");
    const reply = bubble(page, "I will be there.");
    const shown = await glimpse(page, ".row.flash", "can you pick me up");
    await reply.getByRole("button", { name: /Maria Mitchell/ }).click();
    await shown();
    // Reactions: from the menu, and off again by a click on it.
    await act(page, bubble(page, "one more in my car"), "React with 🎉");
    const reaction = page.getByRole("button", { name: "🎉, 1 reaction" });
    await reaction.waitFor();
    expect(await reaction.getAttribute("aria-pressed")).toBe("true");
    await reaction.click();
    await reaction.waitFor({ state: "detached" });
    // Edit, from the menu and by the arrow.
    await act(page, reply, "Edit");
    await box(page).fill("I will be there, with tea.");
    await box(page).press("Enter");
    await bubble(page, "with tea.").getByText("edited").waitFor();
    await page.keyboard.press("ArrowUp");
    await page.getByText("Editing a message").waitFor();
    await page.keyboard.press("Escape");
    // Pin: it shows above.
    await act(page, bubble(page, "with tea."), "Pin");
    await page.locator(".board").getByText("with tea.").waitFor();
    // Who has read.
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      world.read(world.conversations.get("g/0191-comet")!, "edmond");
    });
    await act(page, bubble(page, "with tea."), "Who has read it");
    const readers = page.getByRole("dialog", { name: "Who has read it" });
    await readers.getByRole("heading", { name: "Read 1" }).waitFor();
    await readers.getByText("Edmond (office)").waitFor();
    await picture(page, "messenger-readers");
    await page.keyboard.press("Escape");
    // Copy.
    const copied = await glimpse(page, ".toast", "Copied.");
    await act(page, bubble(page, "with tea."), "Copy");
    await copied();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("I will be there, with tea.");
    // Forward.
    await act(page, bubble(page, "with tea."), "Forward");
    const dialog = page.getByRole("dialog", { name: "Forward to…" });
    await dialog.getByRole("searchbox").fill("vera");
    await dialog.getByText("Vera Rubin").click();
    await dialog.getByRole("button", { name: "Forward" }).click();
    await line(page, "Vera Rubin").getByText("with tea.").waitFor();
    // Recall, also where it is quoted, and write anew.
    await act(page, bubble(page, "with tea."), "Reply");
    await say(page, "Green tea?");
    await act(page, page.locator(".bubble").filter({ hasText: "with tea." }).filter({ hasText: "edited" }), "Recall");
    await page.getByRole("dialog").getByRole("button", { name: "Recall" }).click();
    await page.getByText("You recalled a message").waitFor();
    await page.locator(".quote").getByText("Message recalled").waitFor();
    // The list has what was forwarded; the board is read anew.
    await until(async () => (await page.getByText("with tea.").count()) === 1);
    await page.getByRole("button", { name: "Write anew" }).click();
    expect(await box(page).inputValue()).toBe("I will be there, with tea.");
    await box(page).fill("");
    // Delete for me.
    await act(page, bubble(page, "one more in my car"), "Delete for me");
    await bubble(page, "one more in my car").waitFor({ state: "detached" });
    expect(await page.evaluate(() => globalThis.fake!.world.conversations.get("g/0191-comet")!.entries.size)).toBeGreaterThan(0);
    await talk(page, "Vera Rubin");
    await bubble(page, "Forwarded from").waitFor();
  });

  it("mentions by @, with arrows and Enter, and all by right", async () => {
    const page = await open();
    await talk(page, "Comet watch");
    await box(page).pressSequentially("Look, @mar");
    const options = page.getByRole("listbox", { name: "People to mention" });
    await options.getByRole("option", { name: "Maria Mitchell", selected: true }).waitFor();
    await picture(page, "messenger-mention");
    await page.keyboard.press("Enter");
    expect(await box(page).inputValue()).toBe("Look, @Maria Mitchell ");
    await box(page).pressSequentially("and @Every");
    await page.keyboard.press("Tab");
    await box(page).pressSequentially("!");
    await page.keyboard.press("Enter");
    const sent = bubble(page, "Look, @Maria Mitchell");
    await sent.waitFor();
    expect(await sent.locator(".mention").allTextContents()).toEqual(["@Maria Mitchell", "@Everybody"]);
    const stored = await page.evaluate(() => {
      const c = globalThis.fake!.world.conversations.get("g/0191-comet")!;
      const { mentions, mentionAll } = c.entries.get(c.last)!;
      return { mentions, mentionAll };
    });
    expect(stored).toEqual({ mentions: ["maria"], mentionAll: true });
  });

  it("leads to where one was mentioned", async () => {
    const page = await open();
    await line(page, "Comet watch").getByText("You were mentioned").waitFor();
    await talk(page, "Comet watch");
    await page.getByText("New messages", { exact: true }).waitFor();
    await page.locator(".bubble.for-me .mention.me", { hasText: "@Ann Halley" }).waitFor();
    await line(page, "Comet watch").getByText("You were mentioned").waitFor({ state: "detached" });
  });

  it("takes emoji from the picker, by search and by keyboard", async () => {
    const page = await open();
    await talk(page, "Vera Rubin");
    await page.getByRole("button", { name: "Emoji" }).click();
    const picker = page.getByRole("dialog", { name: "Emoji" });
    await picker.getByRole("button", { name: "grinning face", exact: true }).waitFor();
    await picture(page, "messenger-emoji");
    await picker.getByRole("searchbox").fill("telescope");
    await picker.getByRole("button", { name: "telescope" }).waitFor();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Escape");
    expect(await box(page).inputValue()).toBe("🔭");
    await page.keyboard.press("Enter");
    await page.locator(".bubble.big", { hasText: "🔭" }).waitFor();
  });

  it("keeps drafts apart, over going away and coming back", async () => {
    const page = await open();
    await talk(page, "Vera Rubin");
    await box(page).fill("not yet");
    await talk(page, "Cecilia Payne");
    expect(await box(page).inputValue()).toBe("");
    await line(page, "Vera Rubin").getByText("[Draft] not yet").waitFor();
    await talk(page, "Vera Rubin");
    expect(await box(page).inputValue()).toBe("not yet");
  });

  it("says that there is no connection, and sends what waited when it is back", async () => {
    const page = await open();
    await talk(page, "Vera Rubin");
    await page.evaluate(() => globalThis.fake!.port.setOnline(false));
    await page.getByRole("status").getByText(/^Offline/).waitFor();
    await say(page, "into the dark");
    await page.getByTitle("Waiting for a connection").waitFor();
    await picture(page, "messenger-offline");
    await page.getByRole("button", { name: "Try now" }).click();
    await page.locator("[role=status][data-state=online]").waitFor({ state: "attached" });
    await page.locator(".bubble:not(.unsent)", { hasText: "into the dark" }).waitFor();
    expect(await page.locator(".bubble", { hasText: "into the dark" }).count()).toBe(1);
  });

  it("marks what was refused, and sends it again or discards it", async () => {
    const page = await open();
    await talk(page, "Vera Rubin");
    await page.evaluate(() => void globalThis.fake!.world.blocks.set("vera.rubin", new Set(["ann"])));
    await say(page, "first");
    await say(page, "second");
    await page.getByText("Not sent: you are blocked").nth(1).waitFor();
    await line(page, "Vera Rubin").getByText("Not sent").waitFor({ state: "attached" });
    await page.evaluate(() => globalThis.fake!.world.blocks.clear());
    await page.getByRole("button", { name: "Send again" }).first().click();
    await page.locator(".bubble:not(.unsent)", { hasText: "first" }).waitFor();
    await page.getByRole("button", { name: "Discard" }).click();
    await bubble(page, "second").waitFor({ state: "detached" });
  });
});

describe("a group of many", () => {
  it("has all of them mentioned and counted, tells one of the last that he is muted, and isn't asked for anew by every change", async () => {
    const page = await open();
    const asked = () => page.evaluate(() => (globalThis as unknown as { asked: number }).asked);
    await page.evaluate(() => {
      const { world, port } = globalThis.fake!;
      const c = world.make("g/many", { title: "Many", owner: "a000" });
      for (let i = 0; i < 450; i++) world.join(c, `a${String(i).padStart(3, "0")}`, i === 0 ? "owner" : "member");
      world.join(c, "ann");
      world.user("zed", "Zedekiah Smith");
      world.join(c, "zed");
      world.say(c, "a000", { text: "welcome" });
      const members = port.members.bind(port);
      Object.assign(globalThis, { asked: 0 });
      port.members = (...args) => {
        (globalThis as unknown as { asked: number }).asked++;
        return members(...args);
      };
    });
    await talk(page, "Many");
    await page.getByRole("button", { name: "Details" }).click();
    await page.locator(".details .person").nth(99).waitFor();
    await until(async () => (await asked()) === 2);
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      const c = world.conversations.get("g/many")!;
      for (const reaction of ["👍", "🎉", "❤️"]) world.store(c, { kind: "reaction", from: "a001", target: 1, reaction });
      world.store(c, { kind: "edit", from: "a000", target: 1, body: { text: "welcome all" } });
    });
    await bubble(page, "welcome all").waitFor();
    expect(await asked()).toBe(2);
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      world.store(world.conversations.get("g/many")!, { kind: "role", from: "a000", members: ["a001"], role: "admin" });
    });
    // The details, which show it; nobody mentions anybody yet.
    await until(async () => (await asked()) === 3);
    await page.getByRole("button", { name: "Details" }).click();
    // One who stands behind the first pages, by his name.
    await box(page).pressSequentially("Look, @zede");
    await page.getByRole("option", { name: "Zedekiah Smith", selected: true }).waitFor();
    await page.keyboard.press("Enter");
    await page.keyboard.press("Enter");
    await bubble(page, "Look, @Zedekiah Smith").locator(".mention").waitFor();
    expect(await page.evaluate(() => globalThis.fake!.world.conversations.get("g/many")!.entries.get(7)!.mentions)).toEqual(["zed"]);
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      const c = world.conversations.get("g/many")!;
      for (const uid of ["a440", "zed"]) world.read(c, uid);
    });
    await act(page, bubble(page, "Look, @Zedekiah"), "Who has read it");
    const readers = page.getByRole("dialog", { name: "Who has read it" });
    await readers.getByRole("heading", { name: "Read 2", exact: true }).waitFor();
    await readers.getByRole("heading", { name: "Not yet 449", exact: true }).waitFor();
    await until(async () => (await readers.locator(".person").count()) === 2 + 200);
    await readers.getByRole("button", { name: "More" }).click();
    await until(async () => (await readers.locator(".person").count()) === 2 + 400);
    await readers.getByRole("button", { name: "More" }).click();
    await until(async () => (await readers.locator(".person").count()) === 451);
    await readers.getByRole("button", { name: "More" }).waitFor({ state: "detached" });
    await page.keyboard.press("Escape");
    // Who comes back is told anew how far they are.
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      world.read(world.conversations.get("g/many")!, "a002");
    });
    await talk(page, "Vera Rubin");
    await talk(page, "Many");
    await bubble(page, "Look, @Zedekiah").locator(".read-by").getByText("1", { exact: true }).waitFor();
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      const c = world.conversations.get("g/many")!;
      const mutedUntil = world.now() + 3_600_000;
      c.members.get("ann")!.mutedUntil = mutedUntil;
      world.store(c, { kind: "muted", from: "a000", members: ["ann"], mutedUntil });
    });
    await page.locator(".composer-note").waitFor();
  });
});

describe("a hundred thousand messages", () => {
  it("scroll back smoothly: what is in view stays where it is while more is loaded, and few are in the document", async () => {
    const page = await open({}, "quiet&delay=60");
    await talk(page, "Observatory log");
    await bubble(page, "#100000").waitFor();
    const list = page.getByRole("log", { name: "Messages" });
    await list.hover();
    let seq = 100_000;
    let most = 0;
    // So far that what was loaded first is let go on the way.
    const end = Date.now() + 120_000;
    while (seq > 95_700 && Date.now() < end) {
      await page.mouse.wheel(0, -3000);
      // A busy machine carries it out later than it was asked: two turns at once would look like a jump. At the top there is nowhere to go
      // before more is loaded.
      await still(list);
      await until(async () => (await place(list)).seq < seq || (await list.evaluate((box) => box.scrollTop)) < 1, 2000).catch(() => {});
      const now = await place(list);
      // Never a jump: neither back down, nor further than what one turn of the wheel is.
      expect(now.seq).toBeLessThanOrEqual(seq + 2);
      expect(now.seq).toBeGreaterThan(seq - 100);
      seq = now.seq;
      most = Math.max(most, await page.locator("[data-message]").count());
    }
    expect(seq).toBeLessThan(95_800);
    expect(most).toBeLessThan(120);
    // Still: what was loaded in front moves nothing.
    await rest(page, list);
    const before = await place(list);
    await page.waitForTimeout(400);
    const after = await place(list);
    expect(after.seq).toBe(before.seq);
    expect(Math.abs(after.at - before.at)).toBeLessThan(2);
    await picture(page, "messenger-history");
    await page.getByRole("button", { name: "To the newest messages" }).click();
    await bubble(page, "#100000").waitFor();
  });

  it("jump to any of them and back", async () => {
    const page = await open();
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      const c = world.conversations.get("g/0190-archive")!;
      c.entries.set(5000, { ...world.at(c, 5000)!, pinned: true });
    });
    await talk(page, "Observatory log");
    const shown = await glimpse(page, ".row.flash", "#5000");
    await page.locator(".board-line").filter({ hasText: "#5000" }).click();
    await shown();
    const list = page.getByRole("log", { name: "Messages" });
    await list.hover();
    // Downwards it goes on, too.
    await until(async () => {
      await page.mouse.wheel(0, 1500);
      return Number(await page.locator("[data-seq]").last().getAttribute("data-seq")) > 5250;
    });
    // What comes meanwhile waits at the end.
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      world.say(world.conversations.get("g/0190-archive")!, "tycho", { text: "the very last" });
    });
    await page.getByRole("button", { name: "To the newest messages" }).click();
    await bubble(page, "the very last").waitFor();
  });

  it("count what comes below while one reads above", async () => {
    const page = await open();
    await talk(page, "Observatory log");
    await bubble(page, "#100000").waitFor();
    const list = page.getByRole("log", { name: "Messages" });
    await list.hover();
    await until(async () => {
      await page.mouse.wheel(0, -1500);
      return page.getByRole("button", { name: "To the newest messages" }).isVisible();
    });
    // What the last turn of the wheel still moves, and what is loaded in front by it, comes to rest before.
    await rest(page, list);
    const top = await list.evaluate((box) => box.scrollTop);
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      for (const text of ["one", "two"]) world.say(world.conversations.get("g/0190-archive")!, "tycho", { text });
    });
    await page.getByRole("button", { name: "To the newest messages" }).getByText("2").waitFor();
    expect(Math.abs((await list.evaluate((box) => box.scrollTop)) - top)).toBeLessThan(2);
    await page.getByRole("button", { name: "To the newest messages" }).click();
    await bubble(page, "two").waitFor();
  });
});

describe("what is unread", () => {
  it("is counted where it begins above, and led to; where all of it is in view it isn't", async () => {
    const page = await open();
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      world.user("mallory", "Mallory");
      for (const [id, title, n] of [["g/long", "Many", 60], ["g/short", "Some", 6]] as const) {
        const c = world.make(id, { title, owner: "mallory" });
        for (const uid of ["mallory", "ann"]) world.join(c, uid);
        for (let i = 1; i <= n; i++) world.say(c, "mallory", { text: `number ${i}.` });
      }
    });
    await talk(page, "Many");
    await bubble(page, "number 60.").waitFor();
    await page.getByRole("button", { name: "60 new messages" }).click();
    await bubble(page, "number 1.").waitFor();
    await page.getByRole("button", { name: "60 new messages" }).waitFor({ state: "detached" });
    await talk(page, "Some");
    await bubble(page, "number 6.").waitFor();
    await page.getByRole("button", { name: "6 new messages" }).waitFor({ state: "detached" });
  });
});

describe("the list", () => {
  it("is clicked while it moves", async () => {
    const page = await open({ viewport: { width: 1280, height: 400 } });
    const list = page.locator(".list .vlist");
    // Without what looks, before a click, whether it would be taken.
    const { x, y } = (await list.boundingBox())!;
    await page.mouse.move(x + 100, y + 100);
    // It scrolls as soon as it knows its rows.
    await until(() => list.evaluate((box) => box.scrollHeight > box.clientHeight + 100));
    const moved = await list.evaluateHandle((box) => ({
      promise: new Promise((resolve) => box.addEventListener("scroll", () => requestAnimationFrame(() => requestAnimationFrame(resolve)), { once: true })),
    }));
    await page.mouse.wheel(0, 40);
    await moved.evaluate(({ promise }) => promise);
    await page.mouse.down();
    await page.mouse.up();
    await page.locator("main[aria-label]").waitFor();
  });

  it("pins, mutes, marks as read, clears and hides", async () => {
    const page = await open();
    await act(page, line(page, "Vera Rubin"), "Mark as read");
    await line(page, "Vera Rubin").locator(".unread").waitFor({ state: "detached" });
    await act(page, line(page, "Cecilia Payne"), "Pin to top");
    await until(async () => (await page.locator(".list .line-name").allTextContents()).indexOf("Cecilia Payne") < 2);
    await act(page, line(page, "Cecilia Payne"), "Mute");
    await line(page, "Cecilia Payne").getByTitle("Muted").waitFor();
    await act(page, line(page, "Cecilia Payne"), "Clear history");
    await page.getByRole("dialog").getByRole("button", { name: "Clear history" }).click();
    await line(page, "Cecilia Payne").click();
    await page.getByText("Say hello").waitFor();
    await act(page, line(page, "Maria Mitchell"), "Remove from list");
    await line(page, "Maria Mitchell").waitFor({ state: "detached" });
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      world.say(world.direct("ann", "maria"), "maria", { text: "here again" });
    });
    await line(page, "Maria Mitchell").getByText("here again").waitFor();
  });

  it("is searched, with contacts whom one hasn't talked to yet", async () => {
    const page = await open();
    await page.getByRole("searchbox", { name: "Search chats and people" }).fill("jocelyn");
    await line(page, "Jocelyn Bell").click();
    await page.getByText("Say hello").waitFor();
    await say(page, "Hello Jocelyn!");
    await page.getByRole("button", { name: "Clear the search" }).click();
    await line(page, "Jocelyn Bell").getByText("Hello Jocelyn!").waitFor();
    await page.getByRole("searchbox").fill("zzz");
    await page.getByText("Nothing found for “zzz”.").waitFor();
  });

  it("tells in the title how much is unread, and by a notification where nobody looks", async () => {
    const page = await open({ permissions: ["notifications"] });
    await until(async () => (await page.title()) === "(6) Halley");
    await page.evaluate(() => {
      const shown: string[] = [];
      Object.assign(globalThis, { shown });
      document.hasFocus = () => false;
      globalThis.Notification = class {
        static permission = "granted";
        static requestPermission = async () => "granted";
        constructor(title: string, options: NotificationOptions) {
          shown.push(`${title}: ${options.body}`);
        }
      } as unknown as typeof Notification;
    });
    await page.getByRole("button", { name: "Settings", exact: true }).click();
    const toggle = page.getByRole("switch", { name: "Show notifications" });
    if (!(await toggle.isChecked())) await toggle.click();
    await page.keyboard.press("Escape");
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      world.say(world.direct("ann", "maria"), "maria", { text: "look up" });
      world.say(world.conversations.get("g/0192-board")!, "tycho", { text: "muted, so nobody is told" });
      world.say(world.conversations.get("g/0192-board")!, "tycho", { text: "@Ann" }, { mentions: ["ann"] });
    });
    const shown = () => page.evaluate(() => (globalThis as unknown as { shown: string[] }).shown);
    await until(async () => (await shown()).length === 2);
    expect(await shown()).toEqual(["Maria Mitchell: look up", "公告与活动: Tycho: @Ann"]);
  });
});

describe("everybody", () => {
  it("reads it in Chinese, in the dark", async () => {
    const page = await open({ locale: "zh-CN", colorScheme: "dark" });
    await line(page, "Comet watch").click();
    await page.getByRole("main", { name: "Comet watch" }).waitFor();
    await page.getByRole("textbox", { name: "发给Comet watch ☄️的消息" }).waitFor();
    await page.getByText("Tycho撤回了一条消息").waitFor();
    await picture(page, "messenger-dark-zh");
    expect(await page.evaluate(() => document.documentElement.lang)).toBe("zh-CN");
    await page.getByRole("button", { name: "设置", exact: true }).click();
    await page.getByRole("radio", { name: "English" }).check({ force: true });
    await page.getByRole("radio", { name: "Light" }).check({ force: true });
    await page.getByRole("dialog", { name: "Settings" }).waitFor();
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("light");
    await page.reload();
    await page.getByRole("button", { name: "Settings", exact: true }).waitFor();
  });

  it("uses it on a phone", async () => {
    const page = await open({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
    await picture(page, "messenger-phone-list");
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
    await line(page, "Comet watch").tap();
    await bubble(page, "one more in my car").waitFor();
    await picture(page, "messenger-phone");
    // A tap brings the tools, in view even under the last one.
    await bubble(page, "one more in my car").tap();
    const tools = page.locator(".row", { hasText: "one more in my car" }).getByRole("button", { name: "Message actions" });
    await until(async () => ((await tools.boundingBox())?.y ?? 9999) < ((await page.locator(".composer").boundingBox())?.y ?? 0) - 10);
    await tools.tap();
    await page.getByRole("menuitem", { name: "Reply" }).tap();
    await page.getByText("Replying to Edmond (office)").waitFor();
    await page.getByRole("button", { name: "Don’t reply" }).tap();
    await page.getByRole("button", { name: "Details" }).tap();
    await page.getByRole("complementary", { name: "Details" }).waitFor();
    await picture(page, "messenger-phone-details");
    await page.getByRole("complementary").getByRole("button", { name: "Close" }).tap();
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
    await page.getByRole("button", { name: "Back" }).tap();
    await page.getByRole("button", { name: "Contacts" }).tap();
    await line(page, "Cecilia Payne").tap();
    await page.getByRole("heading", { name: "Cecilia Payne" }).waitFor();
    await page.getByRole("button", { name: "Back" }).tap();
    await line(page, "Cecilia Payne").waitFor();
  });

  it("uses it by keyboard alone", async () => {
    const page = await open();
    await page.getByRole("searchbox", { name: "Search chats and people" }).focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.getByRole("main", { name: "Vera Rubin" }).waitFor();
    await page.locator(".composer textarea:focus").waitFor();
    await page.keyboard.type("no mouse");
    await page.keyboard.press("Enter");
    await page.locator(".bubble:not(.unsent)", { hasText: "no mouse" }).waitFor();
    // To the messages, to one of them, to its menu, and back.
    await page.getByRole("log", { name: "Messages" }).focus();
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowUp");
    await page.locator("[data-message]:focus").filter({ hasText: "can’t see" }).waitFor();
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    const menu = page.getByRole("menu", { name: "Message actions" });
    await menu.waitFor();
    for (let i = 0; i < 6; i++) await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.getByText("Replying to Vera Rubin").waitFor();
    await page.locator(".composer textarea:focus").waitFor();
    await page.keyboard.press("Escape");
    // A dialog holds the focus and gives it back.
    const settings = page.getByRole("button", { name: "Settings", exact: true });
    await settings.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog", { name: "Settings" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog", { name: "Settings" }).waitFor({ state: "detached" });
    await settings.and(page.locator(":focus")).waitFor();
    // At once: a moment later it would be taken from where somebody has begun to write.
    await settings.click();
    await page.getByRole("dialog", { name: "Settings" }).waitFor();
    const focused = await page.getByRole("dialog").getByRole("button", { name: "Close" }).evaluate(async (close: HTMLElement) => {
      close.click();
      // What is left of the task draws the page; nothing else has its turn.
      for (let i = 0; i < 10; i++) await Promise.resolve();
      return document.activeElement?.getAttribute("title");
    });
    expect(focused).toBe("Settings");
  });

  it("keeps the focus where he goes in the moment in which something opens or is gone", async () => {
    const page = await open();
    await talk(page, "Vera Rubin");
    await page.locator(".composer textarea:focus").waitFor();
    await page.getByRole("button", { name: "Settings", exact: true }).press("Enter");
    await page.getByRole("dialog", { name: "Settings" }).waitFor();
    /** Presses what is at press, goes to what is at to as soon as that is drawn, and tells what has the focus before, and in the end. */
    const focus = (press: string, to: string) =>
      page.evaluate(
        async ([press, to]) => {
          const named = () => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.getAttribute("title") ?? document.activeElement?.id;
          const button = document.querySelector<HTMLElement>(press)!;
          button.focus();
          button.click();
          await Promise.resolve();
          const first = named();
          document.querySelector<HTMLElement>(to)!.focus();
          // Whatever is put off until after a frame has come by then.
          for (let i = 0; i < 10; i++) await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 10)));
          return [first, named()];
        },
        [press, to] as const,
      );
    const search = "#search";
    expect(await focus(".dialog[open] .dialog-head button", ".composer textarea")).toEqual(["Settings", "Message to Vera Rubin"]);
    expect(await focus("[data-emoji-button]", search)).toEqual(["Search emoji", "Search chats and people"]);
    await page.keyboard.press("Escape");
    // Nor is one taken away from it by what others do.
    await line(page, "公告与活动").click();
    await page.locator(".composer-note").waitFor();
    await page.locator(search).pressSequentially("Ve");
    await page.evaluate(() => {
      const { world } = globalThis.fake!;
      const c = world.conversations.get("g/0192-board")!;
      c.muteAll = false;
      world.store(c, { kind: "info", from: "tycho", info: { mute_all: false } });
    });
    await box(page).waitFor();
    await page.keyboard.type("ra");
    expect(await page.locator(search).inputValue()).toBe("Vera");
    await page.keyboard.press("Escape");
    await line(page, "Cecilia Payne").waitFor();
    expect(await focus(".line:not([aria-current])", search)).toEqual([expect.stringMatching(/^Message to (?!Vera)/), "Search chats and people"]);
  });

  it("closes a dialog while it waits for its answer, and that one alone", async () => {
    const page = await open();
    await page.evaluate(() => globalThis.fake!.world.user("nora", "Nora Novak"));
    await page.getByRole("button", { name: "New…" }).click();
    await page.getByRole("menuitem", { name: "Add contact" }).click();
    await page.getByRole("searchbox", { name: "Name or id" }).fill("nora");
    await page.getByRole("dialog").getByRole("button", { name: "Add", exact: true }).click();
    await page.evaluate(() => (globalThis.fake!.port.delay = 1000));
    const asking = page.getByRole("dialog", { name: /^Add / });
    await asking.getByRole("button", { name: "Add" }).click();
    await asking.getByRole("button", { name: "Cancel" }).click();
    await page.getByText("Waiting for an answer").waitFor();
    await page.locator(".toast").waitFor();
    expect(await page.getByRole("dialog").count()).toBe(1);
  });

  it("finds every control named", async () => {
    const page = await open();
    await talk(page, "Comet watch");
    await page.getByRole("button", { name: "Details" }).click();
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>("button, input, textarea, select, [role=log], nav, aside")]
        .filter((e) => !(e.getAttribute("aria-label") || e.textContent?.trim() || e.closest("label")?.textContent?.trim() || e.getAttribute("title")))
        .map((e) => e.outerHTML.slice(0, 120)),
    );
    expect(nameless).toEqual([]);
  });
});

describe("the page", () => {
  it("is empty in a kind way at first", async () => {
    const page = await open({}, "empty");
    await page.getByText("It’s quiet here").waitFor();
    await picture(page, "messenger-empty");
    await page.getByRole("button", { name: "Find people" }).click();
    await page.getByRole("dialog", { name: "Find people" }).waitFor();
  });

  it("goes back to the door when one logs out", async () => {
    const page = await open();
    await page.getByRole("button", { name: "Settings", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Log out" }).click();
    await page.getByRole("dialog", { name: "Log out of this device?" }).getByRole("button", { name: "Log out" }).click();
    await page.getByLabel("Your name").waitFor();
  });
});
