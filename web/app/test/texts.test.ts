import { describe, expect, it, vi } from "vitest";
import { en } from "../src/i18n/en.ts";
import { zh } from "../src/i18n/zh.ts";
import type { Messenger } from "../src/model/messenger.ts";

// What the module looks at when it is loaded.
vi.stubGlobal("localStorage", { getItem: () => null, setItem: () => {} });
vi.stubGlobal("document", { documentElement: {} });
vi.stubGlobal("navigator", { language: "en-GB", languages: ["en-GB"] });
const { fill, setLanguage, why } = await import("../src/i18n/index.ts");
const { initialOf } = await import("../src/messenger/initial.ts");
const { mentionAt, mentionsIn } = await import("../src/messenger/mention.ts");
const { contentOf } = await import("../src/model/body.ts");
const { recordText } = await import("../src/messenger/calls/words.ts");
const { quoteText } = await import("../src/messenger/preview.ts");
const { isBig, safe } = await import("../src/messenger/parts/text.tsx");

const places = (text: string) => [...new Set([...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1]))].sort();

describe("texts", () => {
  it.each(Object.keys(en) as (keyof typeof en)[])("%s has the same places in both languages", (name) => {
    expect(zh[name]).not.toBe("");
    // Chinese may leave a number out where there is one only.
    expect(places(en[name])).toEqual(expect.arrayContaining(places(zh[name])));
    if (!en[name].includes("|")) expect(places(zh[name])).toEqual(places(en[name]));
  });

  it("are filled, with one and more told apart", () => {
    expect(fill("{n} message|{n} messages", { n: 1 })).toBe("1 message");
    expect(fill("{n} message|{n} messages", { n: 0 })).toBe("0 messages");
    expect(fill("{a} and {a}, {b}", { a: "$&" })).toBe("$& and $&, {b}");
  });

  it("say why something failed, known or not", () => {
    expect(why({ code: "blocked" })).toBe(en.c_blocked);
    // How long a message may be changed nobody tells before it is tried.
    expect(why({ code: "too_late" })).toBe("it was sent too long ago to be changed");
    setLanguage("zh");
    expect(why({ code: "too_late" })).toBe("消息发送已久，不能再更改");
    setLanguage("en");
    expect(why({ code: "odd" })).toContain("odd");
    expect(why(new Error("x"))).toContain("x");
  });
});

describe("a call in its conversation", () => {
  const said = (call: object, mine: boolean) => {
    const content = contentOf({ text: "x", call: { call: "1", media: "video", kind: "direct", reason: "", duration_ms: 0, ...call } });
    return content.call ? recordText(content.call, mine) : undefined;
  };
  it.each([
    [{ outcome: "answered", duration_ms: 65_400 }, true, "Video call, 1:05"],
    [{ outcome: "answered", duration_ms: 3_725_000, media: "audio" }, false, "Voice call, 1:02:05"],
    [{ outcome: "missed", reason: "no_answer" }, false, en.callMissed],
    [{ outcome: "missed", reason: "no_answer" }, true, en.callNoAnswer],
    [{ outcome: "missed", reason: "cancelled" }, true, en.callCancelled],
    [{ outcome: "busy" }, false, en.callMissed],
    [{ outcome: "declined" }, true, en.callDeclined],
    [{ outcome: "failed" }, true, en.callFailed],
    [{ outcome: "something new" }, true, undefined],
    [{ outcome: "missed", call: 7 }, true, undefined],
  ])("%j", (call, mine, want) => expect(said(call, mine)).toBe(want));
});

describe("what is quoted", () => {
  it("is shown unless it is known to be recalled", () => {
    const m = { open: { value: { id: "g/1", window: { isRecalled: (seq: number) => seq === 7 } } } } as unknown as Messenger;
    const quote = (seq: number) => ({ seq, from: "bob", text: "a secret" });
    expect(quoteText(m, "g/1", quote(8))).toBe("a secret");
    expect(quoteText(m, "g/2", quote(7))).toBe("a secret");
    expect(quoteText(m, "g/1", quote(7))).toBe("Message recalled");
    setLanguage("zh");
    expect(quoteText(m, "g/1", quote(7))).toBe("消息已撤回");
    setLanguage("en");
  });
});

describe("letters of contacts", () => {
  it.each([
    ["Ann", "A"],
    ["émile", "E"],
    ["王芳", "W"],
    ["李小龙", "L"],
    ["张衡", "Z"],
    ["陈", "C"],
    ["刘", "L"],
    ["欧阳", "O"],
    ["安", "A"],
    ["7up", "#"],
    ["", "#"],
    ["🦊", "#"],
  ])("%s stands under %s", (name, letter) => {
    expect(initialOf(name)).toBe(letter);
  });
});

describe("an @", () => {
  it.each([
    ["@", 1, { start: 0, query: "" }],
    ["hi @an", 6, { start: 3, query: "an" }],
    ["hi @an and", 6, { start: 3, query: "an" }],
    ["@王", 2, { start: 0, query: "王" }],
    ["mail@example", 12, undefined],
    ["@ann ", 5, undefined],
    ["@ann\n", 5, undefined],
    ["no", 2, undefined],
  ])("in %j at %d", (text, caret, want) => {
    expect(mentionAt(text, caret)).toEqual(want);
  });
});

describe("names behind an @", () => {
  const all = ["Ann", "Anna", "Anna Bell", "bob", "王芳", "c@d.e", "😀", "Ann"].map((name) => ({ name }));
  it.each([
    ["@Anna", ["Anna"]],
    ["@Ann, @Anna Bell!", ["Ann", "Anna Bell"]],
    ["@Annabel", []],
    ["write to a@bob.org or @bob.org, or é@bob", []],
    ["@bob. And (@bob)", ["bob", "bob"]],
    ["你好@王芳你好", ["王芳"]],
    ["王芳@bob：好", ["bob"]],
    ["@c@d.e @bob", ["c@d.e", "bob"]],
    ["@😀a", ["😀"]],
    ["@@bob", ["bob"]],
    ["𝒳@bob", []],
    ["@", []],
  ])("in %j are %j", (text, want) => {
    const found = mentionsIn(text, all);
    expect(found.map(({ name }) => name)).toEqual(want);
    for (const { start, end, name } of found) expect(text.slice(start, end)).toBe(`@${name}`);
  });

  it("are all who are called so", () => expect(mentionsIn("@Ann", all)[0]!.who.length).toBe(2));
});

describe("links", () => {
  it.each(["https://example.org", "http://x.y/z?a=b#c", "mailto:ann@example.org"])("%s may be clicked", (href) => expect(safe(href)).toBe(href));
  it.each(["javascript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "no url", "JAVASCRIPT:alert(1)"])("%s may not", (href) => expect(safe(href)).toBeUndefined());
});

describe("large emoji", () => {
  it.each(["👍", "👩‍🚀🚀", "❤️", "🇨🇳 🎉"])("%s is", (text) => expect(isBig(text)).toBe(true));
  it.each(["", " ", "a👍", "12", "#", "👍👍👍👍👍", "👍!"])("%j isn't", (text) => expect(isBig(text)).toBe(false));
});
