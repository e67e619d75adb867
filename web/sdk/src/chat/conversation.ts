import type * as wire from "../gen/halley/v1/client.ts";
import { applyChange, type Entry, entryOf } from "./entry.ts";

/** A conversation as its user sees it. */
export interface Conversation {
  id: string;
  type: string;
  title: string;
  avatar: string;
  announcement: string;
  owner: string;
  dissolved: boolean;
  muteAll: boolean;
  members: number;
  lastSeq: number;
  lastAt: number;
  /** The last message. */
  last: Entry | undefined;
  /** Messages after the read marker, and how many of them mention the user or everybody. */
  unread: number;
  mentions: number;
  /** Seq of the first of these; 0: there is none. */
  firstMention: number;
  readSeq: number;
  deliveredSeq: number;
  /** The user's role: none, member, admin or owner. */
  role: string;
  visibleFrom: number;
  joinPolicy: string;
  historyOpen: boolean;
  /** How far the other side has read and got it; of direct conversations only. */
  peerReadSeq: number;
  peerDeliveredSeq: number;
  /** Number of the last message, and of messages up to the read marker; undefined: not known yet. */
  lastNo: number | undefined;
  readNo: number | undefined;
  /** A read marker that the server hasn't taken yet; 0: none. */
  wantRead: number;
}

/** The type of a conversation by its id. */
export function typeOf(id: string): string {
  return id.startsWith("d/") ? "direct" : id.startsWith("i/") ? "inbox" : "group";
}

/** The id of the direct conversation of two users. */
export function directId(a: string, b: string): string {
  // As servers compare: by bytes, which for what uids are made of is by UTF-16 units.
  return a < b ? `d/${a}/${b}` : `d/${b}/${a}`;
}

/** The other side of a direct conversation; empty for others. */
export function peerOf(id: string, me: string): string {
  const [type, a, b] = id.split("/");
  if (type !== "d") return "";
  return (a === me ? b : a) ?? "";
}

export function conversationOf(c: wire.Conversation): Conversation {
  const last = c.last && entryOf(c.last);
  const unread = c.unread ?? 0;
  return {
    id: c.id ?? "",
    type: c.type ?? typeOf(c.id ?? ""),
    title: c.title ?? "",
    avatar: c.avatar ?? "",
    announcement: c.announcement ?? "",
    owner: c.owner ?? "",
    dissolved: c.dissolved ?? false,
    muteAll: c.mute_all ?? false,
    members: c.members ?? 0,
    lastSeq: c.last_seq ?? 0,
    lastAt: c.last_at ?? 0,
    last,
    unread,
    mentions: c.mentions ?? 0,
    firstMention: c.first_mention ?? 0,
    readSeq: c.read_seq ?? 0,
    deliveredSeq: c.delivered_seq ?? 0,
    role: c.role ?? "",
    visibleFrom: c.visible_from ?? 0,
    joinPolicy: c.join_policy ?? "",
    historyOpen: c.history_open ?? false,
    peerReadSeq: 0,
    peerDeliveredSeq: 0,
    lastNo: last?.msgNo,
    readNo: last && last.msgNo - unread,
    wantRead: 0,
  };
}

/** Returns what a server's summary makes of what is known: counts that are older than ours don't count. */
export function merge(old: Conversation, fresh: Conversation): Conversation {
  const out = { ...fresh, peerReadSeq: old.peerReadSeq, peerDeliveredSeq: old.peerDeliveredSeq, wantRead: old.wantRead };
  if (fresh.lastSeq < old.lastSeq) {
    // It was read before what came meanwhile.
    const { lastSeq, lastAt, last, lastNo, unread, mentions, firstMention, readSeq, readNo, deliveredSeq } = old;
    return { ...out, lastSeq, lastAt, last, lastNo, unread, mentions, firstMention, readSeq, readNo, deliveredSeq };
  }
  if (fresh.lastSeq === old.lastSeq && old.last && old.last.changedSeq >= (fresh.last?.changedSeq ?? 0)) out.last = old.last;
  if (old.readSeq > fresh.readSeq) return read(out, old.readSeq, old.readNo);
  return out;
}

