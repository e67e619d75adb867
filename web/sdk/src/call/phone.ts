import { Emitter } from "../emitter.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import { Call, type CallOptions } from "./call.ts";
import { type CallInfo, infoOf, isAsked, isIn, legIn } from "./info.ts";
import { codeOf, type Line, persist, uuid } from "./line.ts";
import { callProblem, LocalMedia, type MediaTrouble } from "./media.ts";

/** What a reload must not forget. */
export interface Kept {
  load(): string | null;
  save(value: string | null): void;
}

export interface PhoneOptions extends Pick<CallOptions, "connect" | "beat"> {
  /** Where to keep the call over a reload of this page [sessionStorage]. */
  kept?: Kept;
  /** Whether this device must not ring; it says so to the caller's side. */
  quiet?: () => boolean;
}

export interface PhoneEvents {
  /** What rings; rings until it isn't among them any more. */
  ringing: readonly CallInfo[];
  /** It doesn't ring any more, and why: answered_elsewhere, declined_elsewhere, cancelled, timeout, removed, ended, answered, declined. */
  stopped: { call: CallInfo; reason: string };
  /** The call that one is in; undefined: none. */
  call: Call | undefined;
  /** A call is over. */
  over: { call: CallInfo; reason: string };
  /** A call that another device or window of this user is in. */
  elsewhere: CallInfo | undefined;
  trouble: MediaTrouble;
  /** A call of which something was heard, whether or not one is in it. */
  seen: CallInfo;
}

export interface Dial {
  /** Of whom all are called, unless `to` says whom. */
  conversation?: string;
  to?: string[];
  media: "audio" | "video";
}

const key = "halley.call";

/** Why a call could not even be begun: `busy_here` while one is in another, `no_webrtc` or `insecure` where this page can have none, `closed` where the phone was closed meanwhile. */
export class CallError extends Error {
  override readonly name = "CallError";
  constructor(
    readonly code: string,
    message = code,
  ) {
    super(message);
  }
}

/** What a page that goes has sent at last is lost unless the browser's network process has read it by then. On a busy machine Chromium lost 4 of 8, with this 1. */
const lingerFor = 100;

/** Keeps the page for a moment. What was asked for by another listener is sent when that returns: so this is a listener of its own, after it. */
function linger(): void {
  for (const end = performance.now() + lingerFor; performance.now() < end; );
}

function sessionKept(): Kept {
  return {
    load: () => {
      try {
        return sessionStorage.getItem(key);
      } catch {
        return null;
      }
    },
    save: (value) => {
      try {
        if (value === null) sessionStorage.removeItem(key);
        else sessionStorage.setItem(key, value);
      } catch {
        // Not after a reload then.
      }
    },
  };
}

/** Phone calls and is called: it rings, answers, and holds the one call that this page is in, over connections and reloads. */
export class Phone extends Emitter<PhoneEvents> {
  readonly #line: Line;
  readonly #options: PhoneOptions;
  readonly #kept: Kept;
  readonly #ringing = new Map<string, { info: CallInfo; timer: ReturnType<typeof setTimeout> }>();
  #call: Call | undefined;
  #beginning = false;
  #closed = false;
  /** Events that came while a call was being begun: its signals may be faster than the reply. */
  #held: wire.Event[] = [];
  #elsewhere: CallInfo | undefined;
  readonly #ended = new Set<string>();
  /** Windows share a connection, and with it a leg, which the server can't tell apart: they tell each other. */
  readonly #windows = "BroadcastChannel" in globalThis && "window" in globalThis ? new BroadcastChannel("halley/call") : undefined;
  #here = false;
  #ends: (() => void)[] = [];

  constructor(line: Line, options: PhoneOptions = {}) {
    super();
    this.#line = line;
    this.#options = options;
    this.#kept = options.kept ?? sessionKept();
  }

