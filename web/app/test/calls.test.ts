import { describe, expect, it } from "vitest";
import { callable, Calls } from "../src/model/calls.ts";
import type { Conversation, Port } from "../src/model/types.ts";

describe("one may call", () => {
  it.each([
    ["two, before anything was said", { type: "direct", role: "none" }, true],
    ["two", { type: "direct", role: "member" }, true],
    ["a group", { type: "group", role: "admin" }, true],
    ["not a group that one has left", { type: "group", role: "none" }, false],
    ["not a group that is dissolved", { type: "group", role: "owner", dissolved: true }, false],
    ["not one's notifications", { type: "inbox", role: "member" }, false],
  ])("%s", (_, c, want) => expect(callable({ dissolved: false, ...c } as Conversation)).toBe(want));
});

it("who leaves while he calls waits until that is taken back", async () => {
  let answered = () => {};
  const told: string[] = [];
  const phone = {
    on: () => () => {},
    start: () => {},
    close: () => void told.push("closed"),
    dial: () => new Promise<void>((_, reject) => (answered = () => reject(new Error("closed")))),
  };
  const calls = new Calls({ uid: "ann", phone: async () => phone } as unknown as Port);
  const dialling = calls.dial("d/ann/bob", "audio").catch(() => told.push("taken back"));
  await calls.wake();
  await Promise.resolve();
  const closing = calls.close().then(() => told.push("left"));
  await new Promise((resolve) => setTimeout(resolve));
  answered();
  await Promise.all([dialling, closing]);
  expect(told).toEqual(["closed", "taken back", "left"]);
});
