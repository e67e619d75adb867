// What the messenger knows of the world, and the narrow port through which it learns and changes it. What the SDK has a shape for has
// that shape here.
import type { Entry, JsonValue, Conversation as SdkConversation, Stage } from "@halley-im/sdk";
import type { Phone, RelayReport } from "@halley-im/sdk/call";

export { applyChange, directId, type Entry, type GroupInfo, isChange, peerOf, type Reaction, type Stage } from "@halley-im/sdk";
export type Json = JsonValue;

export type JoinPolicy = "by_admins" | "by_members" | "open";

/** A conversation, without what the SDK alone reckons with. */
export type Conversation = Omit<SdkConversation, "deliveredSeq" | "lastNo" | "readNo" | "wantRead">;

/** What concerns the user alone in a conversation. */
export interface Settings {
  mute: boolean;
  pin: boolean;
  /** Off the list until its next message. */
  hide: boolean;
  draft: string;
  /** Nothing up to this seq is shown any more. */
  clear: number;
}

export const noSettings: Settings = { mute: false, pin: false, hide: false, draft: "", clear: 0 };

/** A message that has no place in its conversation yet. */
export interface Outgoing {
  /** Its client_msg_id. */
  id: string;
  conversation: string;
  body: Json;
  mentions: string[];
  mentionAll: boolean;
  stage: Stage;
  /** When it was sent, by this machine's clock. */
  at: number;
  error: { code: string; message: string } | undefined;
}

export type Visibility = "contacts" | "all" | "nobody";

export interface User {
  uid: string;
  name: string;
  avatar: string;
  /** Of one's own profile only: who may see one's presence. */
  visibility?: Visibility;
}

export interface Contact {
  uid: string;
  /** requested (by the user), asked (by the other one), accepted; none: no more. */
  state: "none" | "requested" | "asked" | "accepted";
  remark: string;
  note: string;
  changedAt: number;
}

export interface Member {
  uid: string;
  /** member, admin or owner. */
  role: string;
  readSeq: number;
  deliveredSeq: number;
  mutedUntil: number;
  joinedAt: number;
}

export interface Page<T> {
  items: T[];
  /** For the next page; empty on the last one. */
  next: string;
}

export interface Presence {
  uid: string;
  online: boolean;
  platforms: string[];
  /** 0: unknown. */
  lastSeen: number;
}

/** Somebody asks to be added to a group. */
export interface GroupRequest {
  conversation: string;
  uid: string;
  note: string;
  state: "asked" | "accepted" | "declined";
}

export type Connection =
  | { name: "connecting" }
  | { name: "online" }
  /** Tries again at that time, by this machine's clock. */
  | { name: "waiting"; until: number }
  /** Over for good. */
  | { name: "closed"; code: string; message: string };

export interface Draft {
  body: Json;
  mentions: string[];
  mentionAll: boolean;
}

export interface Range {
  before?: number;
  from?: number;
  to?: number;
  limit: number;
}

export interface InfoChange {
  title?: string;
  avatar?: string;
  announcement?: string;
  joinPolicy?: JoinPolicy;
  muteAll?: boolean;
  historyOpen?: boolean;
}

/** What happened. Entries of a conversation come in the order of seq, each once, though there may be jumps. */
export interface PortEvents {
  connection(state: Connection): void;
  /** A conversation is there, or something of it changed. */
  conversation(conversation: Conversation): void;
  entry(conversation: string, entry: Entry): void;
  /** Something was sent, or its stage changed. What is stored or discarded comes with gone. */
  outgoing(outgoing: Outgoing, gone: boolean): void;
  settings(conversation: string, settings: Settings): void;
  /** A message is hidden from the user. */
  deleted(conversation: string, seq: number): void;
  contact(contact: Contact): void;
  blocked(uid: string, on: boolean): void;
  groupRequest(request: GroupRequest): void;
  presence(presence: Presence): void;
  typing(conversation: string, uid: string, on: boolean): void;
  /** A member of a group that is open has read up to there. */
  marker(conversation: string, uid: string, readSeq: number): void;
  /** Who somebody is; kept: as it was known at an earlier visit. */
  user(user: User, kept: boolean): void;
  /** Something is missing between what was told of a conversation and what comes: its window asks again. */
  reset(conversation: string): void;
  /** The operators tell everybody something. */
  notice(text: string): void;
  /** All that was new when it was asked for was told. */
  synced(): void;
  /** There is something about calls: time to have a phone. */
  calls(): void;
}