/** Returns the conversation with its read marker at seq, up to which there are msgNo messages if that is known. */
export function read(c: Conversation, seq: number, msgNo: number | undefined): Conversation {
  if (seq <= c.readSeq && c.readNo !== undefined) return c;
  const all = seq >= c.lastSeq;
  const readNo = all ? c.lastNo : (msgNo ?? c.readNo);
  const unread = all ? 0 : readNo === undefined || c.lastNo === undefined ? c.unread : Math.max(0, c.lastNo - readNo);
  const none = unread === 0 || c.firstMention <= seq;
  return {
    ...c,
    readSeq: Math.max(c.readSeq, seq),
    deliveredSeq: Math.max(c.deliveredSeq, seq),
    readNo,
    unread,
    // Which of several mentions are still ahead the server tells with its next summary.
    mentions: unread === 0 ? 0 : none && c.mentions > 0 ? Math.min(c.mentions - 1, unread) : c.mentions,
    firstMention: none ? 0 : c.firstMention,
  };
}

/** Returns the conversation after an entry that follows what it has. */
export function follow(c: Conversation, e: Entry, me: string): Conversation {
  const out: Conversation = { ...c, lastSeq: Math.max(c.lastSeq, e.seq), lastAt: Math.max(c.lastAt, e.serverTime) };
  const mine = e.members.includes(me);
  switch (e.kind) {
    case "message": {
      if (out.last && out.last.seq > e.seq) {
        // The summary was ahead of it and has counted it.
        return e.from === me ? read(out, e.seq, e.msgNo) : out;
      }
      const counted = out.last?.seq === e.seq;
      if (out.readNo === undefined) out.readNo = e.msgNo - out.unread - (counted ? 0 : 1);
      out.lastNo = e.msgNo;
      if (!counted || e.changedSeq > (out.last?.changedSeq ?? 0)) out.last = e;
      if (e.from === me) return read(out, e.seq, e.msgNo);
      if (e.seq <= out.readSeq) {
        out.readNo = e.msgNo;
        out.unread = 0;
        return out;
      }
      out.unread = Math.max(0, e.msgNo - out.readNo);
      if (!counted && (e.mentionAll || e.mentions.includes(me))) {
        out.mentions++;
        out.firstMention ||= e.seq;
      }
      return out;
    }
    case "created":
    case "info":
      return {
        ...out,
        title: e.info?.title ?? out.title,
        avatar: e.info?.avatar ?? out.avatar,
        announcement: e.info?.announcement ?? out.announcement,
        joinPolicy: e.info?.join_policy ?? out.joinPolicy,
        muteAll: e.info?.mute_all ?? out.muteAll,
        historyOpen: e.info?.history_open ?? out.historyOpen,
      };
    case "joined":
      // A summary that was ahead has counted them.
      if (e.seq > c.lastSeq) out.members += e.members.length;
      if (mine && (out.role === "" || out.role === "none")) out.role = "member";
      return out;
    case "left":
    case "removed": {
      const gone = e.kind === "left" ? [e.from] : e.members;
      if (e.seq > c.lastSeq) out.members = Math.max(0, out.members - gone.length);
      if (gone.includes(me)) out.role = "none";
      return out;
    }
    case "role":
      if (e.role === "owner") {
        out.owner = e.members[0] ?? out.owner;
        // Who hands it over stays as an admin.
        if (c.role === "owner" && !mine) out.role = "admin";
      }
      if (mine) out.role = e.role;
      return out;
    case "dissolved":
      return { ...out, dissolved: true };
    default:
      if (out.last) out.last = applyChange(out.last, e);
      return out;
  }
}
