// Names behind an @: what is being typed, and whom a text means.

import type { Messenger } from "../model/messenger.ts";
import type { Entry } from "../model/types.ts";

/** What words are made of where they stand apart: Chinese, and what else is written without spaces, has no such border. */
const inWord = /[\p{N}_]|(?![\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}])\p{L}/u;

/** Whether an @ there can begin a name: one within a word is an address's. */
function opens(text: string, at: number): boolean {
  return at === 0 || (text[at - 1] !== "." && !inWord.test(lastOf(text, at)));
}

/** Whether a name can end there: what goes on is another name, or an address. */
function ends(text: string, end: number): boolean {
  const rest = text.slice(end, end + 3);
  if (!inWord.test(lastOf(text, end))) return true;
  return !inWord.test(firstOf(/^[.@-]/.test(rest) ? rest.slice(1) : rest));
}

// Whole characters: half of one is no letter.
const firstOf = (text: string) => String.fromCodePoint(text.codePointAt(0) ?? 0);
const lastOf = (text: string, end: number) => [...text.slice(Math.max(0, end - 2), end)].at(-1) ?? "";

/** The @ that is being typed before the caret, if one is. */
export function mentionAt(text: string, caret: number): { start: number; query: string } | undefined {
  const before = text.slice(0, caret);
  const start = before.lastIndexOf("@");
  if (start < 0 || !opens(text, start)) return undefined;
  const query = before.slice(start + 1);
  return /[\n]/.test(query) || query.length > 30 || query.includes("  ") || query.endsWith(" ") ? undefined : { start, query };
}

export interface Mention<T> {
  /** From the @ to behind the name. */
  start: number;
  end: number;
  name: string;
  /** All who are called so. */
  who: T[];
}

/** The names that a text mentions: behind each @ the longest that stands there, so that @Anna is not Ann. */
export function mentionsIn<T extends { name: string }>(text: string, all: Iterable<T>): Mention<T>[] {
  const named = new Map<string, T[]>();
  for (const one of all) {
    const same = named.get(one.name);
    if (same) same.push(one);
    else if (one.name !== "") named.set(one.name, [one]);
  }
  const lengths = [...new Set([...named.keys()].map((name) => name.length))].sort((a, b) => b - a);
  const found: Mention<T>[] = [];
  for (let start = text.indexOf("@"); start >= 0; start = text.indexOf("@", start + 1)) {
    if (!opens(text, start)) continue;
    for (const length of lengths) {
      const end = start + 1 + length;
      const name = text.slice(start + 1, end);
      const who = name.length === length ? named.get(name) : undefined;
      if (!who || !ends(text, end)) continue;
      found.push({ start, end, name, who });
      // A name may have an @ itself.
      start = end - 1;
      break;
    }
  }
  return found;
}

/** Somebody whom a text may mention, by a name; without a uid everybody. */
export interface Candidate {
  uid: string;
  name: string;
}

/** Whom a text mentions. Of several who are called the same those who were picked are meant, if any was. */
export function mentioned(text: string, known: readonly Candidate[], picked: readonly Candidate[]): { mentions: string[]; mentionAll: boolean } {
  const all = [...known.map((one) => ({ ...one, picked: false })), ...picked.map((one) => ({ ...one, picked: true }))];
  const uids = new Set<string>();
  for (const { who } of mentionsIn(text, all)) {
    const meant = who.filter((one) => one.picked);
    for (const { uid } of meant.length > 0 ? meant : who) uids.add(uid);
  }
  const mentionAll = uids.delete("");
  return { mentions: [...uids], mentionAll };
}

/** Those whom a message mentions, by the names that may stand in it. */
export function namesOf(m: Messenger, entry: Entry): Candidate[] {
  const all: Candidate[] = [];
  for (const uid of entry.mentions) {
    const user = m.people.users.value.get(uid);
    for (const name of new Set([m.people.name(uid), user?.name ?? "", uid])) if (name) all.push({ uid, name });
  }
  if (entry.mentionAll) for (const name of ["Everybody", "所有人"]) all.push({ uid: "", name });
  return all;
}
