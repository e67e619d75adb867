import { readFileSync } from "node:fs";
import { describe, expect, it, vi } from "vitest";
import { backoff } from "../src/backoff.ts";
import { ServerClock } from "../src/clock.ts";
import { errorCodes } from "../src/codes.ts";
import { Emitter } from "../src/emitter.ts";
import { HalleyError } from "../src/error.ts";
import { Seen } from "../src/seen.ts";

describe("codes", () => {
  const table = JSON.parse(readFileSync(new URL("../../../proto/testdata/errcodes.json", import.meta.url), "utf8")) as {
    name: string;
    close: number;
    retry: boolean;
  }[];

  it("are the server's table", () => {
    expect(errorCodes).toEqual(Object.fromEntries(table.map(({ name, close, retry }) => [name, { close, retry }])));
  });

  it("are found by the reason of a close, else by its code", () => {
    expect(HalleyError.fromClose(4000, "op_reserved").code).toBe("op_reserved");
    expect(HalleyError.fromClose(4007, "").code).toBe("replaced");
    expect(HalleyError.fromClose(1001, "").code).toBe("going_away");
  });

  it.each([
    [1006, true],
    [1000, true],
    [1012, true],
    [1002, false],
    [1009, false],
    [4001, false],
    [4499, false],
    [4500, true],
    [4999, true],
  ])("close code %i: come back %s", (code, retry) => {
    expect(HalleyError.fromClose(code, "").retry).toBe(retry);
  });
});

describe("backoff", () => {
  it("doubles its bound up to the most", () => {
    const most = () => 0.999999;
    expect([0, 1, 2, 3].map((n) => backoff(n, undefined, 0, most))).toEqual([500, 1000, 2000, 4000]);
    expect([6, 7, 100, 1e6].map((n) => backoff(n, undefined, 0, most))).toEqual([30_000, 30_000, 30_000, 30_000]);
  });

  it("is random over the whole range", () => {
    const waits = Array.from({ length: 1000 }, () => backoff(4));
    expect(Math.min(...waits)).toBeLessThan(800);
    expect(Math.max(...waits)).toBeGreaterThan(7200);
    expect(Math.max(...waits)).toBeLessThanOrEqual(8000);
  });

  it("never comes before the time that the server named, and not all at that time", () => {
    expect(backoff(0, undefined, 5000, () => 0)).toBe(5000);
    expect(backoff(1, undefined, 5000, () => 0.5)).toBe(5500);
  });
});

describe("clock", () => {
  it("lies between the closest bounds that the answers gave", () => {
    const clock = new ServerClock();
    expect(clock.error).toBe(Infinity);
    clock.sample(1000, 1100, 6090); // 4990 to 5090
    expect(clock.offset).toBe(4990);
    clock.sample(2000, 2004, 7002); // 4998 to 5002
    clock.sample(3000, 3400, 8390); // 4990 to 5390
    expect(clock.offset).toBe(4998);
    expect(clock.error).toBe(4);
    clock.sample(4000, 4100, -1000 + 4000); // the clock was set: -1100 to -1000
    expect(clock.offset).toBe(-1000);
  });

  it("believes that two clocks which may be equal are equal", () => {
    const clock = new ServerClock();
    // The server stamps at once and takes its time to answer: the middle would be wrong by 10 ms.
    clock.sample(1000, 1021, 1001);
    expect(clock.offset).toBe(0);
  });

  it("follows one that drifts", () => {
    const clock = new ServerClock();
    for (let i = 0; i < 100; i++) {
      clock.sample(i * 1000, i * 1000 + 10, i * 1000 + 500 + i);
      expect(Math.abs(clock.offset - (500 + i))).toBeLessThanOrEqual(10);
    }
  });
});

describe("seen", () => {
  it("knows the last 1,000 ids and no more", () => {
    const seen = new Seen();
    for (let i = 0; i < 1000; i++) expect(seen.add(`id-${i}`)).toBe(true);
    expect(seen.add("id-0")).toBe(false);
    expect(seen.add("id-1000")).toBe(true);
    expect(seen.add("id-1")).toBe(false);
    expect(seen.add("id-0")).toBe(true);
  });

  it("takes what has no id as new", () => {
    const seen = new Seen();
    expect([seen.add(""), seen.add("")]).toEqual([true, true]);
  });
});

describe("emitter", () => {
  class Bell extends Emitter<{ ring: number }> {
    ring(n: number) {
      this.emit("ring", n);
    }
  }

  it("stops calling who has gone", () => {
    const bell = new Bell();
    const heard = vi.fn();
    const off = bell.on("ring", heard);
    bell.ring(1);
    off();
    bell.ring(2);
    expect(heard.mock.calls).toEqual([[1]]);
  });

  it("calls the others when one throws, and reports it", async () => {
    const reported = vi.spyOn(globalThis, "queueMicrotask").mockImplementation(() => {});
    const bell = new Bell();
    const heard = vi.fn();
    bell.on("ring", () => {
      throw new Error("broken bell");
    });
    bell.on("ring", heard);
    bell.ring(1);
    expect(heard).toHaveBeenCalledOnce();
    expect(reported.mock.calls[0]?.[0]).toThrow("broken bell");
  });
});
