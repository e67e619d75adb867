import { batch, signal } from "@preact/signals";
import { applyChange, type Entry, isChange, type Port } from "./types.ts";

const page = 100;
/** With more than that loaded, what is far from where one looks is let go: each page costs the same, however far one scrolls. */
const most = 4000;
const kept = 3000;

/**
 * Window is the stretch of a conversation that is loaded: without a hole, and at its end as long as nobody jumped
 * away. It grows at either side as the list is scrolled, and is cut at the other one when it is long.
 */
export class Window {
  /** Messages, and changes that are shown by themselves, in the order of seq. */
  readonly entries = signal<Entry[]>([]);
  readonly hasOlder = signal(false);
  readonly hasNewer = signal(false);
  readonly loading = signal<"" | "older" | "newer" | "all">("all");
  /** Why the last loading failed. */
  readonly error = signal<unknown>(undefined);
  /** Rises with everything that was put in front or taken from there: the list keeps its place by its end then. */
  readonly shifts = signal(0);

  /** Who has recalled a message, where that is known: one who looks after a group recalls what others said. */
  readonly recallers = signal<ReadonlyMap<number, string>>(new Map());

  readonly #port: Port;
  readonly #id: string;
  /** All from #from to #to is loaded. */
  #from = 1;
  #to = 0;
  #visibleFrom: number;
  /** What came while a page was on its way. */
  #late: Entry[] = [];
  #turn = 0;

  constructor(port: Port, id: string, visibleFrom: number) {
    this.#port = port;
    this.#id = id;
    this.#visibleFrom = Math.max(1, visibleFrom);
  }

  /** The last seq that is loaded; 0 before anything is. */
  get to(): number {
    return this.#to;
  }

  /** Whether a message is known to be recalled: it, or its recall, was loaded here. */
  isRecalled(seq: number): boolean {
    if (this.recallers.value.has(seq)) return true;
    const all = this.entries.value;
    return all[indexOf(all, seq)]?.recalled ?? false;
  }

