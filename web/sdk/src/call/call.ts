import { Emitter } from "../emitter.ts";
import type * as wire from "../gen/halley/v1/client.ts";
import { iceServers, type Servers } from "./ice.ts";
import { type CallInfo, infoOf, isIn, type Leg, legIn, legOf, type Sends } from "./info.ts";
import { type Heard, Levels } from "./levels.ts";
import { codeOf, type Line, persist, uuid } from "./line.ts";
import { LocalMedia, slots } from "./media.ts";
import { Peer } from "./peer.ts";
import { budget, digest, type Quality, qualityOf, type Sums, unknownQuality } from "./stats.ts";

export interface CallOptions {
  line: Line;
  media: LocalMedia;
  /** Makes peer connections; for tests. */
  connect?: (config: RTCConfiguration) => RTCPeerConnection;
  /** Milliseconds between heartbeats and between reports [10,000]. */
  beat?: number;
}

/** How it is with one's own part: here; moved: another device has it; over: the call has ended, or one has left it. */
export type Place = "here" | "moved" | "over";

/** Somebody else, as far as he is connected. */
export interface Remote {
  uid: string;
  state: RTCPeerConnectionState;
  audio: MediaStream | undefined;
  camera: MediaStream | undefined;
  screen: MediaStream | undefined;
  quality: Quality;
}

export interface CallEvents {
  /** Anything that one might show. */
  change: CallInfo;
  levels: Heard;
  /** Why it is over, as the server says, or `hangup` by oneself; moved is told by change. */
  over: string;
}

type Timer = ReturnType<typeof setInterval>;
type Command = "call.accept" | "call.hangup" | "call.cancel" | "call.connected" | "call.update" | "call.add" | "call.remove" | "call.leaving";

const levelEvery = 250;

/** Call is one call that this page is in: its state as the server tells it, and a peer connection to each other leg. */
export class Call extends Emitter<CallEvents> {
  readonly media: LocalMedia;
  readonly #line: Line;
  readonly #connect: (config: RTCConfiguration) => RTCPeerConnection;
  readonly #beatEvery: number;
  #info: CallInfo;
  #generation: number;
  #place: Place = "here";
  #hand = false;
  #hadCamera = false;
  #servers: Servers | undefined;
  #peers = new Map<string, Peer>();
  /** Of peers that aren't there yet, or for a generation that isn't told yet. */
  #early: wire.CallSignalEvent[] = [];
  #fresh: boolean;
  #connected = false;
  #syncing: Promise<void> | undefined;
  #syncAgain = false;
  /** Accepts of which the outcome isn't known: each may have made the generation larger. */
  #unsure = 0;
  #told = "";
  #updating = false;
  #sums = new Map<string, Sums>();
  #quality = new Map<string, Quality>();
  readonly #levels = new Levels();
  #timers: Timer[] = [];
  #renew: ReturnType<typeof setTimeout> | undefined;
  #ends: (() => void)[] = [];

  /** reply: that of the invite or accept by which one is in. fresh: one was in before, on a page that is gone. */
  constructor(reply: wire.CallReply, options: CallOptions, fresh = false) {
    super();
    this.#line = options.line;
    this.media = options.media;
    this.#connect = options.connect ?? ((config) => new RTCPeerConnection(config));
    this.#beatEvery = options.beat ?? 10_000;
    this.#info = infoOf(reply.call ?? {});
    this.#generation = reply.generation ?? 0;
    this.#fresh = fresh;
    const { audio, video } = this.media.sends;
    // Who comes back has told what he means to send, before his devices were open.
    this.#told = fresh ? "" : JSON.stringify({ audio, video, screen: false, hand: false });
  }

