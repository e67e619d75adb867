import { batch, computed, signal } from "@preact/signals";
import type { Contact, Port, Presence, User } from "./types.ts";

/** How long names that are asked for are gathered before the question goes. */
const gather = 20;
const mostAtOnce = 200;

/** Everybody that the user has to do with: profiles, contacts, who is blocked, who is there. */
export class People {
  readonly users = signal<ReadonlyMap<string, User>>(new Map());
  readonly contacts = signal<ReadonlyMap<string, Contact>>(new Map());
  readonly blocked = signal<ReadonlySet<string>>(new Set());
  readonly presences = signal<ReadonlyMap<string, Presence>>(new Map());
  readonly me = computed<User>(() => this.users.value.get(this.#port.uid) ?? { uid: this.#port.uid, name: "", avatar: "" });

  readonly friends = computed(() => [...this.contacts.value.values()].filter((c) => c.state === "accepted"));
  /** Requests that wait for the user's answer, the newest first. */
  readonly asked = computed(() => [...this.contacts.value.values()].filter((c) => c.state === "asked").sort((a, b) => b.changedAt - a.changedAt));
  readonly requested = computed(() => [...this.contacts.value.values()].filter((c) => c.state === "requested").sort((a, b) => b.changedAt - a.changedAt));

  readonly #port: Port;
  /** Whose profile was asked for, answered or not, and when. */
  readonly #known = new Map<string, number>();
  #wanted: string[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(port: Port) {
    this.#port = port;
    this.want([port.uid]);
  }

  /** What to call somebody: the user's own name for him, else his, else his uid. */
  name(uid: string): string {
    const remark = this.contacts.value.get(uid)?.remark;
    if (remark) return remark;
    this.want([uid]);
    return this.users.value.get(uid)?.name || uid;
  }

  avatar(uid: string): string {
    return this.users.value.get(uid)?.avatar ?? "";
  }

  /** Asks for profiles that aren't there yet, or are older than so long: nobody tells when one changes. Many calls make one question. */
  want(uids: string[], oldest = Infinity): void {
    const now = Date.now();
    for (const uid of uids) {
      const asked = this.#known.get(uid);
      if (uid === "" || (asked !== undefined && now - asked <= oldest)) continue;
      this.#known.set(uid, now);
      this.#wanted.push(uid);
    }
    if (this.#wanted.length > 0) this.#timer ??= setTimeout(() => void this.#ask(), gather);
  }

  put(users: User[]): void {
    const all = new Map(this.users.peek());
    for (const user of users) {
      this.#known.set(user.uid, Date.now());
      const old = all.get(user.uid);
      all.set(user.uid, old ? { ...old, ...user } : user);
    }
    this.users.value = all;
  }

  /** Takes what may be out of date: it is asked for all the same. */
  putKept(user: User): void {
    if (!this.users.peek().has(user.uid)) this.users.value = new Map(this.users.peek()).set(user.uid, user);
  }

  putContact(contact: Contact): void {
    const all = new Map(this.contacts.peek());
    if (contact.state === "none") all.delete(contact.uid);
    else all.set(contact.uid, contact);
    this.contacts.value = all;
    this.want([contact.uid]);
  }

  putBlocked(uid: string, on: boolean): void {
    const all = new Set(this.blocked.peek());
    if (on) all.add(uid);
    else all.delete(uid);
    this.blocked.value = all;
  }

  putPresence(presence: Presence): void {
    this.presences.value = new Map(this.presences.peek()).set(presence.uid, presence);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  async #ask(): Promise<void> {
    const uids = this.#wanted.splice(0, mostAtOnce);
    try {
      const users = await this.#port.users(uids);
      batch(() => this.put(users));
    } catch {
      // Uids will do; whoever needs them next asks again.
      for (const uid of uids) this.#known.delete(uid);
    } finally {
      this.#timer = this.#wanted.length > 0 ? setTimeout(() => void this.#ask(), gather) : undefined;
    }
  }
}
