import type { Presence } from "../client.ts";
import type { ConnectionOptions, Push, Session, State } from "../connection.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import type { Conversation } from "./conversation.ts";
import type { Entry } from "./entry.ts";
import type { Outgoing } from "./outgoing.ts";

export interface SpeakerOptions extends ConnectionOptions {
  /** Milliseconds after which what others sent is told to be delivered, in direct conversations; Infinity: never [1,000]. */
  deliveredAfter?: number;
  /** Milliseconds, more or less by half, between two questions whether something was missed [300,000]. */
  askEvery?: number;
  /** Milliseconds for which what is to be sent waits for what is new, after a connection was made [2,000]. */
  syncFirst?: number;
  /** Conversations that a question for what is new names at most; who has more asks in parts [3,000, for which a request has room]. */
  syncNamed?: number;
}

/** Entries of one conversation, in order. */
export interface Entries {
  conversation: string;
  entries: Entry[];
  /** They don't follow what came before, which is out of date: history has what lies between. */
  reset: boolean;
}

/** Something that concerns the user alone: kind and object say what, value what it is now. */
export interface UserChange {
  number: number;
  kind: string;
  object: string;
  value: wire.JsonValue;
}

/** How far somebody else is in a conversation. */
export interface Marker {
  conversation: string;
  uid: string;
  readSeq: number;
  deliveredSeq: number;
}

/** Somebody else is typing, or with off no longer; to be forgotten after some seconds. */
export interface Typing {
  conversation: string;
  uid: string;
  off: boolean;
}

export interface SpeakerEvents {
  state: State;
  session: Session;
  /** Entries that follow those handed over before, each once. */
  entries: Entries;
  /** What conversations are now. */
  conversations: Conversation[];
  /** A conversation isn't on the user's list any more. */
  gone: string;
  /** What became of something sent. */
  outgoing: Outgoing;
  /** What was sent was taken back. */
  discarded: string;
  change: UserChange;
  /** Of direct conversations, and of the group that is open. */
  marker: Marker;
  typing: Typing;
  /** All that was new when it was asked for has been handed over. */
  synced: void;
  /** Of whom is watched (presence.watch). */
  presence: Presence;
  /** A push of a backend. */
  push: Push;
  /** An event of none of these kinds, as it came. */
  event: wire.Event;
  /** What should survive a reload could not be kept. */
  storageError: unknown;
}
