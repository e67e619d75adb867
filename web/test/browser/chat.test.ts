// The messenger on a Halley, from its beginning to its end: people talk, reload, lose their line, and find everything as it is.
import { describe, expect, it } from "vitest";
import { act, box, line, online, realHalley, say, shows, stored, talkTo } from "./real.ts";
import { docsPicture, Line, until } from "./stack.ts";

const real = realHalley();

describe("two people", () => {
  it("are let in by the name that the README gives, which isn't the one that the page finds its comet by", async () => {
    const page = await real.visit("");
    await page.goto(real.halley().url.replace("127.0.0.1", "localhost"));
    await page.getByLabel(/^Your name/).fill(real.name("lou"));
    await page.getByLabel(/^Your name/).press("Enter");
    await online(page);
    await real.leave(page);
  });

  it("talk, reload, lose the line, and find all as it is; a third comes to their group", async () => {
    const [a, b, c] = [real.name("ann"), real.name("bob"), real.name("cleo")];
    const cable = new Line();
    try {
      const [ann, bob] = [await real.enter(a), await real.enter(b, { line: cable, colorScheme: "dark" })];
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
      await stored(ann, "Low in the west").waitFor();
      await shows(ann, ["Do you see the comet?", "I do. Low in the west, just after sunset."]);

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
      await box(ann).press("Enter");
      await stored(ann, "back in 2061").getByText("edited").waitFor();
      await act(ann, "Low in the west", "React with 👍");
      await box(bob).fill("said into the dark");
      await box(bob).press("Enter");
      await bob.getByTitle("Waiting for a connection").waitFor();
      await docsPicture(bob, "chat-offline");
      cable.mend();
      await online(bob);
      await stored(bob, "said into the dark").waitFor();
      await stored(bob, "back in 2061").getByText("edited").waitFor();
      await bob.getByText(`${a} recalled a message`).waitFor();
      await bob.getByRole("button", { name: "👍, 1 reaction" }).waitFor();
      await stored(ann, "said into the dark").waitFor();
      const all = ["Do you see the comet?", "I do. Low in the west, just after sunset.", "It will be back in 2061.", "said into the dark"];
      for (const page of [ann, bob]) await shows(page, all);
      await docsPicture(bob, "chat-dark");

      // A group of the two, to which a third is added.
      const cleo = await real.enter(c, { locale: "zh-CN", viewport: { width: 390, height: 760 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true });
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
      await add.getByRole("searchbox").press("Enter");
      await add.getByRole("button", { name: "Add members" }).click();
      await ann.getByText(`You added ${c}`).waitFor();
      await bob.getByText(`${a} added ${c}`).waitFor();
      await line(cleo, "Comet watch").click();
      await cleo.locator(".composer textarea").fill("I bring the tea. 🫖");
      await cleo.getByRole("button", { name: "发送" }).click();
      for (const page of [ann, bob]) await stored(page, "I bring the tea.").waitFor();
      // Who comes later sees from then on.
      expect(await stored(cleo, "Saturday at the hill?").count()).toBe(0);
      // The pointer lies over nothing.
      await ann.mouse.move(640, 300);
      await docsPicture(ann, "chat");
      await docsPicture(cleo, "chat-phone");
    } finally {
      await cable.stop();
    }
  });
});

describe("two tabs of one person", () => {
  it("show the same, and the one that is left goes on", async () => {
    const [n, o] = [real.name("nia"), real.name("oli")];
    const first = await real.enter(n);
    const oli = await real.enter(o);
    await talkTo(first, o);
    await say(first, "from the first tab");
    const second = await first.context().newPage();
    second.setDefaultTimeout(30_000);
    await second.goto(real.halley().url);
    await second.getByLabel("Your name").fill(n);
    await second.getByLabel("Your name").press("Enter");
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
    await shows(second, ["from the first tab", "from the second tab", "on my own now", "I see"]);
  });
});
