import type { Entry } from "./entry.ts";

/** Entries that wait for those before them; more are forgotten, and read again when their time comes. */
const maxWaiting = 2000;

/**
 * Log brings the entries of one conversation into order: each is handed over once, after the one before it. It
 * knows nothing of where entries come from; who owns it reads what is missing.
 */
export class Log {
  /** All up to this seq was handed over. */
  have: number;
  /** The highest seq heard of. */
  top: number;
  readonly #waiting = new Map<number, Entry>();

  constructor(have: number) {
    this.have = this.top = have;
  }

  /** Takes an entry, and returns those whose turn has come. One that was handed over before is dropped. */
  take(entry: Entry): Entry[] {
    const { seq } = entry;
    if (seq <= this.have) return [];
    this.hear(seq);
    const old = this.#waiting.get(seq);
    // What was read later has the changes that came in between.
    if (!old || entry.changedSeq > old.changedSeq) this.#waiting.set(seq, entry);
    const out = this.#drain();
    if (this.#waiting.size > maxWaiting) this.#waiting.delete(Math.max(...this.#waiting.keys()));
    return out;
  }

  /** Learns that there are entries up to seq. */
  hear(seq: number): void {
    this.top = Math.max(this.top, seq);
  }

  /** Goes on at seq + 1: what is up to there is not for this reader. */
  skip(seq: number): Entry[] {
    if (seq <= this.have) return [];
    this.have = seq;
    this.hear(seq);
    for (const waiting of [...this.#waiting.keys()]) if (waiting <= seq) this.#waiting.delete(waiting);
    return this.#drain();
  }

  /** The first range that is missing, if any is. */
  missing(): { from: number; to: number } | undefined {
    if (this.top <= this.have) return undefined;
    let to = this.top;
    for (const seq of this.#waiting.keys()) to = Math.min(to, seq - 1);
    return { from: this.have + 1, to };
  }

  #drain(): Entry[] {
    const out: Entry[] = [];
    for (;;) {
      const next = this.#waiting.get(this.have + 1);
      if (!next) return out;
      this.#waiting.delete(++this.have);
      out.push(next);
    }
  }
}
