import { backoff, type BackoffOptions } from "../backoff.ts";
import { HalleyError } from "../error.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import { errorOf, type Outgoing } from "./outgoing.ts";

export interface OutboxHost {
  send(outgoing: Outgoing): Promise<wire.Accepted>;
  /** Something about it changed: it is to be kept, and told. */
  changed(outgoing: Outgoing): void;
  backoff: BackoffOptions;
  random: () => number;
}

interface Item {
  outgoing: Outgoing;
  /** Whether the server's answer is awaited. */
  asked: boolean;
  /** Whether it is to be sent, for the first time or again. */
  due: boolean;
}

interface Lane {
  items: Item[];
  attempt: number;
  timer: ReturnType<typeof setTimeout> | undefined;
}

/**
 * Outbox sends what is to be sent, in each conversation one after the other: the next one goes when the one before was
 * accepted or failed. What was accepted is kept until its outcome is told, so that it can be sent again: under the
 * same id, which the server knows to be the same.
 */
export class Outbox {
  readonly #host: OutboxHost;
  readonly #lanes = new Map<string, Lane>();
  readonly #items = new Map<string, Item>();
  #running = false;

  constructor(host: OutboxHost) {
    this.#host = host;
  }

  /** All that has no place yet, in no particular order. */
  get outgoing(): Outgoing[] {
    return [...this.#items.values()].map((item) => item.outgoing);
  }

  /** Adds something to be sent; one that is known already is left as it is. */
  add(outgoing: Outgoing): void {
    if (this.#items.has(outgoing.id)) return;
    const item: Item = { outgoing, asked: false, due: outgoing.stage !== "failed" };
    this.#items.set(outgoing.id, item);
    if (outgoing.stage === "failed") return;
    const key = laneOf(outgoing);
    let lane = this.#lanes.get(key);
    if (!lane) this.#lanes.set(key, (lane = { items: [], attempt: 0, timer: undefined }));
    lane.items.push(item);
    this.#pump(lane);
  }

  get(id: string): Outgoing | undefined {
    return this.#items.get(id)?.outgoing;
  }

  /** Sends what is due. With again it sends too what was accepted and whose outcome may have been missed. */
  run(again: boolean): void {
    this.#running = true;
    for (const lane of this.#lanes.values()) {
      if (again) for (const item of lane.items) item.due ||= !item.asked;
      clearTimeout(lane.timer);
      lane.timer = undefined;
      lane.attempt = 0;
      this.#pump(lane);
    }
  }

  /** Sends nothing more until run. */
  pause(): void {
    this.#running = false;
    for (const lane of this.#lanes.values()) {
      clearTimeout(lane.timer);
      lane.timer = undefined;
    }
  }

  /** Takes out what has got its place. */
  stored(id: string): Outgoing | undefined {
    return this.#remove(id);
  }

  /** Takes out what is not to be sent. Only what failed, or was never accepted, can be taken back. */
  discard(id: string): Outgoing | undefined {
    const item = this.#items.get(id);
    if (!item || item.asked || item.outgoing.stage === "accepted") return undefined;
    return this.#remove(id);
  }

  /** Marks what was refused for good; it stays in the list. */
  rejected(id: string, error: { code: string; message: string }): void {
    const item = this.#items.get(id);
    if (!item || item.outgoing.stage === "failed") return;
    this.#leaveLane(item);
    this.#change(item, { stage: "failed", error });
  }

  #remove(id: string): Outgoing | undefined {
    const item = this.#items.get(id);
    if (!item) return undefined;
    this.#items.delete(id);
    this.#leaveLane(item);
    return item.outgoing;
  }

  #leaveLane(item: Item): void {
    for (const [key, lane] of this.#lanes) {
      const at = lane.items.indexOf(item);
      if (at < 0) continue;
      lane.items.splice(at, 1);
      if (lane.items.length > 0) {
        if (!item.asked) this.#pump(lane);
      } else {
        clearTimeout(lane.timer);
        this.#lanes.delete(key);
      }
      return;
    }
  }

  #change(item: Item, change: Partial<Outgoing>): void {
    item.outgoing = { ...item.outgoing, ...change } as Outgoing;
    this.#host.changed(item.outgoing);
  }

  #pump(lane: Lane): void {
    if (!this.#running || lane.timer !== undefined || lane.items.some((item) => item.asked)) return;
    const item = lane.items.find((i) => i.due);
    if (item) void this.#send(lane, item);
  }

  async #send(lane: Lane, item: Item): Promise<void> {
    item.asked = true;
    try {
      const accepted = await this.#host.send(item.outgoing);
      item.due = false;
      lane.attempt = 0;
      // Its outcome may have been faster than the answer; and an answer to a repeat says nothing new.
      if (this.#items.get(item.outgoing.id) === item && item.outgoing.stage === "sending") {
        this.#change(item, { stage: "accepted", error: undefined, conversation: item.outgoing.conversation || accepted.conversation || "" });
      }
    } catch (reason) {
      this.#failed(lane, item, reason instanceof HalleyError ? reason : new HalleyError("internal", String(reason)));
    } finally {
      item.asked = false;
      this.#pump(lane);
    }
  }

  #failed(lane: Lane, item: Item, error: HalleyError): void {
    const { stage } = item.outgoing;
    if (this.#items.get(item.outgoing.id) !== item || stage === "failed") return;
    // What concerns the session says nothing of the message.
    if (error.retry || error.isTokenError || error.code === "closed") {
      if (!this.#running) return;
      const wait = backoff(lane.attempt++, this.#host.backoff, error.retryAfter, this.#host.random);
      lane.timer = setTimeout(() => {
        lane.timer = undefined;
        this.#pump(lane);
      }, wait);
      if (stage === "sending") this.#change(item, { error: errorOf(error) });
      return;
    }
    // Refused when it was repeated (he isn't a member any more): what became of the first one nobody will tell. If somebody does, it is
    // found all the same.
    this.#leaveLane(item);
    this.#change(item, { stage: "failed", error: errorOf(error) });
  }
}

function laneOf(outgoing: Outgoing): string {
  return outgoing.conversation || `new ${outgoing.id}`;
}
