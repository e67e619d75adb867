import { describe, expect, it } from "vitest";
import { callable } from "../src/model/calls.ts";
import type { Conversation } from "../src/model/types.ts";

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
