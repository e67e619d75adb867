import { afterEach, describe, expect, it, vi } from "vitest";
import { contentOf, forwardBody, quoteOf, textBody, withText } from "../src/model/body.ts";
import { FakePort } from "../src/model/fake/port.ts";
import { World } from "../src/model/fake/world.ts";
import { Messenger } from "../src/model/messenger.ts";
import { directId } from "../src/model/types.ts";

const started: Messenger[] = [];
afterEach(async () => {
  for (const m of started.splice(0)) await m.close(false);
});

function enter(world: World, uid: string, device?: Map<string, string>): { m: Messenger; port: FakePort } {
  const port = new FakePort(world, uid, device);
  const m = new Messenger(port);
  m.start();
  started.push(m);
  return { m, port };
}

const until = (condition: () => boolean) => vi.waitUntil(condition, { timeout: 30_000, interval: 5 });
const texts = (m: Messenger) => m.open.value!.rows.value.flatMap((row) => (row.kind === "message" ? [contentOf(row.entry.body).text] : row.kind === "outgoing" ? [`… ${contentOf(row.outgoing.body).text}`] : []));
const say = (m: Messenger, id: string, text: string) => m.send(id, { body: textBody(text), mentions: [], mentionAll: false });

describe("two people", () => {
  it("talk, from the first message on", async () => {
    const world = new World();
    const [ann, bob] = [enter(world, "ann").m, enter(world, "bob").m];
    const id = ann.directWith("bob");
    expect(id).toBe(directId("bob", "ann"));
    ann.show(id);
    say(ann, id, "hello");
    await until(() => bob.list.value.length === 1);
    expect(bob.list.value[0]!.conversation.unread).toBe(1);
    expect(bob.unread.value).toBe(1);
    bob.show(id);
    await until(() => texts(bob).includes("hello"));
    bob.saw(id);
    await until(() => ann.conversation(id)!.peerReadSeq === 1);
    expect(bob.unread.value).toBe(0);
  });

  it("see one type, until he is done or silent", async () => {
    const world = new World();
    const [ann, bob] = [enter(world, "ann").m, enter(world, "bob").m];
    const id = world.direct("ann", "bob").id;
    world.refresh(world.direct("ann", "bob"));
    bob.write(id, "I th");
    expect(ann.typing.value.get(id)).toEqual(["bob"]);
    say(bob, id, "I think so");
    await until(() => ann.conversation(id)?.lastSeq === 1);
    expect(ann.typing.value.get(id)).toEqual([]);
  });
});

describe("what can't be sent", () => {
  it("waits for the line, and goes once", async () => {
    const world = new World();
    const { m, port } = enter(world, "ann");
    const c = world.direct("ann", "bob");
    world.refresh(c);
    m.show(c.id);
    await until(() => m.open.value!.window.loading.value === "");
    port.setOnline(false);
    expect(m.connection.value.name).toBe("waiting");
    say(m, c.id, "said into the dark");
    await until(() => texts(m).includes("… said into the dark"));
    port.setOnline(true);
    await until(() => texts(m).includes("said into the dark"));
    expect(texts(m)).toEqual(["said into the dark"]);
    expect(c.last).toBe(1);
  });

  it("is marked, sent again or discarded", async () => {
    const world = new World();
    const { m } = enter(world, "ann");
    const c = world.direct("ann", "bob");
    world.refresh(c);
    world.blocks.set("bob", new Set(["ann"]));
    m.show(c.id);
    say(m, c.id, "one");
    say(m, c.id, "two");
    await until(() => [...m.outgoing.value.values()].filter((o) => o.stage === "failed").length === 2);
    expect(m.list.value[0]!.failed).toBe(true);
    const [one, two] = [...m.outgoing.value.keys()];
    world.blocks.clear();
    m.port.resend(one!);
    m.port.discard(two!);
    await until(() => m.outgoing.value.size === 0);
    await until(() => texts(m).includes("one"));
    expect(texts(m)).toEqual(["one"]);
  });
});

