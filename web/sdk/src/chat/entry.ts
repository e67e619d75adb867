import type * as wire from "../gen/halley/v1/client.ts";

export type JsonValue = wire.JsonValue;

export interface Reaction {
  reaction: string;
  count: number;
  /** Some of who reacted so. */
  uids: string[];
}

/** What an entry sets of a group; what isn't there stays as it is. */
export interface GroupInfo {
  title?: string;
  avatar?: string;
  announcement?: string;
  join_policy?: string;
  mute_all?: boolean;
  history_open?: boolean;
}

/** A stored entry: a message as it was when it was read, or a change. */
export interface Entry {
  seq: number;
  /** message, edit, recall, reaction, pin, created, joined, left, removed, role, muted, info or dissolved. */
  kind: string;
  /** Empty: the system. */
  from: string;
  clientMsgId: string;
  /** Milliseconds since 1970 by the server's clock. */
  serverTime: number;
  /** Messages up to this entry and including it. */
  msgNo: number;
  /** The last entry that changed this one: changes up to it are in here already. */
  changedSeq: number;
  /** Of a change: the seq of the message that it changes. */
  target: number;
  body: JsonValue;
  mentions: string[];
  mentionAll: boolean;
  members: string[];
  role: string;
  mutedUntil: number;
  reaction: string;
  off: boolean;
  info: GroupInfo | undefined;
  edited: boolean;
  recalled: boolean;
  pinned: boolean;
  reactions: Reaction[];
}

export function entryOf(e: wire.Entry): Entry {
  return {
    seq: e.seq ?? 0,
    kind: e.kind ?? "",
    from: e.from ?? "",
    clientMsgId: e.client_msg_id ?? "",
    serverTime: e.server_time ?? 0,
    msgNo: e.msg_no ?? 0,
    changedSeq: e.changed_seq ?? e.seq ?? 0,
    target: e.target ?? 0,
    body: e.body ?? null,
    mentions: e.mentions ?? [],
    mentionAll: e.mention_all ?? false,
    members: e.members ?? [],
    role: e.role ?? "",
    mutedUntil: e.muted_until ?? 0,
    reaction: e.reaction ?? "",
    off: e.off ?? false,
    info: (e.info ?? undefined) as GroupInfo | undefined,
    edited: e.edited ?? false,
    recalled: e.recalled ?? false,
    pinned: e.pinned ?? false,
    reactions: (e.reactions ?? []).map((r) => ({ reaction: r.reaction ?? "", count: r.count ?? 0, uids: r.uids ?? [] })),
  };
}

/** Whether an entry of that kind changes a message. */
export function isChange(kind: string): boolean {
  return kind === "edit" || kind === "recall" || kind === "reaction" || kind === "pin";
}

/**
 * Returns message after change, or message itself if the change is none of it or is in it already: ranges return
 * messages as they are now, so older changes come once more.
 */
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
      return { ...next, reactions: react(message.reactions, change) };
  }
}

function react(all: Reaction[], { reaction, from, off }: Entry): Reaction[] {
  const old = all.find((r) => r.reaction === reaction) ?? { reaction, count: 0, uids: [] };
  const mine = old.uids.includes(from);
  const uids = old.uids.filter((uid) => uid !== from);
  if (!off) uids.push(from);
  // The list of uids may be a part: who isn't in it and takes a reaction away is one of the rest.
  const count = off ? old.count - (mine || old.count > old.uids.length ? 1 : 0) : old.count + (mine ? 0 : 1);
  const rest = all.filter((r) => r.reaction !== reaction);
  if (count > 0) rest.push({ reaction, count, uids });
  // As servers order them: the most frequent first.
  return rest.sort((a, b) => b.count - a.count || (a.reaction < b.reaction ? -1 : 1));
}
