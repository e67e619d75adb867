import { effect } from "@preact/signals";
import { describe, expect, it } from "vitest";
import { FakePort } from "../src/model/fake/port.ts";
import { type FakeConversation, World } from "../src/model/fake/world.ts";
import type { Entry, PortEvents } from "../src/model/types.ts";
import { indexOf, Window } from "../src/model/window.ts";

function setUp(n: number): { world: World; c: FakeConversation; port: FakePort; window: Window } {
  const world = new World();
  const c = world.make("g/1");
  for (const uid of ["ann", "bob"]) world.join(c, uid);
  for (let i = 1; i <= n; i++) world.say(c, "bob", `m${i}`);
  const port = new FakePort(world, "ann");
  return { world, c, port, window: new Window(port, "g/1", 1) };
}

const seqs = (w: Window) => w.entries.value.map((e) => e.seq);
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe("a window", () => {
  it("knows what was recalled: by the message, by the recall alone, and when it happens beyond what is loaded", async () => {
    const { world, c, window } = setUp(250);
    const deaf = world.hear("ann", { entry: (_: string, e: Entry) => window.take(e), conversation: () => {} } as unknown as PortEvents);
    world.store(c, { kind: "recall", from: "bob", target: 3 });
    world.store(c, { kind: "recall", from: "bob", target: 240 });
    await window.end();
    expect([3, 4, 240, 241].map((seq) => window.isRecalled(seq))).toEqual([true, false, true, false]);
    let told = 0;
    const stop = effect(() => void (window.isRecalled(4), told++));
    world.store(c, { kind: "recall", from: "bob", target: 4 });
    expect(window.isRecalled(4)).toBe(true);
    // Whoever shows it is told.
    expect(told).toBeGreaterThan(1);
    stop();
    deaf();
  });

  it("opens at the end and grows backwards to the beginning, without a hole", async () => {
    const { window } = setUp(250);
    await window.end();
    expect(seqs(window)).toEqual(range(151, 250));
    await window.older();
    await window.older();
    expect(seqs(window)).toEqual(range(1, 250));
    expect(window.hasOlder.value).toBe(false);
    expect(window.shifts.value).toBe(2);
  });

  it("jumps to the middle and grows to both sides", async () => {
    const { window } = setUp(1000);
    await window.end();
    await window.around(500);
    expect(seqs(window)).toContain(500);
    expect(window.hasNewer.value).toBe(true);
    while (window.hasNewer.value) await window.newer();
    while (window.hasOlder.value) await window.older();
    expect(seqs(window)).toEqual(range(1, 1000));
  });

  it("doesn't load again what it has", async () => {
    const { window } = setUp(250);
    await window.end();
    const before = window.entries.value;
    await window.around(200);
    expect(window.entries.value).toBe(before);
  });

  it("appends what comes, and asks for what was jumped over", async () => {
    const { world, c, window } = setUp(5);
    await window.end();
    window.take(world.say(c, "bob", "six"));
    world.say(c, "bob", "seven, which was missed");
    window.take(world.say(c, "bob", "eight"));
    await until(() => window.loading.value === "" && window.to === 8);
    expect(seqs(window)).toEqual(range(1, 8));
  });

  it("takes what comes while a page is on its way, once", async () => {
    const { world, c, window } = setUp(5);
    const loading = window.end();
    window.take(world.say(c, "bob", "six"));
    await loading;
    window.take(world.at(c, 6)!);
    expect(seqs(window)).toEqual(range(1, 6));
  });

  it("doesn't append to a stretch that isn't at the end", async () => {
    const { world, c, window } = setUp(1000);
    await window.around(100);
    const last = window.entries.value.at(-1)!.seq;
    window.take(world.say(c, "bob", "new"));
    expect(window.entries.value.at(-1)!.seq).toBe(last);
  });

  it("changes messages by what names them, and shows no line for it", async () => {
    const { world, c, window } = setUp(3);
    await window.end();
    window.take(world.store(c, { kind: "edit", from: "bob", target: 2, body: "other" }));
    window.take(world.store(c, { kind: "recall", from: "bob", target: 3 }));
    window.take(world.store(c, { kind: "reaction", from: "ann", target: 1, reaction: "👍" }));
    expect(window.entries.value.map((e) => [e.seq, e.body, e.recalled, e.reactions.length])).toEqual([
      [1, "m1", false, 1],
      [2, "other", false, 0],
      [3, null, true, 0],
    ]);
  });

  it("a jump overtakes a page that is on its way", async () => {
    const { window, port } = setUp(1000);
    await window.end();
    port.delay = 30;
    const page = window.older();
    port.delay = 0;
    await window.around(300);
    await page;
    const all = seqs(window);
    expect(all).toContain(300);
    expect(all).toEqual(range(all[0]!, all.at(-1)!));
  });

  it("tells what failed and can be asked again", async () => {
    const { window, port } = setUp(250);
    port.setOnline(false);
    await window.end();
    expect(window.error.value).toMatchObject({ code: "unavailable" });
    port.setOnline(true);
    await window.end();
    expect(window.error.value).toBeUndefined();
    expect(seqs(window)).toEqual(range(151, 250));
  });

  it("asks for what it lacks up to a seq, and once more for what failed", async () => {
    const { world, c, window, port } = setUp(5);
    port.setOnline(false);
    await window.end();
    port.setOnline(true);
    await window.reach(5);
    expect(seqs(window)).toEqual(range(1, 5));
    world.say(c, "bob", "which nobody told of");
    await window.reach(5);
    expect(seqs(window)).toEqual(range(1, 5));
    await window.reach(6);
    expect(seqs(window)).toEqual(range(1, 6));
  });

  it("knows who recalled a message, of what comes and of what is read", async () => {
    const { world, c, window } = setUp(3);
    world.store(c, { kind: "recall", from: "ann", target: 1 });
    await window.end();
    window.take(world.store(c, { kind: "recall", from: "bob", target: 2 }));
    expect([...window.recallers.value]).toEqual([[1, "ann"], [2, "bob"]]);
    expect(window.entries.value.map((e) => e.recalled)).toEqual([true, true, false]);
  });

  it("lets go what is far above when asked to, and loads it again", async () => {
    const { window } = setUp(4600);
    await window.end();
    while (window.entries.value.length <= 4000) await window.older();
    window.trim();
    expect(seqs(window)).toEqual(range(4501, 4600));
    await window.older();
    expect(seqs(window)).toEqual(range(4401, 4600));
  });

  it("stays short however far one scrolls, and is without a hole on the way back", async () => {
    const { window } = setUp(12_000);
    await window.end();
    let longest = 0;
    for (const [more, step] of [
      [window.hasOlder, () => window.older()],
      [window.hasNewer, () => window.newer()],
    ] as const) {
      while (more.value) {
        await step();
        const all = seqs(window);
        longest = Math.max(longest, all.length);
        expect(all.at(-1)! - all[0]! + 1).toBe(all.length);
      }
      expect(seqs(window)[more === window.hasOlder ? 0 : window.entries.value.length - 1]).toBe(more === window.hasOlder ? 1 : 12_000);
    }
    expect(longest).toBeLessThanOrEqual(4100);
  });
});

describe("the place of a seq", () => {
  it("is found among any others, or not", () => {
    const entries = [1, 3, 4, 8, 9].map((seq) => ({ seq }));
    expect([1, 2, 3, 4, 5, 8, 9, 10].map((seq) => indexOf(entries, seq))).toEqual([0, -1, 1, 2, -1, 3, 4, -1]);
    expect(indexOf([], 1)).toBe(-1);
  });
});

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error("not in time");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
