import type { Session, State } from "../connection.ts";
import { HalleyError } from "../error.ts";
import type { Conversation } from "./conversation.ts";
import type { UserChange } from "./events.ts";
import { newId, type Outgoing } from "./outgoing.ts";

/** What a tab asks the one that speaks. */
export interface Call {
  method: "add" | "discard" | "read" | "open" | "history" | "markers" | "request" | "retryNow";
  args: unknown[];
}

/** All that a tab needs to show what the others show. */
export interface Snapshot {
  state: State;
  session: Session | undefined;
  conversations: Conversation[];
  changes: UserChange[];
  outgoing: Outgoing[];
  have: Record<string, number>;
}

export interface TabsHost {
  /** This tab speaks from now on, until it is closed. */
  speak(): void;
  /** Another tab asks this one, which speaks. */
  call(call: Call): Promise<unknown>;
  /** The tab that speaks tells something. */
  event(name: string, event: unknown): void;
  /** Undefined if this tab doesn't speak. */
  snapshot(): Snapshot | undefined;
  mirror(snapshot: Snapshot): void;
}

type Message =
  | { t: "hello" }
  | { t: "snapshot"; snapshot: Snapshot }
  | { t: "event"; name: string; event: unknown }
  | { t: "call"; id: string; call: Call }
  | { t: "answer"; id: string; value?: unknown; error?: { code: string; message: string; retry: boolean; retryAfter: number } };

interface Pending {
  call: Call;
  resolve(value: unknown): void;
  reject(error: HalleyError): void;
  timer: ReturnType<typeof setTimeout>;
}

/** Milliseconds in which the tab that speaks must answer. */
const callTimeout = 15_000;

/**
 * Tabs lets one tab speak for all: whoever has the Web Lock of the name. The lock is the browser's: it goes to another
 * tab when its holder is closed, or crashes. They talk over a BroadcastChannel of the same name.
 */
export class Tabs {
  static get possible(): boolean {
    return "BroadcastChannel" in globalThis && "navigator" in globalThis && "locks" in navigator;
  }

  readonly #name: string;
  readonly #host: TabsHost;
  readonly #channel: BroadcastChannel;
  readonly #pending = new Map<string, Pending>();
  readonly #end = new AbortController();
  #speaking = false;

  constructor(name: string, host: TabsHost) {
    this.#name = name;
    this.#host = host;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = (event: MessageEvent<Message>) => void this.#receive(event.data);
  }

  start(): void {
    this.#post({ t: "hello" });
    const { signal } = this.#end;
    navigator.locks
      .request(this.#name, { signal }, () => {
        this.#speaking = true;
        this.#host.speak();
        // What was asked of the tab before and never answered.
        for (const [id, pending] of [...this.#pending]) {
          this.#pending.delete(id);
          clearTimeout(pending.timer);
          this.#host.call(pending.call).then(pending.resolve, pending.reject);
        }
        return new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      })
      .catch(() => {});
  }

  close(): void {
    this.#end.abort();
    this.#channel.close();
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.timer);
      pending.reject(new HalleyError("closed", "closed"));
    }
    this.#pending.clear();
  }

  /** Asks the tab that speaks. */
  call(call: Call): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const id = newId();
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new HalleyError("unknown", "the tab that has the connection doesn't answer"));
      }, callTimeout);
      this.#pending.set(id, { call, resolve, reject, timer });
      this.#post({ t: "call", id, call });
    });
  }

  /** Tells the other tabs, if this one speaks. */
  event(name: string, event: unknown): void {
    this.#post({ t: "event", name, event });
  }

  tell(snapshot: Snapshot): void {
    this.#post({ t: "snapshot", snapshot });
  }

  async #receive(m: Message): Promise<void> {
    if (this.#speaking) {
      if (m.t === "hello") {
        const snapshot = this.#host.snapshot();
        if (snapshot) this.tell(snapshot);
      } else if (m.t === "call") {
        try {
          this.#post({ t: "answer", id: m.id, value: await this.#host.call(m.call) });
        } catch (reason) {
          const { code, message, retry, retryAfter } = reason instanceof HalleyError ? reason : new HalleyError("internal", String(reason));
          this.#post({ t: "answer", id: m.id, error: { code, message, retry, retryAfter } });
        }
      }
      return;
    }
    if (m.t === "event") this.#host.event(m.name, m.event);
    else if (m.t === "snapshot") {
      this.#host.mirror(m.snapshot);
      // Another tab speaks now: it has heard nothing of these.
      for (const [id, pending] of [...this.#pending]) {
        if (pending.call.method !== "request") this.#post({ t: "call", id, call: pending.call });
        else {
          this.#pending.delete(id);
          clearTimeout(pending.timer);
          pending.reject(new HalleyError("unknown", "another tab has taken over the connection"));
        }
      }
    } else if (m.t === "answer") {
      const pending = this.#pending.get(m.id);
      if (!pending) return;
      this.#pending.delete(m.id);
      clearTimeout(pending.timer);
      if (m.error) pending.reject(new HalleyError(m.error.code, m.error.message, m.error));
      else pending.resolve(m.value);
    }
  }

  #post(message: Message): void {
    if (!this.#end.signal.aborted) this.#channel.postMessage(message);
  }
}
