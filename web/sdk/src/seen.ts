/** Remembers the last ids, to know what comes twice: after a fault in the cluster, or over an old and a new connection. */
export class Seen {
  readonly #ids = new Set<string>();
  readonly #limit: number;

  constructor(limit = 1000) {
    this.#limit = limit;
  }

  /** Returns whether id is new, and remembers it; the oldest is forgotten for it. Empty ids are always new. */
  add(id: string): boolean {
    if (id === "") return true;
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > this.#limit) {
      // A Set iterates in the order of insertion.
      for (const oldest of this.#ids) {
        this.#ids.delete(oldest);
        break;
      }
    }
    return true;
  }
}