describe("the list", () => {
  it("has pinned ones on top, then the newest, and not what is hidden", async () => {
    const world = new World();
    let clock = 1;
    world.now = () => clock++;
    for (const other of ["bob", "carl", "dora", "emil"]) world.say(world.direct("ann", other), other, `from ${other}`);
    const { m, port } = enter(world, "ann");
    const order = () => m.list.value.map((l) => m.title(l.conversation));
    expect(order()).toEqual(["emil", "dora", "carl", "bob"]);
    await port.set(m.directWith("bob"), { pin: true });
    m.saw(m.directWith("emil"));
    await port.set(m.directWith("emil"), { hide: true });
    expect(order()).toEqual(["bob", "dora", "carl"]);
    world.say(world.direct("ann", "emil"), "emil", "here again");
    expect(order()).toEqual(["bob", "emil", "dora", "carl"]);
    // And stays when it was read.
    m.saw(m.directWith("emil"));
    await until(() => !world.settingsOf("ann", m.directWith("emil")).hide);
    expect(order()).toContain("emil");
  });

  it("counts no unread ones of muted conversations", async () => {
    const world = new World();
    world.say(world.direct("ann", "bob"), "bob", "1");
    world.say(world.direct("ann", "carl"), "carl", "2");
    const { m, port } = enter(world, "ann");
    await port.set(m.directWith("bob"), { mute: true });
    expect(m.unread.value).toBe(1);
  });

  it("shows drafts, which are kept when one leaves", async () => {
    const world = new World();
    const c = world.direct("ann", "bob");
    const { m } = enter(world, "ann");
    m.show(c.id);
    m.write(c.id, "not finis");
    m.leaveOpen();
    await until(() => world.settingsOf("ann", c.id).draft === "not finis");
    const other = enter(world, "ann").m;
    expect(other.draft(c.id)).toBe("not finis");
    expect(other.list.value[0]!.draft).toBe("not finis");
  });
});

describe("drafts", () => {
  it("that the server can't have are kept on the device: too long ones, and what is typed without a line", async () => {
    const world = new World();
    const [bob, carl] = [world.direct("ann", "bob").id, world.direct("ann", "carl").id];
    const long = "é".repeat(2049);
    const { m, port } = enter(world, "ann");
    const set = vi.spyOn(port, "set");
    m.show(bob);
    m.write(bob, long);
    m.show(carl);
    m.write(carl, "into the ");
    port.setOnline(false);
    m.write(carl, "into the dark");
    m.leaveOpen();
    await m.close(false);
    // Nobody is asked in vain.
    expect(set.mock.calls.map(([id]) => id)).not.toContain(bob);
    expect(world.settingsOf("ann", carl).draft).toBe("");
    // A reload, at which the conversation is in view at once.
    const again = enter(world, "ann", port.device).m;
    expect([again.draft(bob), again.draft(carl)]).toEqual([long, "into the dark"]);
    await until(() => world.settingsOf("ann", carl).draft === "into the dark");
    await until(() => port.device.size === 1);
    again.write(bob, "short");
    again.show(bob);
    again.leaveOpen();
    await until(() => world.settingsOf("ann", bob).draft === "short" && port.device.size === 0);
  });

  it("that were sent without a line don't come back", async () => {
    const world = new World();
    const { id } = world.direct("ann", "bob");
    world.set("ann", id, { draft: "hello" });
    const { m, port } = enter(world, "ann");
    m.show(id);
    expect(m.draft(id)).toBe("hello");
    port.setOnline(false);
    say(m, id, "hello");
    await m.close(false);
    const again = enter(world, "ann", port.device).m;
    expect(again.draft(id)).toBe("");
    await until(() => world.settingsOf("ann", id).draft === "");
  });

  it("of another device are there when the page opens with their conversation, and are never overwritten by nothing", async () => {
    const world = new World();
    const { id } = world.direct("ann", "bob");
    world.set("ann", id, { draft: "begun elsewhere" });
    const port = new FakePort(world, "ann");
    const m = new Messenger(port);
    started.push(m);
    m.show(id);
    m.start();
    expect(m.draft(id)).toBe("begun elsewhere");
    // While one looks at it nothing appears where one would write; nor is it lost when one goes away.
    world.set("ann", id, { draft: "begun elsewhere, and gone on with" });
    expect(m.draft(id)).toBe("begun elsewhere");
    const set = vi.spyOn(port, "set");
    m.leaveOpen();
    expect(set).not.toHaveBeenCalled();
    expect(m.draft(id)).toBe("begun elsewhere, and gone on with");
  });

  it("that are sent while the server is being told of them don't come back", async () => {
    const world = new World();
    const { id } = world.direct("ann", "bob");
    const { m, port } = enter(world, "ann");
    m.show(id);
    const set = port.set.bind(port);
    const slow: (() => Promise<void>)[] = [];
    vi.spyOn(port, "set").mockImplementation(
      (...args) => new Promise((resolve, reject) => slow.push(() => set(...args).then(resolve, reject))),
    );
    vi.useFakeTimers();
    m.write(id, "hello");
    await vi.advanceTimersByTimeAsync(2000);
    vi.useRealTimers();
    expect(slow.length).toBe(1);
    say(m, id, "hello");
    while (slow.length > 0) await slow.shift()!();
    expect(world.settingsOf("ann", id).draft).toBe("");
    m.leaveOpen();
    expect(m.draft(id)).toBe("");
    expect(port.device.size).toBe(0);
  });

  it("aren't overwritten in the conversation in view by what was kept before, however late that is told", async () => {
    const world = new World();
    const { id } = world.direct("ann", "bob");
    const port = new FakePort(world, "ann");
    const m = new Messenger(port);
    started.push(m);
    // A server that takes its time for what is new.
    const start = port.start.bind(port);
    let told: Parameters<typeof start>[0];
    vi.spyOn(port, "start").mockImplementation((events) => start((told = { ...events, synced: () => {} })));
    m.start();
    m.show(id);
    m.write(id, "begun here");
    m.write(id, "begun here, and gone on with");
    await until(() => port.device.size === 0);
    told!.settings(id, { ...m.settingsOf(id), draft: "begun here" });
    expect(m.draft(id)).toBe("begun here, and gone on with");
  });
});

