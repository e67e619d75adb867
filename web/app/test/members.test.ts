import { afterEach, describe, expect, it, vi } from "vitest";
import { justBefore } from "../src/model/cursor.ts";
import { FakePort } from "../src/model/fake/port.ts";
import { type FakeConversation, World } from "../src/model/fake/world.ts";
import { Members, readBy } from "../src/model/members.ts";
import { Messenger } from "../src/model/messenger.ts";
import { mentioned } from "../src/messenger/mention.ts";

const started: Messenger[] = [];
afterEach(async () => {
  for (const m of started.splice(0)) await m.close(false);
});

const until = (condition: () => boolean) => vi.waitUntil(condition, { timeout: 30_000, interval: 5 });

/** A group of u000 and so on, and of zoe, who is the last of them by uid and enters. */
function group(others: number): { world: World; c: FakeConversation; m: Messenger; port: FakePort } {
  const world = new World();
  const c = world.make("g/many", { title: "Many", owner: "u000" });
  for (let i = 0; i < others; i++) world.join(c, `u${String(i).padStart(3, "0")}`, i === 0 ? "owner" : "member");
  world.join(c, "zoe");
  const port = new FakePort(world, "zoe");
  const m = new Messenger(port);
  m.start();
  started.push(m);
  return { world, c, m, port };
}

describe("members of a large group", () => {
  it("come in pages, and from the first one again when somebody came", async () => {
    const { world, c, m } = group(450);
    const members = new Members(m, c.id);
    const sizes: number[] = [];
    for (;;) {
      // A second question at once is none.
      const [asked, again] = await Promise.all([members.more(), members.more()]);
      expect(again).toBe(false);
      if (!asked) break;
      sizes.push(members.items.value.length);
    }
    expect(sizes).toEqual([200, 400, 451]);
    expect(members.complete.value).toBe(true);
    world.join(c, "a-first");
    members.restart();
    expect(members.items.value.length).toBe(451);
    await members.more();
    expect(members.items.value.length).toBe(200);
    expect(members.items.value[0]!.uid).toBe("a-first");
  });

  it("are the user, too, wherever he stands: he learns that he is muted, and that he isn't any more", async () => {
    const { world, c, m, port } = group(450);
    const until1 = world.now() + 60_000;
    c.members.get("zoe")!.mutedUntil = until1;
    m.show(c.id);
    await until(() => m.mutedUntil.value === until1);
    const owner = new FakePort(world, "u000");
    await owner.muteMembers(c.id, ["zoe"], 0);
    await until(() => m.mutedUntil.value === 0);
    // Nor is anything asked because of others.
    const asked = vi.spyOn(port, "member");
    await owner.muteMembers(c.id, ["u001"], until1);
    expect(asked).not.toHaveBeenCalled();
  });

  it("are told to have changed by what changes them, and by nothing else", () => {
    const { world, c, m } = group(3);
    const said = world.say(c, "u001", { text: "one" });
    world.store(c, { kind: "reaction", from: "u002", target: said.seq, reaction: "👍" });
    world.store(c, { kind: "edit", from: "u001", target: said.seq, body: { text: "two" } });
    world.store(c, { kind: "pin", from: "u000", target: said.seq });
    world.store(c, { kind: "info", from: "u000", info: { title: "More" } });
    world.store(c, { kind: "recall", from: "u001", target: said.seq });
    expect(m.memberships(c.id)).toBe(0);
    for (const [i, kind] of ["joined", "left", "removed", "role", "muted"].entries()) {
      world.store(c, { kind, from: "u000", members: ["u001"] });
      expect(m.memberships(c.id)).toBe(i + 1);
    }
    expect(m.memberships("g/other")).toBe(0);
    // What was missed may have been one of them.
    world.tell("zoe", (events) => events.reset(c.id));
    expect(m.memberships(c.id)).toBe(6);
  });
});

describe("a uid just before another", () => {
  it.each([
    ["ann", `anm${"z".repeat(61)}`],
    ["a0", `a.${"z".repeat(62)}`],
    ["a", `_${"z".repeat(63)}`],
    ["ann-", "ann"],
    ["-", ""],
  ])("of %s", (uid, want) => {
    expect(justBefore(uid)).toBe(want);
    expect(want < uid).toBe(true);
  });
});

describe("who has read", () => {
  const member = (uid: string, readSeq = 0) => ({ uid, role: "member", readSeq, deliveredSeq: 0, mutedUntil: 0, joinedAt: 0 });
  const of = (more: Partial<Parameters<typeof readBy>[0]>) =>
    readBy({ seq: 5, me: "me", total: 1000, readers: [], allReaders: false, members: [], allMembers: false, told: new Map(), ...more });

  it("is counted among all members, of whom not all were asked for", () => {
    const some = { readers: [member("me", 9), member("z", 5)], members: [member("a"), member("b", 6), member("me", 9), member("c", 4)] };
    // Nothing is said of those whom nobody asked about.
    expect(of(some)).toMatchObject({ read: ["z", "b"], readCount: "2+", unread: ["a", "c"], unreadCount: "2+" });
    expect(of({ ...some, allReaders: true })).toMatchObject({ readCount: "2", unreadCount: "997" });
    expect(of({ ...some, allReaders: true, told: new Map([["c", 5]]) })).toMatchObject({ read: ["z", "b", "c"], readCount: "3", unreadCount: "996" });
    // With all members there, they are what counts.
    expect(of({ ...some, allReaders: true, allMembers: true })).toMatchObject({ readCount: "2", unreadCount: "2" });
  });
});

describe("a text with names", () => {
  const known = [
    { uid: "ann", name: "Ann" },
    { uid: "ann2", name: "Ann" },
    { uid: "bob", name: "Bob" },
    { uid: "bob", name: "bob" },
    { uid: "", name: "Everybody" },
  ];
  it("mentions all who are called so, but only who was picked if one was", () => {
    expect(mentioned("@Ann", known, [])).toEqual({ mentions: ["ann", "ann2"], mentionAll: false });
    expect(mentioned("@Ann and @bob, @Bob", known, [{ uid: "ann2", name: "Ann" }])).toEqual({ mentions: ["ann2", "bob"], mentionAll: false });
    // One who was picked is meant though nobody has asked for him since, as long as his name stands there.
    expect(mentioned("@Zoe @Everybody", known, [{ uid: "zoe", name: "Zoe" }, { uid: "yan", name: "Yan" }])).toEqual({ mentions: ["zoe"], mentionAll: true });
  });
});
