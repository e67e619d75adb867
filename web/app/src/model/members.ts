import { batch, signal } from "@preact/signals";
import type { Messenger } from "./messenger.ts";
import type { Member } from "./types.ts";

const page = 200;

/** Members of a group in the order of their uids, as far as they were asked for: a group may have a hundred thousand. */
export class Members {
  readonly items = signal<readonly Member[]>([]);
  /** Whether these are all. */
  readonly complete = signal(false);
  readonly loading = signal(false);

  readonly #messenger: Messenger;
  readonly #id: string;
  readonly #readSeq: number | undefined;
  #next = "";
  #turn = 0;

  /** readSeq: only those who have read up to there. */
  constructor(messenger: Messenger, id: string, readSeq?: number) {
    this.#messenger = messenger;
    this.#id = id;
    this.#readSeq = readSeq;
  }

  /** Asks for the next page. False if none came. */
  async more(): Promise<boolean> {
    if (this.loading.peek() || this.complete.peek()) return false;
    const [turn, cursor] = [this.#turn, this.#next];
    this.loading.value = true;
    try {
      const { items, next } = await this.#messenger.port.members(this.#id, { cursor, limit: page, ...(this.#readSeq !== undefined && { readSeq: this.#readSeq }) });
      // How far they have read is right, whoever came meanwhile.
      this.#messenger.noteMembers(this.#id, items);
      if (turn !== this.#turn) return false;
      this.#next = next;
      batch(() => {
        this.items.value = cursor === "" ? items : [...this.items.peek(), ...items];
        this.complete.value = next === "";
      });
      return true;
    } catch {
      return false;
    } finally {
      if (turn === this.#turn) this.loading.value = false;
    }
  }

  /** Somebody came or went: what is here is as it was until the first page comes anew. */
  restart(): void {
    this.#turn++;
    this.#next = "";
    batch(() => {
      this.complete.value = false;
      this.loading.value = false;
    });
  }
}

export interface ReadBy {
  read: string[];
  unread: string[];
  /** How many have read it, and how many haven't, of all members; with a + where more may be than were asked for. */
  readCount: string;
  unreadCount: string;
}

interface ReadByOf {
  seq: number;
  me: string;
  /** Members of the group, the user among them. */
  total: number;
  /** Those who have read it, and all members, as far as they were asked for. */
  readers: readonly Member[];
  allReaders: boolean;
  members: readonly Member[];
  allMembers: boolean;
  /** Read markers that were told since. */
  told: ReadonlyMap<string, number>;
}

/** Who but the user has read a message, and who hasn't. */
export function readBy({ seq, me, total, readers, allReaders, members, allMembers, told }: ReadByOf): ReadBy {
  const read = new Set(readers.map(({ uid }) => uid));
  for (const { uid, readSeq } of members) if (Math.max(readSeq, told.get(uid) ?? 0) >= seq) read.add(uid);
  read.delete(me);
  const unread = members.map(({ uid }) => uid).filter((uid) => uid !== me && !read.has(uid));
  const known = allReaders || allMembers;
  return {
    read: [...read],
    unread,
    readCount: known ? `${read.size}` : `${read.size}+`,
    unreadCount: allMembers ? `${unread.length}` : known ? `${Math.max(unread.length, total - 1 - read.size)}` : `${unread.length}+`,
  };
}