  /** Shows the end. */
  async end(): Promise<void> {
    await this.#load("all", async () => {
      const entries = await this.#port.history(this.#id, { limit: page });
      return () => {
        this.#from = entries[0]?.seq ?? this.#visibleFrom;
        this.#to = entries.at(-1)?.seq ?? 0;
        this.hasNewer.value = false;
        this.#put(entries);
      };
    });
  }

  /** Sees to it that the entry with that seq is loaded. */
  async around(seq: number): Promise<void> {
    if (seq >= this.#from && seq <= this.#to) return;
    const half = page / 2;
    await this.#load("all", async () => {
      const from = Math.max(this.#visibleFrom, seq - half);
      const entries = await this.#port.history(this.#id, { from, to: seq + half, limit: page + 1 });
      return () => {
        this.#from = from;
        this.#to = entries.at(-1)?.seq ?? seq;
        // Fewer than asked for: that was the end.
        this.hasNewer.value = this.#to >= seq + half;
        this.#put(entries);
      };
    });
  }

  async older(): Promise<void> {
    if (!this.hasOlder.peek() || this.loading.peek() !== "") return;
    // Before the question, not with its answer: a list can follow a change at one of its ends at a time.
    const all = this.entries.peek();
    if (all.length > most) {
      const left = all.slice(0, kept);
      this.#to = left.at(-1)?.seq ?? this.#to;
      batch(() => {
        this.entries.value = left;
        this.hasNewer.value = true;
      });
    }
    const before = this.#from;
    await this.#load("older", async () => {
      const entries = await this.#port.history(this.#id, { before, limit: page });
      return () => {
        this.#from = entries[0]?.seq ?? this.#visibleFrom;
        this.shifts.value++;
        this.entries.value = [...this.#shown(entries), ...this.entries.value];
      };
    });
  }

  async newer(): Promise<void> {
    if (!this.hasNewer.peek() || this.loading.peek() !== "") return;
    if (this.entries.peek().length > most) this.#cutFront(kept);
    const from = this.#to + 1;
    await this.#load("newer", async () => {
      const entries = await this.#port.history(this.#id, { from, to: from + page - 1, limit: page });
      return () => {
        this.#to = entries.at(-1)?.seq ?? this.#to;
        this.hasNewer.value = entries.length === page;
        this.#follow(entries);
      };
    });
  }

  /** Takes an entry that came by itself. */
  take(entry: Entry): void {
    if (this.loading.peek() !== "") this.#late.push(entry);
    else this.#take(entry);
  }

  #take(entry: Entry): void {
    if (isChange(entry.kind)) this.#change(entry);
    if (entry.seq <= this.#to || this.hasNewer.peek()) return;
    if (entry.seq > this.#to + 1 && this.#to > 0) {
      // Something between is missing: it is asked for, and this one with it.
      this.hasNewer.value = true;
      void this.newer();
      return;
    }
    this.#to = entry.seq;
    this.#follow([entry]);
  }

  /** There are entries up to seq: those that aren't here and won't come by themselves are asked for, and what failed is tried again. */
  async reach(seq: number): Promise<void> {
    if (this.loading.peek() !== "") return;
    if (this.error.peek() !== undefined && this.entries.peek().length === 0) return this.end();
    this.error.value = undefined;
    if (this.hasNewer.peek() || seq <= this.#to) return;
    this.hasNewer.value = true;
    await this.newer();
  }

  /** Lets go what is far above; for when the list stands at its end. */
  trim(): void {
    if (this.loading.peek() === "" && this.entries.peek().length > most) this.#cutFront(page);
  }

  #cutFront(leave: number): void {
    const left = this.entries.peek().slice(-leave);
    this.#from = left[0]?.seq ?? this.#from;
    batch(() => {
      this.shifts.value++;
      this.entries.value = left;
      this.hasOlder.value = true;
    });
  }

  #shown(entries: Entry[]): Entry[] {
    this.#recalls(entries);
    return entries.filter(shown);
  }

  #recalls(entries: readonly Entry[]): void {
    const fresh = entries.filter((e) => e.kind === "recall");
    if (fresh.length > 0) this.recallers.value = new Map([...this.recallers.peek(), ...fresh.map((e) => [e.target, e.from] as const)]);
  }

  #change(change: Entry): void {
    this.#recalls([change]);
    const all = this.entries.peek();
    const i = indexOf(all, change.target);
    const old = all[i];
    if (!old) return;
    const next = applyChange(old, change);
    if (next !== old) this.entries.value = all.with(i, next);
  }

  #put(entries: Entry[]): void {
    this.shifts.value = 0;
    this.entries.value = this.#shown(entries);
  }

  #follow(entries: Entry[]): void {
    const more = this.#shown(entries);
    if (more.length > 0) this.entries.value = [...this.entries.value, ...more];
  }

  async #load(what: "older" | "newer" | "all", ask: () => Promise<() => void>): Promise<void> {
    // A jump overtakes a page that is on its way.
    const turn = ++this.#turn;
    this.loading.value = what;
    this.error.value = undefined;
    try {
      const done = await ask();
      if (turn !== this.#turn) return;
      batch(() => {
        done();
        this.hasOlder.value = this.#from > this.#visibleFrom;
      });
    } catch (reason) {
      if (turn === this.#turn) this.error.value = reason;
    } finally {
      if (turn === this.#turn) {
        this.loading.value = "";
        for (const entry of this.#late.splice(0)) this.#take(entry);
      }
    }
  }
}

/** Edits, recalls and reactions show in their message. */
function shown(entry: Entry): boolean {
  return !isChange(entry.kind) || (entry.kind === "pin" && !entry.off);
}

/** The place of a seq in entries, by halving; -1: it isn't there. */
export function indexOf(entries: readonly { seq: number }[], seq: number): number {
  let [low, high] = [0, entries.length - 1];
  while (low <= high) {
    const mid = (low + high) >> 1;
    const at = entries[mid]!.seq;
    if (at === seq) return mid;
    if (at < seq) low = mid + 1;
    else high = mid - 1;
  }
  return -1;
}
