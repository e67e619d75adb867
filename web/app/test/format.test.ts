import { describe, expect, it } from "vitest";
import { bodyText, duration, hue, initials, roomLabel, roomName } from "../src/format.ts";

describe("rooms", () => {
  it.each([
    ["lobby", "chat://lobby"],
    [" a room ", "chat://a room"],
    ["live://77", "live://77"],
  ])("%j is %s", (label, name) => {
    expect(roomName(label)).toBe(name);
    expect(roomName(roomLabel(name))).toBe(name);
  });
});

describe("durations", () => {
  it.each([
    [0, "< 1 ms"],
    [0.9, "< 1 ms"],
    [1, "1 ms"],
    [12.4, "12 ms"],
    [999.4, "999 ms"],
    [1340, "1.3 s"],
  ])("%d is %s", (ms, text) => {
    expect(duration(ms)).toBe(text);
  });
});

describe("people", () => {
  it.each([
    ["ann", "A"],
    ["ann.lee", "AL"],
    ["ann@example.org", "AE"],
    ["41", "4"],
    ["..", "?"],
  ])("%s is %s", (name, letters) => {
    expect(initials(name)).toBe(letters);
  });

  it("have one of eight colours, each the same one always", () => {
    for (const name of ["ann", "bob", "x".repeat(64), ""]) {
      expect(hue(name)).toBe(hue(name));
      expect([0, 1, 2, 3, 4, 5, 6, 7]).toContain(hue(name));
    }
  });
});

describe("bodies", () => {
  it("are text as they are, and anything else as JSON", () => {
    expect(bodyText("<b>")).toBe("<b>");
    expect(bodyText(null)).toBe("null");
    expect(JSON.parse(bodyText({ a: [1] }))).toEqual({ a: [1] });
  });
});
