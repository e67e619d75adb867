// The HTTP API as far as the admin page uses it.
import { ApiError } from "../api.ts";

export interface Found {
  uid: string;
  name: string;
  online: boolean;
  platforms: string[];
  lastSeen: number;
  /** How many sessions there are, and since when; 0: not known. */
  sessions: number;
  since: number;
}

export interface Session {
  uid?: string;
  key: string;
  device?: string;
  platform?: string;
  signed: boolean;
  comet: string;
  connected_at: number;
  remote_addr?: string;
}

export interface Group {
  id: string;
  type: string;
  title?: string;
  announcement?: string;
  owner?: string;
  members: number;
  dissolved?: boolean;
  last_at: number;
}

export interface Member {
  uid: string;
  role: string;
  muted_until?: number;
}

export interface Comet {
  name: string;
  addr: string;
  draining: boolean;
  connections: number;
  rooms: number;
  capacity: number;
}

export interface Cluster {
  version: string;
  comets: Comet[];
}

interface OnlinePage {
  users: { uid: string; platforms: string[]; sessions: number; since: number }[];
  next?: string;
}

const onlinePage = 50;

export class AdminApi {
  readonly #key: string;

  constructor(key: string) {
    this.#key = key;
  }

  cluster(): Promise<Cluster> {
    return this.#call("GET", "v1/cluster");
  }

  /** A page of all who are online. */
  async online(cursor: string): Promise<{ users: Found[]; next: string }> {
    const users: Found[] = [];
    // A page may be short, even empty, and have a next one.
    for (let next = cursor; ; ) {
      const page = await this.#call<OnlinePage>("GET", `v1/presence?limit=${onlinePage - users.length}&cursor=${encodeURIComponent(next)}`);
      users.push(...page.users.map(({ uid, platforms, sessions, since }) => ({ uid, name: "", online: true, platforms, lastSeen: 0, sessions, since })));
      next = page.next ?? "";
      if (next === "" || users.length === onlinePage) return { users, next };
    }
  }

  /** Those whose name or id begins so, and the one whose id is just that, with whether they are there. */
  async people(query: string): Promise<Found[]> {
    const users = await this.#call<{ users: { uid: string; name?: string }[] }>("GET", `v1/users?limit=50&query=${encodeURIComponent(query)}`).then(
      (answer) => answer.users,
      (error: unknown) => {
        // Without a database there are no names; ids can still be looked up.
        if (error instanceof ApiError && [404, 503].includes(error.status)) return [];
        throw error;
      },
    );
    const names = new Map(users.map((u) => [u.uid, u.name ?? ""]));
    const exact = /^[A-Za-z0-9._@:-]{1,64}$/.test(query) && !names.has(query);
    const uids = [...names.keys(), ...(exact ? [query] : [])];
    if (uids.length === 0) return [];
    const { states } = await this.#call<{ states: { uid: string; online: boolean; platforms: string[]; last_seen: number }[] }>("POST", "v1/presence", { uids });
    return states
      .filter((s) => names.has(s.uid) || s.online || s.last_seen > 0)
      .map((s) => ({ uid: s.uid, name: names.get(s.uid) ?? "", online: s.online, platforms: s.platforms, lastSeen: s.last_seen, sessions: 0, since: 0 }))
      .sort((x, y) => Number(y.online) - Number(x.online) || (x.uid < y.uid ? -1 : 1));
  }

  async sessions(uid: string): Promise<Session[]> {
    return (await this.#call<{ sessions: Session[] }>("GET", `v1/sessions?uid=${encodeURIComponent(uid)}`)).sessions;
  }

  async kick(target: { uid: string; revoke?: boolean } | { key: string }): Promise<void> {
    await this.#call("POST", "v1/sessions/kick", target);
  }

  async conversationsOf(uid: string): Promise<Group[]> {
    const page = await this.#call<{ conversations?: Group[] }>("GET", `v1/users/${encodeURIComponent(uid)}/conversations?limit=200`);
    return page.conversations ?? [];
  }

  groups(cursor: string): Promise<{ conversations?: Group[]; next?: string }> {
    return this.#call("GET", `v1/conversations?limit=100&cursor=${encodeURIComponent(cursor)}`);
  }

  group(id: string): Promise<Group> {
    return this.#call("GET", `v1/conversations/${encodeURIComponent(id)}`);
  }

  members(id: string, cursor: string): Promise<{ members: Member[]; next?: string }> {
    return this.#call("GET", `v1/conversations/${encodeURIComponent(id)}/members?limit=100&cursor=${encodeURIComponent(cursor)}`);
  }

  async removeMember(id: string, uid: string): Promise<void> {
    await this.#call("POST", `v1/conversations/${encodeURIComponent(id)}/members/remove`, { members: [uid] });
  }

  async dissolve(id: string): Promise<void> {
    await this.#call("POST", `v1/conversations/${encodeURIComponent(id)}/dissolve`, {});
  }

  broadcast(op: number, text: string, speed: number): Promise<{ id: string }> {
    return this.#call("POST", "v1/push", { all: true, op, text, ...(speed > 0 && { speed }) });
  }

  notify(uids: string[], text: string): Promise<{ id: string }> {
    return this.#call("POST", "v1/push", { uids, json: { text }, durable: true });
  }

  async #call<T>(method: string, path: string, body?: object): Promise<T> {
    const headers: Record<string, string> = { Authorization: `Bearer ${this.#key}` };
    if (body) {
      headers["Content-Type"] = "application/json";
      headers["Idempotency-Key"] = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
    }
    let response: Response;
    try {
      response = await fetch(path, { method, headers, body: body ? JSON.stringify(body) : null, signal: AbortSignal.timeout(15_000) });
    } catch {
      throw new ApiError(0, "unavailable", "The server can’t be reached.");
    }
    const answer = (await response.json().catch(() => ({}))) as { code?: string; detail?: string; title?: string };
    if (!response.ok) throw new ApiError(response.status, answer.code ?? "", answer.detail ?? answer.title ?? `The server answered ${response.status}.`);
    return answer as T;
  }
}
