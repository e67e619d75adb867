import type { Entry } from "./entry.ts";
import type { UserChange } from "./events.ts";
import type { Outgoing } from "./outgoing.ts";
import type { Changes, ChatStorage, KeptEntries, SavedConversation } from "./storage.ts";

/** Gathers what changed and keeps it, one save at a time: what comes while one is under way goes with the next. */
export class Keeper {
  readonly #storage: ChatStorage;
  readonly #failed: (error: unknown) => void;
  #uid: string | undefined;
  #userChange: number | undefined;
  readonly #conversations = new Map<string, () => SavedConversation>();
  readonly #gone = new Set<string>();
  readonly #entries = new Map<string, KeptEntries>();
  readonly #changes = new Map<string, UserChange>();
  readonly #outgoing = new Map<string, Outgoing>();
  readonly #done = new Set<string>();
  #saving: Promise<void> | undefined;

  constructor(storage: ChatStorage, failed: (error: unknown) => void) {
    this.#storage = storage;
    this.#failed = failed;
  }

  uid(uid: string): void {
    this.#uid = uid;
    this.#save();
  }

  userChange(number: number): void {
    this.#userChange = number;
    this.#save();
  }

  /** now tells what is to be kept at the time of the save. */
  conversation(id: string, now: () => SavedConversation): void {
    this.#gone.delete(id);
    this.#conversations.set(id, now);
    this.#save();
  }

  /** entries go to those that are kept of a conversation; those before from are forgotten. */
  entries(conversation: string, entries: Entry[], from: number): void {
    if (!this.#storage.entries) return;
    const old = this.#entries.get(conversation);
    this.#entries.set(conversation, { conversation, entries: [...(old?.entries ?? []), ...entries], from: Math.max(from, old?.from ?? 0) });
    this.#save();
  }

  gone(id: string): void {
    this.#conversations.delete(id);
    this.#entries.delete(id);
    this.#gone.add(id);
    this.#save();
  }

  change(change: UserChange): void {
    this.#changes.set(JSON.stringify([change.kind, change.object]), change);
    this.#save();
  }

  outgoing(outgoing: Outgoing): void {
    this.#outgoing.set(outgoing.id, outgoing);
    this.#save();
  }

  done(id: string): void {
    this.#outgoing.delete(id);
    this.#done.add(id);
    this.#save();
  }

  /** Forgets all, what waits to be kept included. */
  async clear(): Promise<void> {
    for (const waiting of [this.#conversations, this.#gone, this.#entries, this.#changes, this.#outgoing, this.#done]) waiting.clear();
    this.#uid = this.#userChange = undefined;
    await this.#saving;
    await this.#storage.clear();
  }

  /** Resolves when all that was told so far is kept. */
  async flush(): Promise<void> {
    while (this.#saving) await this.#saving;
  }

  #save(): void {
    this.#saving ??= this.#run();
  }

  async #run(): Promise<void> {
    // All that one frame changes goes into one save.
    await Promise.resolve();
    for (;;) {
      const changes: Changes = {
        conversations: [...this.#conversations.values()].map((now) => now()),
        gone: [...this.#gone],
        entries: [...this.#entries.values()],
        changes: [...this.#changes.values()],
        outgoing: [...this.#outgoing.values()],
        done: [...this.#done],
      };
      if (this.#uid !== undefined) changes.uid = this.#uid;
      if (this.#userChange !== undefined) changes.userChange = this.#userChange;
      const empty = Object.values(changes).every((v) => Array.isArray(v) && v.length === 0);
      if (empty) {
        // In the same breath: what comes before a promise's end is heard of would be kept by nobody.
        this.#saving = undefined;
        return;
      }
      for (const waiting of [this.#conversations, this.#gone, this.#entries, this.#changes, this.#outgoing, this.#done]) waiting.clear();
      this.#uid = this.#userChange = undefined;
      try {
        await this.#storage.save(changes);
      } catch (error) {
        // A full disk, or a browser that forbids it: the session goes on with what it has in memory.
        this.#failed(error);
      }
    }
  }
}