/**
 * Port is all that the messenger wants of a server. Promises are rejected with an Error that has a code; those of
 * changes to conversations resolve when the change has got its place.
 */
export interface Port {
  readonly uid: string;
  /** The server's clock. */
  now(): number;
  start(events: PortEvents): void;
  /** Ends for good. With forget, what this device keeps is deleted. */
  close(forget: boolean): Promise<void>;
  retryNow(): void;

  /**
   * Entries in the order of seq; those that changed since are as they are now. Without a connection those that this device has: what they lack
   * is told when there is one.
   */
  history(conversation: string, range: Range): Promise<Entry[]>;
  pinned(conversation: string): Promise<Entry[]>;
  members(conversation: string, page: { cursor: string; limit: number; readSeq?: number }): Promise<Page<Member>>;
  /** One of them; undefined: there is none of that uid. */
  member(conversation: string, uid: string): Promise<Member | undefined>;
  reactors(conversation: string, seq: number, reaction: string): Promise<string[]>;

  /** Sends a message; what becomes of it is told by outgoing and entry. */
  send(conversation: string, draft: Draft): void;
  resend(id: string): void;
  discard(id: string): void;
  edit(conversation: string, seq: number, draft: Draft): Promise<void>;
  recall(conversation: string, seq: number): Promise<void>;
  react(conversation: string, seq: number, reaction: string, on: boolean): Promise<void>;
  pin(conversation: string, seq: number, on: boolean): Promise<void>;
  delete(conversation: string, seq: number): Promise<void>;
  /** All that has come was read. */
  read(conversation: string): void;
  typing(conversation: string, on: boolean): void;
  /** The conversation in view; empty: none. */
  opened(conversation: string): void;
  set(conversation: string, change: Partial<Settings>): Promise<void>;
  /** Texts that this device keeps, by conversation: the server doesn't have them. */
  keptDrafts(): ReadonlyMap<string, string>;
  /** Keeps a text on this device; undefined: no more. */
  keepDraft(conversation: string, text: string | undefined): void;

  createGroup(title: string, members: string[]): Promise<string>;
  addMembers(conversation: string, uids: string[]): Promise<void>;
  removeMembers(conversation: string, uids: string[]): Promise<void>;
  leave(conversation: string): Promise<void>;
  setRole(conversation: string, uid: string, role: "member" | "admin" | "owner"): Promise<void>;
  /** Forbids members to send until a time; 0 lifts it. */
  muteMembers(conversation: string, uids: string[], until: number): Promise<void>;
  setInfo(conversation: string, change: InfoChange): Promise<void>;
  dissolve(conversation: string): Promise<void>;
  askToJoin(conversation: string, note: string): Promise<void>;
  answerJoin(conversation: string, uid: string, accept: boolean): Promise<void>;

  users(uids: string[]): Promise<User[]>;
  searchUsers(query: string): Promise<User[]>;
  updateMe(change: { name?: string; avatar?: string; visibility?: Visibility }): Promise<User>;
  askContact(uid: string, note: string, remark: string): Promise<void>;
  answerContact(uid: string, accept: boolean, remark: string): Promise<void>;
  setRemark(uid: string, remark: string): Promise<void>;
  removeContact(uid: string): Promise<void>;
  block(uid: string, on: boolean): Promise<void>;
  /** Wants to hear of their presence. */
  watch(uids: string[]): void;

  /** What calls and is called; loaded when it is asked for first, and not started yet. */
  phone?(): Promise<Phone>;
  /** Tries the relays that calls may need. */
  testRelays?(): Promise<RelayReport>;
  /** Whether a conversation has a call that goes on. */
  hasCall?(conversation: string): Promise<boolean>;
}
