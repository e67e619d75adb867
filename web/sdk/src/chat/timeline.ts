import { applyChange, type Entry, isChange } from "./entry.ts";
import type { Entries } from "./events.ts";

/**
 * Timeline is a conversation's messages as they are now, in order, with what happened between them (who came, who
 * went): what a view shows. Give it what `entries` events bring and what history() reads, in any order.
 */
export class Timeline {
  readonly #shown = new Map<number, Entry>();
  /** The newest changes of messages that aren't here. */
  readonly #early = new Map<number, Entry[]>();
  #list: Entry[] | undefined;

  /** In the order of seq. */
  get entries(): readonly Entry[] {
    return (this.#list ??= [...this.#shown.values()].sort((a, b) => a.seq - b.seq));
  }

  get(seq: number): Entry | undefined {
    return this.#shown.get(seq);
  }

  /** The first seq that is here; 0: none. */
  get first(): number {
    return this.entries[0]?.seq ?? 0;
  }

  /** Takes what came, and returns the seqs of what is new or changed. After a reset the rest is to be read again. */
  take({ entries, reset }: Pick<Entries, "entries" | "reset">): number[] {
    if (reset) {
      this.#shown.clear();
      this.#early.clear();
      this.#list = undefined;
    }
    return this.add(entries);
  }

  add(entries: Entry[]): number[] {
    const touched = new Set<number>();
    for (const e of entries) {
      if (!isChange(e.kind)) {
        const old = this.#shown.get(e.seq);
        if (old && old.changedSeq >= e.changedSeq) continue;
        let now = e;
        for (const change of this.#early.get(e.seq) ?? []) now = applyChange(now, change);
        this.#early.delete(e.seq);
        this.#put(now);
        touched.add(e.seq);
        continue;
      }
      const message = this.#shown.get(e.target);
      if (!message) {
        // History may bring the message as it was before.
        const early = [...(this.#early.get(e.target) ?? []), e].sort((a, b) => a.seq - b.seq);
        this.#early.set(e.target, early);
        continue;
      }
      const now = applyChange(message, e);
      if (now === message) continue;
      this.#put(now);
      touched.add(now.seq);
    }
    return [...touched];
  }

  #put(e: Entry): void {
    this.#shown.set(e.seq, e);
    this.#list = undefined;
  }
}
