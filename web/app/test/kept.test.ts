import { beforeEach, expect, it, vi } from "vitest";
import * as kept from "../src/messenger/kept.ts";

function storage(): Storage {
  const all = new Map<string, string>();
  return {
    getItem: (key: string) => all.get(key) ?? null,
    setItem: (key: string, text: string) => void all.set(key, text),
    removeItem: (key: string) => void all.delete(key),
  } as Storage;
}

const newTab = () => vi.stubGlobal("sessionStorage", storage());
const ann = { name: "ann", uid: "ann", token: "1" };
const bob = { name: "bob", uid: "bob", token: "2" };

beforeEach(() => {
  vi.stubGlobal("localStorage", storage());
  newTab();
  return () => vi.unstubAllGlobals();
});

it("who comes in is known to the same tab alone", () => {
  kept.save(ann);
  expect(kept.load()).toEqual(ann);
  newTab();
  expect(kept.load()).toBeUndefined();
  expect(kept.lastName()).toBe("ann");
});

it("who stays logged in is known to all tabs, by the newest token, until he logs out", () => {
  kept.save(ann, true);
  newTab();
  expect(kept.load()).toEqual(ann);
  kept.save({ ...ann, token: "3" });
  newTab();
  expect(kept.load()?.token).toBe("3");
  kept.clear("ann");
  newTab();
  expect(kept.load()).toBeUndefined();
});

it("another one in another tab comes and goes without him", () => {
  kept.save(ann, true);
  newTab();
  kept.save(bob);
  expect(kept.load()).toEqual(bob);
  kept.save({ ...bob, token: "4" });
  kept.clear("bob");
  expect(kept.load()).toEqual(ann);
});

it("what isn't what was kept is nothing", () => {
  for (const text of ["", "{", "7", "null", "{}"]) {
    localStorage.setItem("halley.messenger", text);
    expect(kept.load()).toBeUndefined();
  }
});
