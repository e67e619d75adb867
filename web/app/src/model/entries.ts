import { type Entry, isChange, type Reaction } from "./types.ts";

/** Returns message after change, or message itself if the change is none of it or is in it already. */
export function applyChange(message: Entry, change: Entry): Entry {
  if (change.target !== message.seq || change.seq <= message.changedSeq || !isChange(change.kind)) return message;
  const next = { ...message, changedSeq: change.seq };
  switch (change.kind) {
    case "edit":
      return { ...next, body: change.body, mentions: change.mentions, mentionAll: change.mentionAll, edited: true };
    case "recall":
      return { ...next, body: null, mentions: [], mentionAll: false, reactions: [], recalled: true, pinned: false };
    case "pin":
      return { ...next, pinned: !change.off };
    default:
      return { ...next, reactions: react(message.reactions, change.reaction, change.from, !change.off) };
  }
}

export function react(all: Reaction[], reaction: string, from: string, on: boolean): Reaction[] {
  const old = all.find((r) => r.reaction === reaction) ?? { reaction, count: 0, uids: [] };
  const had = old.uids.includes(from);
  const uids = old.uids.filter((uid) => uid !== from);
  if (on) uids.push(from);
  const count = on ? old.count + (had ? 0 : 1) : old.count - (had || old.count > old.uids.length ? 1 : 0);
  if (count <= 0) return all.filter((r) => r.reaction !== reaction);
  const next = { reaction, count, uids };
  // In place: what is under the pointer doesn't jump.
  return old.count > 0 ? all.map((r) => (r.reaction === reaction ? next : r)) : [...all, next];
}
