import { batch, signal } from "@preact/signals";
import type { Call, CallInfo, MediaTrouble, Phone, RelayReport } from "@halley-im/sdk/call";
import type { Conversation, Port } from "./types.ts";

/** Who leaves waits no longer for an answer to that. */
const patience = 1000;

/** Whether one may call in a conversation. One of two has no role before anything was said in it. */
export function callable(c: Conversation): boolean {
  return c.type === "direct" || (c.type === "group" && !c.dissolved && c.role !== "none");
}

/** Calls as the messenger shows them: what rings, the one that this page is in, and what goes on elsewhere. */
export class Calls {
  readonly ringing = signal<readonly CallInfo[]>([]);
  readonly call = signal<Call | undefined>(undefined);
  /** Rises with each change of the call: its parts aren't signals. */
  readonly turn = signal(0);
  readonly speaker = signal("");
  /** How loud one is oneself, 0 to 1. */
  readonly level = signal(0);
  /** What of one's own doesn't work, until it does. */
  readonly troubles = signal<readonly MediaTrouble[]>([]);
  /** A call that another device or window of this user is in. */
  readonly elsewhere = signal<CallInfo | undefined>(undefined);
  /** Calls that conversations have. */
  readonly live = signal<ReadonlyMap<string, CallInfo>>(new Map());
  /** The conversation that is being called: the browser may be asking for leave, or the server not have answered. */
  readonly beginning = signal("");

  onTrouble: (trouble: MediaTrouble) => void = () => {};
  onOver: (call: CallInfo, reason: string) => void = () => {};

  readonly #port: Port;
  #phone: Promise<Phone> | undefined;
  #closed = false;
  /** What is being begun, until it is or isn't. */
  #begun: Promise<unknown> = Promise.resolve();

  constructor(port: Port) {
    this.#port = port;
  }

  /** Whether this page can call at all. */
  get possible(): boolean {
    return this.#port.phone !== undefined;
  }

  /** Gets the phone, which rings from then on. */
  wake(): Promise<Phone | undefined> {
    if (this.#closed || !this.#port.phone) return Promise.resolve(undefined);
    this.#phone ??= this.#port.phone().then((phone) => this.#connect(phone));
    return this.#phone.catch(() => {
      this.#phone = undefined;
      return undefined;
    });
  }

  /** Hangs up, and ends it; resolves when the server knows, or after a moment without an answer. */
  async close(): Promise<void> {
    this.#closed = true;
    const phone = await this.#phone?.catch(() => undefined);
    if (!phone) return;
    const hungUp = phone.call?.hangup();
    phone.close();
    // What was being begun is hung up by the phone, as soon as the server has answered.
    await Promise.race([Promise.all([hungUp, this.#begun]), new Promise((resolve) => setTimeout(resolve, patience))]);
  }

  /** Calls all of a conversation, or some of it. */
  async dial(conversation: string, media: "audio" | "video", to?: string[]): Promise<void> {
    await this.#begin(conversation, async (phone) => phone.dial({ conversation, media, ...(to && { to }) }));
  }

  async answer(info: CallInfo, camera: boolean): Promise<void> {
    await this.#begin(info.conversation, async (phone) => {
      // One call at a time: whoever answers leaves the other one.
      void phone.call?.hangup();
      return phone.answer(info.id, { camera });
    });
  }

  async takeOver(info: CallInfo): Promise<void> {
    await this.#begin(info.conversation, async (phone) => phone.takeOver(info.id, { camera: info.media === "video" }));
  }

  async decline(info: CallInfo): Promise<void> {
    (await this.wake())?.decline(info.id);
  }

  /** Asks whether a group's conversation has a call that one could come into. */
  async ask(conversation: string): Promise<void> {
    try {
      if (!this.#phone && !(await this.#port.hasCall?.(conversation))) return;
      const info = await (await this.wake())?.callOf(conversation);
      if (info) this.#see(info);
    } catch {
      // Nothing is shown then.
    }
  }

  /** Leaves. A group's call may go on: then one can come back. */
  async hangUp(call: Call): Promise<void> {
    await call.hangup();
    const { kind, conversation } = call.info;
    if (kind === "group" && conversation) await this.ask(conversation);
  }

  /** Tries the relays that calls may need. */
  async check(): Promise<RelayReport> {
    try {
      return (await this.#port.testRelays?.()) ?? { problem: "unasked", results: [] };
    } catch {
      return { problem: "unasked", results: [] };
    }
  }

  async #begin(conversation: string, how: (phone: Phone) => Promise<Call | undefined>): Promise<void> {
    if (this.beginning.peek() !== "") return;
    this.beginning.value = conversation || "-";
    try {
      const phone = await this.wake();
      if (!phone) throw Object.assign(new Error("calls could not be loaded"), { code: "unavailable" });
      const going = how(phone);
      this.#begun = going.catch(() => {});
      await going;
    } finally {
      this.beginning.value = "";
    }
  }

  #connect(phone: Phone): Phone {
    phone.on("ringing", (ringing) => (this.ringing.value = ringing));
    phone.on("elsewhere", (info) => (this.elsewhere.value = info));
    phone.on("trouble", (trouble) => {
      this.troubles.value = [...this.troubles.peek().filter((other) => other.what !== trouble.what), trouble];
      this.onTrouble(trouble);
    });
    phone.on("seen", (info) => this.#see(info));
    phone.on("over", ({ call, reason }) => {
      this.#see({ ...call, state: "ended" });
      this.onOver(call, reason);
    });
    phone.on("call", (call) => {
      batch(() => {
        this.call.value = call;
        this.turn.value++;
        this.speaker.value = "";
        this.level.value = 0;
        if (!call) this.troubles.value = [];
      });
      call?.on("change", (info) => {
        this.#see(info);
        const left = this.troubles.peek().filter(({ what }) => !call.media.track(what));
        if (left.length < this.troubles.peek().length) this.troubles.value = left;
        this.turn.value++;
      });
      call?.on("levels", ({ levels, speaker }) => {
        this.speaker.value = speaker;
        this.level.value = levels.get(this.#port.uid) ?? 0;
      });
    });
    phone.start();
    return phone;
  }

  #see(info: CallInfo): void {
    if (info.conversation === "") return;
    const old = this.live.peek().get(info.conversation);
    if (old?.id === info.id && old.version >= info.version && info.state !== "ended") return;
    if (info.state === "ended" && (!old || old.id !== info.id)) return;
    const all = new Map(this.live.peek());
    if (info.state === "ended") all.delete(info.conversation);
    else all.set(info.conversation, info);
    this.live.value = all;
  }
}
