// Emoji by group and by search, from the files that come with the app; nothing of it is loaded before it is wanted.
// The picker that belongs to this database writes styles into attributes, which the pages' policy forbids: the view is
// ours, the database is theirs.
import Database from "emoji-picker-element/database";
import enUrl from "emoji-picker-element-data/en/emojibase/data.json?url";
import zhUrl from "emoji-picker-element-data/zh/emojibase-native/data.json?url";
import type { Language } from "../i18n/index.ts";

export interface Emoji {
  unicode: string;
  name: string;
}

/** Group 2 is parts of others: colours of skin and hair. */
export const groups = [0, 1, 3, 4, 5, 6, 7, 8, 9] as const;
export type Group = (typeof groups)[number];

/** What most devices can show. */
const newest = 15.1;
const databases = new Map<Language, Database>();

function database(language: Language): Database {
  let db = databases.get(language);
  if (!db) databases.set(language, (db = new Database({ locale: language, dataSource: new URL(language === "zh" ? zhUrl : enUrl, document.baseURI).href })));
  return db;
}

interface Found {
  unicode?: string;
  annotation?: string;
  version?: number;
  group?: number;
}

function plain(all: readonly object[]): Emoji[] {
  return (all as Found[])
    .filter((e) => e.unicode && (e.version ?? 0) <= newest && e.group !== 2)
    .map((e) => ({ unicode: e.unicode!, name: e.annotation ?? e.unicode! }));
}

export async function emojiOf(language: Language, group: Group): Promise<Emoji[]> {
  return plain(await database(language).getEmojiByGroup(group));
}

export async function findEmoji(language: Language, query: string): Promise<Emoji[]> {
  return plain(await database(language).getEmojiBySearchQuery(query));
}

export async function oftenUsed(language: Language): Promise<Emoji[]> {
  return plain(await database(language).getTopFavoriteEmoji(18));
}

/** Remembers that an emoji was used. */
export function used(language: Language, unicode: string): void {
  void database(language)
    .incrementFavoriteEmojiCount(unicode)
    .catch(() => {
      // A comfort only.
    });
}

/** At hand for reactions. */
export const quick = ["👍", "❤️", "😂", "😮", "😢", "🎉"];
