import type { Conversation } from "./conversation.ts";
import type { Entry } from "./entry.ts";
import type { UserChange } from "./events.ts";
import type { Outgoing } from "./outgoing.ts";

/** What is kept of a conversation. */
export interface SavedConversation {
  conversation: Conversation;
  /** All up to this seq was handed over. */
  have: number;
}

export interface Saved {
  /** Whose it is; empty: nobody's yet. */
  uid: string;
  userChange: number;
  conversations: SavedConversation[];
  /** The newest of each kind and object. */
  changes: UserChange[];
  /** In the order in which they were added. */
  outgoing: Outgoing[];
}

export interface KeptEntries {
  conversation: string;
  /**
   * In the order in which they came; messages are as they were when they were read. A change belongs to its message, too, if that
   * is kept (applyChange).
   */
  entries: Entry[];
  /** Those before this seq aren't needed any more. */
  from: number;
}

export interface Changes {
  uid?: string;
  userChange?: number;
  conversations?: SavedConversation[];
  /** Ids of conversations that are to be forgotten, with their entries. */
  gone?: string[];
  /** Only where there is entries(). */
  entries?: KeptEntries[];
  /** User changes, in the place of older ones of their kind and object. */
  changes?: UserChange[];
  /** Outgoing ones of which something changed; those that aren't kept any more are left out. */
  outgoing?: Outgoing[];
  /** Ids of outgoing ones that are to be forgotten. */
  done?: string[];
}

/** Where a chat keeps what must survive a reload. Calls come from several tabs at once, add of any, save of one only. */
export interface ChatStorage {
  load(): Promise<Saved>;
  /** Adds something to be sent behind all others; resolves when it can't be lost any more. */
  add(outgoing: Outgoing): Promise<void>;
  /** Keeps all of the changes or none. */
  save(changes: Changes): Promise<void>;
  /**
   * The newest entries that are kept of a conversation before a seq, limit at most, in order and without a gap. Left out: none are kept, and
   * a conversation shows nothing before there is a connection.
   */
  entries?(conversation: string, before: number, limit: number): Promise<Entry[]>;
  /** Forgets everything. */
  clear(): Promise<void>;
  close(): void;
}

/** Keeps everything as long as the process lives. */
export class MemoryStorage implements ChatStorage {
  #uid = "";
  #userChange = 0;
  readonly #conversations = new Map<string, SavedConversation>();
  readonly #changes = new Map<string, UserChange>();
  readonly #outgoing = new Map<string, Outgoing>();

  async load(): Promise<Saved> {
    return structuredClone({
      uid: this.#uid,
      userChange: this.#userChange,
      conversations: [...this.#conversations.values()],
      changes: [...this.#changes.values()],
      outgoing: [...this.#outgoing.values()],
    });
  }

  async add(outgoing: Outgoing): Promise<void> {
    this.#outgoing.set(outgoing.id, structuredClone(outgoing));
  }

  async save(changes: Changes): Promise<void> {
    this.#uid = changes.uid ?? this.#uid;
    this.#userChange = changes.userChange ?? this.#userChange;
    for (const c of changes.conversations ?? []) this.#conversations.set(c.conversation.id, structuredClone(c));
    for (const id of changes.gone ?? []) this.#conversations.delete(id);
    for (const c of changes.changes ?? []) this.#changes.set(JSON.stringify([c.kind, c.object]), structuredClone(c));
    for (const o of changes.outgoing ?? []) if (this.#outgoing.has(o.id)) this.#outgoing.set(o.id, structuredClone(o));
    for (const id of changes.done ?? []) this.#outgoing.delete(id);
  }

  async clear(): Promise<void> {
    this.#uid = "";
    this.#userChange = 0;
    this.#conversations.clear();
    this.#changes.clear();
    this.#outgoing.clear();
  }

  close(): void {}
}
