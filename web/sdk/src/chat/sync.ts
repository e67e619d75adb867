import type { Method, Params, Result } from "../connection.ts";
import { HalleyError } from "../error.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import { type Conversation, conversationOf, merge } from "./conversation.ts";
import { type Entry, entryOf } from "./entry.ts";
import { Gate, type Sleepers } from "./gate.ts";
import { Log } from "./log.ts";
import type { Held } from "./marks.ts";

/** Syncs after which a conversation that was heard of and isn't told is given up. */
const maxStrange = 5;

export interface SyncHost {
  readonly online: boolean;
  readonly held: ReadonlyMap<string, Held>;
  readonly sleepers: Sleepers;
  /** Conversations that a question names at most. */
  readonly most: number;
  /** The number of the last user change that is known. */
  userChange(): number;
  read<M extends Method>(method: M, params: Params<M>): Promise<Result<M>>;
  history(params: wire.ConversationHistory): Promise<Entry[]>;
  hold(conversation: Conversation, have: number): Held;
  update(held: Held, conversation: Conversation): void;
  /** Looks whether an entry is the outcome of something sent. */
  outcome(conversation: string, entry: Entry): void;
  handOver(held: Held, entries: Entry[], reset: boolean): void;
  apply(change: wire.UserChanged): boolean;
  synced(): void;
  wait(attempt: number, retryAfter?: number): number;
}

/** Sync gets what was missed: all that is new since this device was last here, and what lies between what it has and what it heard of. */
export class Sync {
  readonly #host: SyncHost;
  readonly #pulls = new Gate(4);
  /** Conversations that were heard of and that no sync has told yet. */
  readonly #strangers = new Set<string>();
  #running: Promise<boolean> | undefined;
  #again = false;

  constructor(host: SyncHost) {
    this.#host = host;
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  /** Asks for all that is new. Resolves when it has been handed over, with false if that was not to be had. */
  run(): Promise<boolean> {
    this.#again = true;
    return (this.#running ??= this.#all().finally(() => (this.#running = undefined)));
  }

  /** Asks what a conversation is; a sync goes on until it has told. */
  meet(id: string): void {
    if (this.#strangers.has(id) && this.#running) return;
    this.#strangers.add(id);
    void this.run();
  }

  /** A conversation isn't waited for any more; without id: none is. */
  forget(id?: string): void {
    if (id === undefined) this.#strangers.clear();
    else this.#strangers.delete(id);
  }

  /** Does something in its turn with what is read of conversations. */
  inTurn<T>(task: () => Promise<T>): Promise<T> {
    return this.#pulls.run(task);
  }

  async #all(): Promise<boolean> {
    const host = this.#host;
    let above = "";
    for (let attempt = 0; ; ) {
      if (!host.online) return false;
      if (!above) this.#again = false;
      try {
        const asked = this.#named(above);
        const page = await host.read("sync", asked);
        const progress = this.#page(page);
        if (page.more && progress) {
          attempt = 0;
          continue;
        }
        above = asked.up_to ?? "";
        if (above) continue;
        if (this.#again) {
          attempt = 0;
          continue;
        }
        if (this.#strangers.size === 0 || attempt >= maxStrange) break;
        attempt++;
      } catch (error) {
        if (!(error instanceof HalleyError)) throw error;
        // A server without conversations, or a session that is over.
        if (!error.retry) return false;
        await host.sleepers.sleep(host.wait(attempt++, error.retryAfter));
        continue;
      }
      // It was told of before it can be read.
      await host.sleepers.sleep(host.wait(attempt));
    }
    this.#strangers.clear();
    for (const held of host.held.values()) this.pull(held);
    host.synced();
    return true;
  }

  /** What this device has of the conversations above one, as many as a question may name. */
  #named(above: string): wire.Sync {
    const host = this.#host;
    let held = [...host.held].filter(([id]) => id > above);
    let upTo = "";
    if (held.length > host.most) {
      held = held.sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, host.most);
      upTo = held.at(-1)?.[0] ?? "";
    }
    const conversations = Object.fromEntries(held.map(([id, { log }]) => [id, log.have]));
    return { conversations, user_change: host.userChange(), ...(above && { above }), ...(upTo && { up_to: upTo }) };
  }

  /** Takes a page in, and returns whether there was anything in it. */
  #page(page: wire.SyncPage): boolean {
    let progress = false;
    for (const u of page.user_changes ?? []) progress = this.#host.apply(u) || progress;
    for (const c of page.conversations ?? []) progress = this.#fresh(c) || progress;
    return progress;
  }

  #fresh({ conversation, entries: list, reset }: wire.SyncConversation): boolean {
    const host = this.#host;
    const fresh = conversationOf(conversation ?? {});
    const entries = (list ?? []).map(entryOf);
    const first = entries[0]?.seq ?? fresh.lastSeq + 1;
    let held = host.held.get(fresh.id);
    let lost = false;
    const out: Entry[] = [];
    this.#strangers.delete(fresh.id);
    if (!held) {
      held = host.hold(fresh, first - 1);
      lost = reset ?? false;
    } else {
      held.conversation = merge(held.conversation, fresh);
      const before = held.log.have;
      if (reset && first > before + 1) {
        lost = true;
        out.push(...held.log.skip(first - 1));
      } else if (fresh.visibleFrom > before + 1) out.push(...held.log.skip(fresh.visibleFrom - 1));
    }
    for (const e of entries) {
      host.outcome(fresh.id, e);
      out.push(...held.log.take(e));
    }
    held.log.hear(fresh.lastSeq);
    host.handOver(held, out, lost);
    host.update(held, held.conversation);
    return out.length > 0;
  }

  /** Reads what is missing between what was handed over and what was heard of. */
  pull(held: Held): void {
    if (held.pulling || !held.log.missing()) return;
    held.pulling = true;
    void this.#pulls
      .run(() => this.#pullAll(held))
      .finally(() => {
        held.pulling = false;
        if (this.#host.online && !this.#running) this.pull(held);
      });
  }

  async #pullAll(held: Held): Promise<void> {
    const host = this.#host;
    const { id } = held.conversation;
    for (let attempt = 0; ; ) {
      const gap = held.log.missing();
      if (!gap || !host.online || host.held.get(id) !== held) return;
      try {
        const before = held.log.have;
        const entries = await host.history({ conversation: id, from: gap.from, to: gap.to, limit: 200 });
        const out: Entry[] = [];
        for (const e of entries) {
          host.outcome(id, e);
          out.push(...held.log.take(e));
        }
        host.handOver(held, out, false);
        if (held.log.have > before) {
          attempt = 0;
          continue;
        }
      } catch (error) {
        if (!(error instanceof HalleyError)) throw error;
        if (!error.retry) {
          // Not a member any more: what he may see he has.
          held.log = new Log(held.log.have);
          return;
        }
        await host.sleepers.sleep(host.wait(attempt++, error.retryAfter));
        continue;
      }
      // Told of, and not to be read: either it is not for this user, which a summary tells, or it is not there yet. It is never skipped.
      await this.run();
      if (held.log.have + 1 === gap.from) await host.sleepers.sleep(host.wait(attempt++));
    }
  }
}