  /** Listens from now on. */
  start(): void {
    this.#ends.push(
      this.#line.listen({
        event: (event) => this.take(event),
        session: () => {
          this.#call?.sync();
          void this.#look();
        },
        doubt: () => {
          this.#call?.sync();
          void this.#look();
        },
      }),
    );
    if (this.#windows) {
      this.#windows.onmessage = ({ data }: MessageEvent<{ uid?: string; call?: string }>) => {
        if (data.uid === this.#line.uid && data.call === this.#call?.id) this.#call?.yieldToWindow();
      };
      this.#ends.push(() => this.#windows?.close());
    }
    const leave = () => this.#call?.leaving();
    const leaves = [leave, () => this.#call && linger()];
    for (const one of leaves) globalThis.addEventListener?.("pagehide", one);
    this.#ends.push(() => leaves.forEach((one) => globalThis.removeEventListener?.("pagehide", one)));
  }

  /** Ends it in this page; a call that one is in goes on for its grace, unless it is hung up before. */
  close(): void {
    this.#closed = true;
    for (const end of this.#ends) end();
    for (const id of [...this.#ringing.keys()]) this.#stop(id, "ended");
    this.#call?.leaving();
    this.#call?.close();
  }

  get call(): Call | undefined {
    return this.#call;
  }

  get #busy(): boolean {
    return this.#beginning || (this.#call !== undefined && this.#call.place !== "over");
  }

  get ringing(): readonly CallInfo[] {
    return [...this.#ringing.values()].map((r) => r.info);
  }

  /** Calls somebody. The reply may be about another call than was asked for: that one is gone on with. */
  async dial({ conversation, to, media }: Dial): Promise<Call | undefined> {
    return this.#begin(media === "video", undefined, (sends) => {
      const call = uuid();
      return persist(
        () => this.#line.request("call.invite", { call, ...(conversation && { conversation }), ...(to && { to }), media, sends }),
        () => !this.#closed,
      );
    });
  }

  /** Answers what rings, or comes (late) into a group's call. */
  async answer(id: string, options: { camera: boolean }): Promise<Call | undefined> {
    if (!callProblem() && !this.#busy) this.#stop(id, "answered");
    return this.#begin(options.camera, undefined, (sends) => this.#accept(id, sends, false));
  }

  /** Goes on here with a call that another device of the user is in. */
  async takeOver(id: string, options: { camera: boolean }): Promise<Call | undefined> {
    return this.#begin(options.camera, undefined, (sends) => this.#accept(id, sends, true), true);
  }

  decline(id: string, reason: "declined" | "busy" = "declined"): void {
    this.#stop(id, "declined");
    const command = uuid();
    void persist(
      () => this.#line.request("call.decline", { call: id, command, reason }),
      () => true,
    ).catch(() => {});
  }

  /** The call that a conversation has, whether or not one is in it. */
  async callOf(conversation: string): Promise<CallInfo | undefined> {
    const { calls } = await this.#line.request("call.current", { conversation });
    const found = (calls ?? []).map((r) => infoOf(r.call ?? {})).find((c) => c.conversation === conversation);
    return found && found.state !== "ended" ? found : undefined;
  }

  /** Takes an event that came before the phone listened. */
  take(event: wire.Event): void {
    const incoming = event["call.incoming"];
    if (incoming?.call) {
      this.#incoming(incoming);
      return;
    }
    const stop = event["call.stop"];
    if (stop?.call && stop.reason !== "taken") this.#stop(stop.call, stop.reason ?? "ended");
    const changed = event["call.state"] ?? event["call.ended"];
    if (changed?.call) this.#changed(infoOf(changed.call));
    const leg = event["call.leg"];
    const ring = this.#ringing.get(leg?.call ?? "");
    if (ring && leg?.leg?.uid === this.#line.uid && leg.leg.state !== "invited" && leg.leg.state !== "ringing") this.#stop(ring.info.id, "answered_elsewhere");
    if (this.#call) this.#call.take(event);
    else if (this.#beginning) this.#held = [...this.#held, event].slice(-500);
  }

  #incoming({ call, server_time = 0, resumed }: wire.CallIncoming): void {
    const info = infoOf(call ?? {});
    if (this.#call?.id === info.id) {
      if (resumed) void this.#call.resumed(call ?? {}).catch(() => {});
      return;
    }
    // Whoever isn't in it doesn't ring.
    if (resumed || this.#ended.has(info.id)) return;
    this.#ring(info, server_time);
  }

  #ring(info: CallInfo, serverTime: number): void {
    if (this.#ringing.has(info.id)) return;
    const left = info.ringUntil > 0 && serverTime > 0 ? info.ringUntil - serverTime : 45_000;
    if (left <= 0) return;
    this.emit("seen", info);
    const timer = setTimeout(() => this.#stop(info.id, "timeout"), left);
    this.#ringing.set(info.id, { info, timer });
    this.emit("ringing", this.ringing);
    if (!this.#line.speaks) return;
    const command = uuid();
    const quiet = this.#options.quiet?.() ?? false;
    persist(
      () => this.#line.request("call.ringing", { call: info.id, command, quiet }),
      () => this.#ringing.has(info.id),
    ).then(
      (reply) => reply.call && this.#changed(infoOf(reply.call)),
      (error) => codeOf(error) === "call_unknown" && this.#stop(info.id, "ended"),
    );
  }

  #stop(id: string, reason: string): void {
    const ring = this.#ringing.get(id);
    // A stop may overtake what it stops, where tabs take turns.
    if (reason !== "answered") this.#remember(id, reason);
    if (!ring) return;
    clearTimeout(ring.timer);
    this.#ringing.delete(id);
    this.emit("ringing", this.ringing);
    this.emit("stopped", { call: ring.info, reason });
  }

  #remember(id: string, reason: string): void {
    // Asked again, or a group's call that goes on, rings again.
    if (reason !== "cancelled" && reason !== "ended") return;
    this.#ended.add(id);
    if (this.#ended.size > 100) for (const first of this.#ended) return void this.#ended.delete(first);
  }

  #changed(info: CallInfo): void {
    this.emit("seen", info);
    const ring = this.#ringing.get(info.id);
    if (ring) {
      const own = legIn(info, this.#line.uid);
      if (info.state === "ended") this.#stop(info.id, "ended");
      else if (own && !isAsked(own)) this.#stop(info.id, isIn(own) ? "answered_elsewhere" : "declined_elsewhere");
      else if (info.version > ring.info.version) {
        ring.info = info;
        this.emit("ringing", this.ringing);
      }
    }
    if (this.#call?.id === info.id || this.#beginning) return;
    const own = legIn(info, this.#line.uid);
    if (info.state !== "ended" && isIn(own)) this.#setElsewhere(info);
    else if (this.#elsewhere?.id === info.id) this.#setElsewhere(undefined);
  }

  #setElsewhere(info: CallInfo | undefined): void {
    this.#elsewhere = info;
    this.emit("elsewhere", info);
  }

  /** Asks what one is in and what rings: after each new connection, and at first. */
  async #look(): Promise<void> {
    const connection = this.#line.connection;
    // What begins to ring meanwhile may be younger than the answer.
    const before = [...this.#ringing.keys()];
    let now: wire.CallsNow;
    try {
      now = await persist(
        () => this.#line.request("call.current", {}),
        () => this.#line.connection === connection,
      );
    } catch {
      return;
    }
    const all = now.calls ?? [];
    for (const id of before) if (!all.some((r) => r.call?.call === id && r.rings)) this.#stop(id, "ended");
    let elsewhere: CallInfo | undefined;
    for (const reply of all) {
      const info = infoOf(reply.call ?? {});
      this.emit("seen", info);
      const own = legIn(info, this.#line.uid);
      if (reply.rings) this.#ring(info, reply.server_time ?? 0);
      else if (isIn(own) && info.id !== this.#call?.id && !this.#beginning) {
        const kept = this.#remembered();
        if (kept?.call === info.id && !this.#call) void this.#resume(info.id, kept).catch(() => {});
        else elsewhere = info;
      }
    }
    this.#setElsewhere(elsewhere);
  }

  #remembered(): { call: string; camera: boolean; muted: boolean } | undefined {
    try {
      const kept = JSON.parse(this.#kept.load() ?? "null");
      return typeof kept?.call === "string" ? kept : undefined;
    } catch {
      return undefined;
    }
  }

  /** Goes on after a reload. */
  async #resume(id: string, kept: { camera: boolean; muted: boolean }): Promise<void> {
    // First the leg, then the devices: its grace is 5 s, and people may be asked for their leave again.
    await this.#begin(kept.camera, kept.muted, (sends) => this.#accept(id, sends, true), true);
  }

  #accept(id: string, sends: { audio: boolean; video: boolean }, take: boolean): Promise<wire.CallReply> {
    const command = uuid();
    return persist(
      () => this.#line.request("call.accept", { call: id, command, sends, take }),
      () => !this.#closed,
    );
  }

  async #begin(
    camera: boolean,
    muted: boolean | undefined,
    ask: (sends: { audio: boolean; video: boolean }) => Promise<wire.CallReply>,
    fresh = false,
  ): Promise<Call | undefined> {
    if (this.#busy) throw new CallError("busy_here");
    const problem = callProblem();
    if (problem) throw new CallError(problem);
    this.#beginning = true;
    const media = new LocalMedia();
    media.on("trouble", (trouble) => this.emit("trouble", trouble));
    try {
      if (muted) media.mute(true);
      const opened = media.open({ camera });
      // Who calls or answers is heard at once; who comes back must be quick.
      if (!fresh) await opened;
      if (this.#closed) throw new CallError("closed");
      const { audio, video } = fresh ? { audio: !muted, video: camera } : media.sends;
      const reply = await ask({ audio, video });
      const info = infoOf(reply.call ?? {});
      if (this.#closed) {
        // Nobody is there any more who could end it.
        if (reply.generation) await this.#line.request("call.hangup", { call: info.id, command: uuid() }).catch(() => {});
        throw new CallError("closed");
      }
      if (!reply.generation || info.state === "ended") {
        // A race that was lost: the call is over, or another device has it.
        media.close();
        if (info.state === "ended") this.emit("over", { call: info, reason: info.reason });
        else if (isIn(legIn(info, this.#line.uid))) this.#setElsewhere(info);
        return undefined;
      }
      const { connect, beat } = this.#options;
      // Of a second generation one was in before, though nothing of it may have come here.
      const call = new Call(reply, { line: this.#line, media, ...(connect && { connect }), ...(beat && { beat }) }, fresh || reply.generation > 1);
      this.#call = call;
      this.#setElsewhere(undefined);
      this.#stop(call.id, "answered");
      call.on("change", () => this.#keep(call));
      call.on("over", (reason) => {
        if (this.#call !== call) return;
        this.#call = undefined;
        this.#here = false;
        this.#kept.save(null);
        this.emit("call", undefined);
        this.emit("over", { call: call.info, reason });
      });
      this.#keep(call);
      this.emit("call", call);
      for (const event of this.#held.splice(0)) call.take(event);
      void call.start();
      return call;
    } catch (error) {
      media.close();
      throw error;
    } finally {
      this.#beginning = false;
      this.#held = [];
    }
  }

  #keep(call: Call): void {
    const here = call.place === "here";
    if (here && !this.#here) this.#windows?.postMessage({ uid: this.#line.uid, call: call.id });
    this.#here = here;
    if (here) this.#kept.save(JSON.stringify({ call: call.id, camera: call.sends.video, muted: call.media.muted }));
    else this.#kept.save(null);
  }
}
