import type { Client } from "../client.ts";
import type { HalleyError } from "../error.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import type { Conversation } from "./conversation.ts";
import type { Log } from "./log.ts";

/** What is known of a conversation. */
export interface Held {
  conversation: Conversation;
  log: Log;
  pulling: boolean;
  marking: boolean;
  markTimer: ReturnType<typeof setTimeout> | undefined;
  /** Markers that the server has. */
  toldRead: number;
  toldDelivered: number;
}

export interface MarksHost {
  client: Client;
  /** Whether it is still what it was, and the server can be told. */
  holds(held: Held): boolean;
  /** Whether it is to be told what was delivered. */
  direct(held: Held): boolean;
  update(held: Held, conversation: Conversation): void;
  wait(retryAfter: number): number;
}

/** Marks tells the server how far this user is: what he has read, until it knows, and what was delivered. */
export class Marks {
  readonly #host: MarksHost;

  constructor(host: MarksHost) {
    this.#host = host;
  }

  /** Tells what isn't told yet; markers that come meanwhile go together. */
  mark(held: Held): void {
    if (held.marking || !this.#host.holds(held)) return;
    const c = held.conversation;
    const got = this.#host.direct(held) && held.markTimer === undefined ? held.log.have : 0;
    const params: wire.ConversationRead = { conversation: c.id };
    if (c.wantRead > held.toldRead) params.read_seq = c.wantRead;
    if (got > Math.max(held.toldDelivered, held.toldRead, c.wantRead, c.deliveredSeq)) params.delivered_seq = got;
    if (!params.read_seq && !params.delivered_seq) return;
    held.marking = true;
    const settle = () => {
      held.toldRead = Math.max(held.toldRead, params.read_seq ?? 0);
      held.toldDelivered = Math.max(held.toldDelivered, params.delivered_seq ?? 0, held.toldRead);
      held.marking = false;
      const now = held.conversation;
      if (now.wantRead && now.wantRead <= held.toldRead) this.#host.update(held, { ...now, wantRead: 0 });
      this.mark(held);
    };
    this.#host.client.request("conversation.read", params).then(settle, (error: HalleyError) => {
      if (!error.retry && !error.isTokenError && error.code !== "closed") return settle();
      held.marking = false;
      held.markTimer ??= setTimeout(() => {
        held.markTimer = undefined;
        this.mark(held);
      }, this.#host.wait(error.retryAfter));
    });
  }
}
