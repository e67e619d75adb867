/** Texts that were typed on this device and that the server doesn't have: it is out of reach, or they are longer than what it takes. */
export class Drafts {
  readonly #prefix: string;

  constructor(account: string) {
    // Each has a key of its own: other tabs write theirs at the same time.
    this.#prefix = `halley.draft.${account}/`;
  }

  get all(): ReadonlyMap<string, string> {
    return new Map(this.#keys().map((key) => [key.slice(this.#prefix.length), localStorage.getItem(key) ?? ""]));
  }

  /** Keeps a text; undefined: no more. */
  keep(conversation: string, text: string | undefined): void {
    const key = this.#prefix + conversation;
    try {
      if (text === undefined) localStorage.removeItem(key);
      else localStorage.setItem(key, text);
    } catch {
      // It is full: what was kept before would be out of date.
      localStorage.removeItem(key);
    }
  }

  forget(): void {
    for (const key of this.#keys()) localStorage.removeItem(key);
  }

  #keys(): string[] {
    return Array.from({ length: localStorage.length }, (_, i) => localStorage.key(i) ?? "").filter((key) => key.startsWith(this.#prefix));
  }
}
