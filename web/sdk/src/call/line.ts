import type { Chat } from "../chat/chat.ts";
import type { Client } from "../client.ts";
import type { Method, Params, Result } from "../connection.ts";
import { HalleyError } from "../error.ts";
import { Op } from "../frame.ts";
import type * as wire from "../gen/halley/v1/client.ts";

export interface LineEvents {
  event(event: wire.Event): void;
  /** Another connection than before: the server knows none of what the last one had. */
  session(): void;
  /** Something may have been missed. */
  doubt(): void;
}

/** Line is what calls need of a connection. */
export interface Line {
  readonly uid: string;
  /** Id of the connection; empty: there is none. */
  readonly connection: string;
  /** Whether this page is the one that has the connection: among tabs one speaks for all. */
  readonly speaks: boolean;
  request<M extends Method>(method: M, params: Params<M>): Promise<Result<M>>;
  /** Returns the end of it. */
  listen(events: LineEvents): () => void;
}

/** The line of a chat, whichever tab has its connection, or of a client. */
export function lineOf(of: Chat | Client): Line {
  const isChat = "conversations" in of;
  let last = "";
  return {
    get uid() {
      return of.session?.uid ?? (isChat ? of.uid : "");
    },
    get connection() {
      return of.state.name === "online" ? (of.session?.connection ?? "") : "";
    },
    get speaks() {
      return !isChat || of.speaking;
    },
    request: (method, params) => (isChat ? of.request(method, params) : of.request(method, params, { op: Op.RequestCall })),
    listen: ({ event, session, doubt }) => {
      // Tabs are told the same session more than once.
      const began = (connection: string | undefined) => {
        if (!connection || connection === last) return;
        last = connection;
        session();
      };
      const ends = isChat
        ? [of.on("event", event), of.on("session", (s) => began(s.connection)), of.on("synced", doubt)]
        : [of.on("event", event), of.on("session", (s) => began(s.session.connection)), of.on("resync", doubt)];
      if (of.state.name === "online") queueMicrotask(() => began(of.session?.connection));
      return () => ends.forEach((end) => end());
    },
  };
}

/** The error's code; `internal` for what isn't the server's. */
export function codeOf(error: unknown): string {
  return error instanceof HalleyError ? error.code : "internal";
}

const pauses = [200, 500, 1000, 2000, 4000];

/** Asks again, under the same ids, while that makes sense and going tells so. */
export async function persist<T>(ask: () => Promise<T>, going: () => boolean): Promise<T> {
  for (let i = 0; ; i++) {
    try {
      return await ask();
    } catch (error) {
      const again = error instanceof HalleyError && (error.retry || error.code === "unknown" || error.code === "unavailable");
      if (!again || i >= 12 || !going()) throw error;
      const pause = Math.max(error.retryAfter, pauses[Math.min(i, pauses.length - 1)] as number);
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (!going()) throw error;
    }
  }
}

/** A UUID, where there is no crypto.randomUUID (pages without HTTPS) as well. */
export function uuid(): string {
  const b = crypto.getRandomValues(new Uint8Array(16));
  b[6] = ((b[6] as number) & 0x0f) | 0x40;
  b[8] = ((b[8] as number) & 0x3f) | 0x80;
  const hex = [...b].map((x) => x.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
