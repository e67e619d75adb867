import type { User } from "./types.ts";

/** So many are kept, those that were asked for last. */
const most = 500;

/** Names and pictures that were known when the page was last open: without a connection there would be nothing but ids. */
export class Profiles {
  readonly #key: string;
  readonly #users: Map<string, User>;

  constructor(account: string) {
    this.#key = `halley.profiles.${account}`;
    this.#users = new Map(read(this.#key).map((user) => [user.uid, user]));
  }

  get all(): Iterable<User> {
    return this.#users.values();
  }

  keep(users: User[]): void {
    for (const user of users) {
      this.#users.delete(user.uid);
      this.#users.set(user.uid, user);
    }
    for (const uid of this.#users.keys()) {
      if (this.#users.size <= most) break;
      this.#users.delete(uid);
    }
    try {
      localStorage.setItem(this.#key, JSON.stringify([...this.#users.values()]));
    } catch {
      // It is full; the next visit asks for them again.
    }
  }

  forget(): void {
    localStorage.removeItem(this.#key);
  }
}

function read(key: string): User[] {
  try {
    const all: unknown = JSON.parse(localStorage.getItem(key) ?? "[]");
    return Array.isArray(all) ? (all as User[]).filter((user) => typeof user?.uid === "string") : [];
  } catch {
    return [];
  }
}