describe("names", () => {
  it("are remarks, else the person's own, else the uid; many are asked for at once", async () => {
    const world = new World();
    for (let i = 0; i < 30; i++) world.user(`u${i}`, `Name ${i}`);
    world.befriend("ann", "u1", "My friend");
    const { m, port } = enter(world, "ann");
    const asked = vi.spyOn(port, "users");
    for (let i = 0; i < 30; i++) m.people.name(`u${i}`);
    expect(m.people.name("u1")).toBe("My friend");
    expect(m.people.name("u2")).toBe("u2");
    await until(() => m.people.name("u2") === "Name 2");
    expect(asked).toHaveBeenCalledTimes(1);
    expect(m.people.name("nobody")).toBe("nobody");
  });
});

describe("news", () => {
  it("are what others say, not what one says oneself", async () => {
    const world = new World();
    const { m } = enter(world, "ann");
    const news: string[] = [];
    m.onNews = ({ entry }) => news.push(contentOf(entry.body).text);
    const c = world.direct("ann", "bob");
    world.say(c, "bob", "one");
    world.say(c, "ann", "two");
    world.store(c, { kind: "reaction", from: "bob", target: 2, reaction: "👍" });
    expect(news).toEqual(["one"]);
  });
});

describe("what is mine alone", () => {
  it("hides what I deleted or cleared, and nothing of others", async () => {
    const world = new World();
    const c = world.direct("ann", "bob");
    for (const text of ["one", "two", "three"]) world.say(c, "bob", text);
    const [ann, bob] = [enter(world, "ann"), enter(world, "bob").m];
    ann.m.show(c.id);
    bob.show(c.id);
    await until(() => texts(ann.m).length === 3 && texts(bob).length === 3);
    await ann.port.delete(c.id, 3);
    expect(texts(ann.m)).toEqual(["one", "two"]);
    await ann.port.set(c.id, { clear: 1 });
    expect(texts(ann.m)).toEqual(["two"]);
    expect(texts(bob)).toEqual(["one", "two", "three"]);
    // Nor does the list tell of it.
    expect(ann.m.lastOf(ann.m.conversation(c.id)!)).toBeUndefined();
    expect(bob.lastOf(bob.conversation(c.id)!)?.seq).toBe(3);
  });
});

describe("bodies", () => {
  const entry = (body: Parameters<typeof contentOf>[0]) => {
    const world = new World();
    return world.say(world.direct("ann", "bob"), "bob", body);
  };

  it("of any shape are read, and what isn't known is said to be strange", () => {
    expect(contentOf("plain")).toEqual({ text: "plain", strange: false });
    expect(contentOf({ text: "t", reply: { seq: "no" } })).toEqual({ text: "t", strange: false });
    for (const strange of [null, 1, [], { image: "x" }, { text: 7 }]) expect(contentOf(strange).strange).toBe(true);
  });

  it("quote the beginning, whole characters of it", () => {
    const quote = quoteOf(entry("👩‍🚀".repeat(100)));
    expect([...quote.text].length).toBe(120);
    expect(() => encodeURIComponent(quote.text)).not.toThrow(); // as half a surrogate pair would
    expect(contentOf(textBody("a", quote)).reply).toEqual(quote);
  });

  it("name their first author when they are forwarded again", () => {
    const once = forwardBody(entry({ text: "t", reply: { seq: 1, from: "x", text: "q" } }));
    expect(once).toEqual({ text: "t", forwarded: { from: "bob" } });
    expect(forwardBody({ ...entry(once), from: "carl" })).toEqual(once);
  });

  it("keep all but the text when they are edited", () => {
    expect(withText({ text: "a", reply: { seq: 1, from: "x", text: "q" } }, "b")).toEqual({ text: "b", reply: { seq: 1, from: "x", text: "q" } });
    expect(withText("a", "b")).toBe("b");
  });
});