  /** Gets it going. Events of the line are to be given to it from now on. */
  async start(): Promise<void> {
    this.#timers.push(
      setInterval(() => void this.#beat(), this.#beatEvery),
      setInterval(() => void this.#report(), this.#beatEvery),
      setInterval(() => this.#listenToAll(), levelEvery),
    );
    this.#ends.push(this.media.on("change", () => this.#mediaChanged()));
    const { connection } = (globalThis.navigator ?? {}) as { connection?: EventTarget };
    const moved = () => this.#restart();
    connection?.addEventListener?.("change", moved);
    globalThis.addEventListener?.("online", moved);
    this.#ends.push(() => {
      connection?.removeEventListener?.("change", moved);
      globalThis.removeEventListener?.("online", moved);
    });
    await this.#takeServers();
    if (this.#place !== "here") return;
    this.#reconcile();
    this.#mediaChanged();
  }

  get id(): string {
    return this.#info.id;
  }

  get info(): CallInfo {
    return this.#info;
  }

  get place(): Place {
    return this.#place;
  }

  get generation(): number {
    return this.#generation;
  }

  get me(): Leg | undefined {
    return legIn(this.#info, this.#line.uid);
  }

  /** What one tells the others that one sends. */
  get sends(): Sends {
    return { ...this.media.sends, hand: this.#hand };
  }

  /** Whether a server stands by where no direct way is. undefined: not known yet. */
  get turn(): boolean | undefined {
    return this.#servers?.turn;
  }

  remote(uid: string): Remote {
    const peer = this.#peers.get(uid);
    const { audio, camera, screen } = peer?.streams ?? {};
    return { uid, state: peer?.state ?? "new", audio, camera, screen, quality: this.#quality.get(uid) ?? unknownQuality };
  }

  /** The peer connections, for those who want to look into them. */
  get connections(): ReadonlyMap<string, RTCPeerConnection> {
    return new Map([...this.#peers].map(([uid, peer]) => [uid, peer.pc]));
  }

  // ---- what one does ----

  /** Leaves; before an answer, takes the call back. It is over here at once; the promise resolves when the server knows. */
  async hangup(): Promise<void> {
    if (this.#place === "over") return;
    const told = this.#command("call.hangup", {}, true);
    this.#over("hangup");
    // Without an answer the leg's lease tells it.
    await told.catch(() => {});
  }

  raiseHand(on: boolean): void {
    this.#hand = on;
    this.#mediaChanged();
  }

  /** Asks more people in. */
  async add(uids: string[]): Promise<void> {
    await this.#command("call.add", { uids });
  }

  /** Puts somebody out; for the caller. */
  async remove(uid: string): Promise<void> {
    await this.#command("call.remove", { uid });
  }

  /** Takes the leg (back) from another device. */
  async takeBack(): Promise<void> {
    if (this.#place !== "moved") return;
    let generation = 0;
    try {
      await this.media.open({ camera: this.#hadCamera });
      generation = (await this.#command("call.accept", { sends: this.#startSends(), take: true })).generation ?? 0;
    } finally {
      // Not had after all: nothing is seen or heard here.
      if (this.place === "moved" && (generation === 0 || this.#info.state === "ended")) this.media.rest();
    }
    if (this.place === "over" && generation > 0) {
      // Closed meanwhile: the leg that nobody waits for any more isn't kept.
      void this.#line.request("call.hangup", { call: this.id, command: uuid() }).catch(() => {});
    }
    if (this.place !== "moved" || generation === 0 || this.#info.state === "ended") return;
    this.#place = "here";
    this.#fresh = true;
    this.#generation = generation;
    this.#told = "";
    this.#reconcile();
    this.#mediaChanged();
  }

  /** Another window that shares this one's connection goes on with it. */
  yieldToWindow(): void {
    this.#moved();
  }

  /** The page goes: it may be a reload. */
  leaving(): void {
    if (this.#place !== "here") return;
    void this.#line.request("call.leaving", { call: this.id, command: uuid(), generation: this.#generation }).catch(() => {});
  }

  /** Closes all that is here without a word to the server. */
  close(): void {
    if (this.#place !== "over") this.#over("closed");
  }

  // ---- what comes ----

  /** Takes an event of the line. */
  take(event: wire.Event): void {
    if (this.#place === "over") return;
    const changed = event["call.state"] ?? event["call.ended"];
    const leg = event["call.leg"];
    const stop = event["call.stop"];
    const signal = event["call.signal"];
    if (changed?.call?.call === this.id) this.#take(infoOf(changed.call));
    else if (leg?.call === this.id && leg.leg) {
      const version = leg.version ?? 0;
      if (version <= this.#info.version) return;
      if (version !== this.#info.version + 1) this.sync();
      const one = legOf(leg.leg);
      const known = this.#info.legs.some((l) => l.uid === one.uid);
      const legs = known ? this.#info.legs.map((l) => (l.uid === one.uid ? one : l)) : [...this.#info.legs, one];
      this.#take({ ...this.#info, legs, version });
    } else if (stop?.call === this.id) {
      // It may mean the connection before this one: what is so is asked.
      if (stop.reason === "taken") this.sync();
      else if (stop.reason === "removed") this.#over("removed");
    } else if (signal?.call === this.id) this.#signal(signal);
  }

  /** Another connection, or something may have been missed: takes the leg again. */
  sync(): void {
    if (this.#place === "over") return;
    if (this.#syncing) {
      this.#syncAgain = true;
      return;
    }
    this.#syncing = this.#sync()
      .catch(() => {
        // The next heartbeat finds out.
      })
      .finally(() => {
        this.#syncing = undefined;
        if (!this.#syncAgain) return;
        this.#syncAgain = false;
        this.sync();
      });
  }

  async #sync(): Promise<void> {
    const { calls } = await persist(
      () => this.#line.request("call.current", {}),
      () => this.#place === "here",
    );
    if (this.#place !== "here") return;
    const found = (calls ?? []).find((r) => r.call?.call === this.id);
    if (found?.call) {
      const own = legIn(infoOf(found.call), this.#line.uid);
      // Whoever took it since is another device: it isn't fetched back unasked.
      if (!found.generation && isIn(own) && (own?.generation ?? 0) > this.#generation + this.#unsure) {
        this.#take(infoOf(found.call));
        this.#moved();
        return;
      }
      if (found.generation === this.#generation) {
        this.#take(infoOf(found.call));
        return;
      }
    }
    try {
      this.#unsure++;
      const reply = await this.#command("call.accept", { sends: this.#startSends(), take: true });
      this.#unsure = 0;
      this.#back(reply);
    } catch (error) {
      if (codeOf(error) === "call_unknown") await this.#revive();
      else if (["forbidden", "not_member", "call_full"].includes(codeOf(error))) this.#over("removed");
      else throw error;
    }
  }

  /** The server lost its memory of the call: it is told anew, while media goes on. */
  async #revive(): Promise<void> {
    const to = this.#info.legs.filter((l) => l.uid !== this.#line.uid && (isIn(l) || this.#peers.has(l.uid))).map((l) => l.uid);
    if (to.length === 0) return this.#over("connection_lost");
    const { conversation } = this.#info;
    const reply = await persist(
      () =>
        this.#line.request("call.invite", {
          call: this.id,
          ...(conversation && { conversation }),
          to,
          media: this.#info.media,
          sends: this.#startSends(),
          resumed: true,
        }),
      () => this.#place === "here",
    );
    this.#anew(reply.call ?? {});
    this.#back(reply);
  }

  /** Whoever gets call.incoming with resumed for a call that he is in accepts at once. */
  async resumed(call: wire.Call): Promise<void> {
    this.#anew(call);
    const reply = await this.#command("call.accept", { sends: this.#startSends() });
    this.#back(reply);
  }

  /** Versions and generations begin from 1 again; what people see goes on. */
  #anew(call: wire.Call): void {
    const { activeAt } = this.#info;
    const info = infoOf(call);
    this.#info = { ...info, activeAt: activeAt || info.activeAt };
    this.#generation = 0;
    this.#connected = false;
    for (const peer of this.#peers.values()) peer.renumber();
  }

  /** The leg is this connection's (again). */
  #back(reply: wire.CallReply): void {
    if (this.#place !== "here" || this.#info.state === "ended") return;
    const generation = reply.generation ?? 0;
    if (generation === 0) {
      if (isIn(this.me)) this.#moved();
      else this.#over(this.me?.reason || "connection_lost");
      return;
    }
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.#told = JSON.stringify({ ...this.#startSends(), screen: false, hand: false });
    this.#mediaChanged();
    // Whoever comes back makes the next offer.
    for (const peer of this.#peers.values()) peer.restart(undefined, true);
    this.#reconcile();
    this.#flushEarly();
    if (this.#anyConnected()) this.#tellConnected();
  }

  #take(info: CallInfo): void {
    if (info.version <= this.#info.version) return;
    this.#info = info;
    if (info.state === "ended") return this.#over(info.reason);
    const own = this.me;
    if (own?.state === "left" || own?.state === "declined") {
      // Hung up from another device, or too long away.
      return this.#over(own.reason || own.state);
    }
    if (this.#place === "here" && own && own.generation > this.#generation + this.#unsure && !this.#syncing) this.sync();
    this.#reconcile();
    this.emit("change", info);
  }

  #signal(s: wire.CallSignalEvent): void {
    const { from = "", generation = 0, to_generation: mine = 0 } = s;
    const leg = legIn(this.#info, from);
    if (mine < this.#generation || (leg && generation < leg.generation)) return;
    if (mine > this.#generation || !this.#servers || !leg || this.#place !== "here") {
      this.#early = [...this.#early, s].slice(-100);
      return;
    }
    let peer = this.#peers.get(from);
    const signal = {
      negotiation: s.negotiation ?? 0,
      ...(s.description && { description: s.description }),
      ...(s.candidates && { candidates: s.candidates }),
    };
    if (!peer || peer.isReplacedBy(signal, generation)) peer = this.#peer({ ...leg, generation });
    peer.receive(signal, generation);
  }

  #flushEarly(): void {
    const early = this.#early;
    this.#early = [];
    for (const signal of early) this.#signal(signal);
  }

  // ---- peers ----

  /** A connection to everybody who is in, none to anybody else. */
  #reconcile(): void {
    if (this.#place !== "here" || !this.#servers) return;
    const own = this.me;
    let changed = false;
    for (const leg of this.#info.legs) {
      if (leg.uid === this.#line.uid) continue;
      const peer = this.#peers.get(leg.uid);
      if (!isIn(leg)) {
        changed = this.#drop(leg.uid) || changed;
      } else if (peer && peer.order === leg.order) peer.comesBack(leg.generation);
      else if (leg.state !== "away" && own && isIn(own)) {
        // Whoever came in later offers first; and whoever comes back without what he had.
        if (this.#fresh || own.order > leg.order) this.#peer(leg).begin(this.#fresh);
        else this.#peer(leg);
        changed = true;
      }
    }
    this.#fresh = false;
    if (changed) this.#limit();
    if (this.#early.length > 0) this.#flushEarly();
  }

  #peer(leg: Leg): Peer {
    this.#drop(leg.uid);
    const peer = new Peer({
      uid: leg.uid,
      generation: leg.generation,
      order: leg.order,
      polite: (this.me?.order ?? 0) > leg.order,
      config: this.#servers?.config ?? {},
      connect: this.#connect,
      track: (slot) => this.media.track(slot),
      send: (signal) => this.#send(leg.uid, signal),
      changed: () => {
        if (peer.state === "connected") this.#tellConnected();
        this.emit("change", this.#info);
      },
      hopeless: () => {
        const now = legIn(this.#info, leg.uid);
        if (this.#place !== "here" || this.#peers.get(leg.uid) !== peer || !now || !isIn(now)) return;
        this.#peer(now).begin(true);
        this.#limit();
      },
    });
    this.#peers.set(leg.uid, peer);
    return peer;
  }

  #drop(uid: string): boolean {
    const peer = this.#peers.get(uid);
    if (!peer) return false;
    peer.close();
    this.#peers.delete(uid);
    this.#sums.delete(uid);
    this.#quality.delete(uid);
    return true;
  }

  async #send(to: string, signal: object): Promise<boolean> {
    const generation = this.#generation;
    const going = () => this.#place === "here" && this.#generation === generation;
    if (!going()) return false;
    try {
      const to_generation = legIn(this.#info, to)?.generation ?? 0;
      const { sent } = await persist(() => this.#line.request("call.signal", { call: this.id, to, generation, to_generation, ...signal }), going);
      return sent ?? false;
    } catch (error) {
      this.#refused(error);
      return false;
    }
  }

  /** A command was refused because the server sees something else than we do. */
  #refused(error: unknown): void {
    const code = codeOf(error);
    if ((code === "call_taken" || code === "call_unknown") && this.#place === "here") this.sync();
  }

  #anyConnected(): boolean {
    return [...this.#peers.values()].some((p) => p.state === "connected");
  }

  #tellConnected(): void {
    if (this.#connected || this.#place !== "here") return;
    this.#connected = true;
    const generation = this.#generation;
    this.#command("call.connected", { generation }).catch(() => {
      this.#connected = false;
      // Asked while the leg was taken again: it has to be told of the one that there is now.
      if (generation !== this.#generation && this.#anyConnected()) this.#tellConnected();
    });
  }

  #restart(): void {
    for (const peer of this.#peers.values()) peer.restart();
  }

  async #takeServers(): Promise<void> {
    const servers = await iceServers(this.#line, Date.now, () => this.#place !== "over");
    if (this.#place === "over") return;
    const renewing = this.#servers !== undefined;
    // Without an answer the old ones are better than none.
    if (!renewing || servers.config.iceServers) this.#servers = servers;
    if (renewing && servers.config.iceServers) for (const peer of this.#peers.values()) peer.restart(servers.config);
    clearTimeout(this.#renew);
    if (servers.renewAt > 0) this.#renew = setTimeout(() => void this.#takeServers(), Math.min(servers.renewAt - Date.now(), 0x7fffffff));
  }

  #limit(): void {
    const b = budget(this.#peers.size, this.media.track("screen") !== null);
    for (const peer of this.#peers.values()) void peer.limit(b);
  }

  #mediaChanged(): void {
    if (this.#place !== "here") return;
    for (const peer of this.#peers.values()) for (const slot of slots) void peer.put(slot);
    this.#limit();
    void this.#update();
    this.emit("change", this.#info);
  }

  /** Tells what is sent now, one thing after the other; what was in between isn't told. */
  async #update(): Promise<void> {
    if (this.#updating) return;
    this.#updating = true;
    try {
      for (let now = this.sends; JSON.stringify(now) !== this.#told && this.#place === "here"; now = this.sends) {
        this.#told = JSON.stringify(now);
        await this.#command("call.update", { sends: now });
      }
    } catch {
      // Told with the next change, or when the leg is taken again.
      this.#told = "";
    } finally {
      this.#updating = false;
    }
  }

  #startSends(): { audio: boolean; video: boolean } {
    const { audio, video } = this.media.sends;
    return { audio, video };
  }

  // ---- now and then ----

  async #beat(): Promise<void> {
    if (this.#place !== "here" || this.#syncing) return;
    const generation = this.#generation;
    try {
      const reply = await this.#line.request("call.heartbeat", { call: this.id, generation });
      if (reply.call) this.#take(infoOf(reply.call));
      if (this.#place === "here" && this.#generation === generation && reply.generation !== generation) this.sync();
    } catch (error) {
      this.#refused(error);
    }
  }

  async #report(): Promise<void> {
    if (this.#place !== "here" || this.#peers.size === 0) return;
    const peers: wire.CallPeerStats[] = [];
    for (const [uid, peer] of [...this.#peers]) {
      if (peer.state !== "connected") continue;
      try {
        const { peer: one, sums } = digest(uid, (await peer.pc.getStats()) as unknown as Iterable<[string, unknown]>, this.#sums.get(uid), Date.now());
        if (this.#peers.get(uid) !== peer) continue;
        this.#sums.set(uid, sums);
        this.#quality.set(uid, qualityOf(one));
        peers.push(one);
      } catch {
        // Closed meanwhile.
      }
    }
    if (peers.length === 0 || this.#place !== "here") return;
    this.emit("change", this.#info);
    await this.#line.request("call.stats", { call: this.id, generation: this.#generation, peers }).catch(() => {});
  }

  #listenToAll(): void {
    if (this.#peers.size > 0) this.emit("levels", this.#levels.now(this.#peers, this.#line.uid, !this.media.sends.audio));
  }

  async #command(method: Command, params: object, last = false): Promise<wire.CallReply> {
    const command = uuid();
    const reply = await persist(
      () => this.#line.request(method, { call: this.id, command, ...params }) as Promise<wire.CallReply>,
      () => last || this.#place !== "over",
    ).catch((error) => {
      if (method !== "call.accept") this.#refused(error);
      throw error;
    });
    if (reply.call && !last) this.#take(infoOf(reply.call));
    return reply;
  }

  #moved(): void {
    if (this.#place !== "here") return;
    this.#place = "moved";
    this.#hadCamera = this.media.sends.video;
    this.media.rest();
    for (const uid of [...this.#peers.keys()]) this.#drop(uid);
    this.emit("change", this.#info);
  }

  #over(reason: string): void {
    if (this.#place === "over") return;
    this.#place = "over";
    for (const timer of this.#timers) clearInterval(timer);
    clearTimeout(this.#renew);
    for (const end of this.#ends) end();
    for (const uid of [...this.#peers.keys()]) this.#drop(uid);
    this.media.close();
    this.emit("change", this.#info);
    this.emit("over", reason);
  }
}
