// A peer connection, a microphone and a server of calls that exist in memory only.
import { HalleyError } from "../../src/error.ts";
import type { Line, LineEvents } from "../../src/call/line.ts";
import type * as wire from "../../src/gen/halley/v1/client.ts";

/** Enough of RTCPeerConnection for a negotiation: two whose descriptions name each other are connected. */
export class FakePC {
  static all: FakePC[] = [];
  /** Pairs don't connect while it is set. */
  static blocked = false;
  readonly id = String(FakePC.all.push(this));
  signalingState: RTCSignalingState = "stable";
  connectionState: RTCPeerConnectionState = "new";
  localDescription: { type: string; sdp: string } | null = null;
  remoteDescription: { type: string; sdp: string } | null = null;
  candidates: string[] = [];
  restarts = 0;
  offers = 0;
  #stable: [FakePC["localDescription"], FakePC["remoteDescription"]] = [null, null];
  #transceivers: any[] = [];
  #version = 0;
  #restart = false;
  onnegotiationneeded: (() => void) | null = null;
  onicecandidate: ((e: { candidate: object | null }) => void) | null = null;
  ontrack: ((e: object) => void) | null = null;
  onconnectionstatechange: (() => void) | null = null;

  constructor(public config: RTCConfiguration) {}

  addTransceiver(kind: string, init: { direction: string } = { direction: "sendrecv" }): object {
    const t = {
      kind,
      direction: init.direction,
      sender: {
        track: null as unknown,
        encodings: [{}] as { maxBitrate?: number; scaleResolutionDownBy?: number }[],
        replaceTrack: async (track: unknown) => void (t.sender.track = track),
        getStats: async () => new Map([["1", { type: "media-source", audioLevel: 0.4 }]]),
        getParameters: () => ({ encodings: t.sender.encodings }),
        setParameters: async (p: { encodings: [] }) => void (t.sender.encodings = p.encodings),
      },
      receiver: { level: 0, getSynchronizationSources: () => [{ timestamp: Date.now(), audioLevel: t.receiver.level }] },
    };
    this.#transceivers.push(t);
    queueMicrotask(() => this.onnegotiationneeded?.());
    return t;
  }

  getTransceivers(): any[] {
    return this.#transceivers;
  }

  async setLocalDescription(d?: { type: string }): Promise<void> {
    await Promise.resolve();
    if (this.connectionState === "closed") throw new DOMException("closed", "InvalidStateError");
    if (d?.type === "rollback") {
      [this.localDescription, this.remoteDescription] = this.#stable;
      this.signalingState = "stable";
      return;
    }
    const sdp = `v=0\r\no=- ${this.id} ${++this.#version} IN IP4 0.0.0.0\r\n`;
    if (this.signalingState === "have-remote-offer") {
      this.localDescription = { type: "answer", sdp };
      this.#settled();
    } else {
      this.localDescription = { type: "offer", sdp };
      this.signalingState = "have-local-offer";
      this.offers++;
    }
    setTimeout(() => {
      this.onicecandidate?.({ candidate: { candidate: `candidate:${this.id} ${this.#version}`, sdpMid: "0", sdpMLineIndex: 0, usernameFragment: "u" } });
      this.onicecandidate?.({ candidate: null });
    });
  }

  async setRemoteDescription(d: { type: string; sdp: string }): Promise<void> {
    await Promise.resolve();
    if (this.connectionState === "closed") throw new DOMException("closed", "InvalidStateError");
    if (d.type === "answer") {
      if (this.signalingState !== "have-local-offer") throw new DOMException("no offer", "InvalidStateError");
      this.remoteDescription = d;
      this.#settled();
      return;
    }
    if (this.signalingState === "have-local-offer") [this.localDescription] = this.#stable;
    const first = this.remoteDescription === null && this.#transceivers.length === 0;
    this.remoteDescription = d;
    this.signalingState = "have-remote-offer";
    if (first) for (const kind of ["audio", "video", "video"]) this.addTransceiver(kind, { direction: "recvonly" });
    for (const transceiver of this.#transceivers) this.ontrack?.({ transceiver, track: { kind: transceiver.kind } });
  }

  async addIceCandidate(c: { candidate: string }): Promise<void> {
    if (!this.remoteDescription) throw new DOMException("no description", "InvalidStateError");
    this.candidates.push(c.candidate);
  }

  restartIce(): void {
    this.restarts++;
    this.#restart = true;
    if (this.signalingState === "stable") queueMicrotask(() => this.signalingState === "stable" && this.#restart && this.onnegotiationneeded?.());
  }

  setConfiguration(config: RTCConfiguration): void {
    this.config = config;
  }

  async getStats(): Promise<Map<string, object>> {
    return new Map();
  }

  close(): void {
    this.connectionState = "closed";
  }

  /** The other one, if it knows this one as well. */
  get other(): FakePC | undefined {
    const named = (d: { sdp: string } | null) => FakePC.all.find((pc) => pc.id === /^o=- (\d+)/m.exec(d?.sdp ?? "")?.[1]);
    const other = named(this.remoteDescription);
    return other && named(other.remoteDescription) === this ? other : undefined;
  }

  to(state: RTCPeerConnectionState): void {
    if (this.connectionState === state || this.connectionState === "closed") return;
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }

  #settled(): void {
    this.signalingState = "stable";
    this.#restart = false;
    this.#stable = [this.localDescription, this.remoteDescription];
    const { other } = this;
    if (other?.signalingState !== "stable" || FakePC.blocked) return;
    queueMicrotask(() => {
      this.to("connected");
      other.to("connected");
    });
  }
}

export class FakeTrack extends EventTarget {
  enabled = true;
  readyState = "live";
  contentHint = "";
  constructor(
    readonly kind: string,
    readonly device = "default",
  ) {
    super();
  }
  stop(): void {
    this.readyState = "ended";
  }
  getSettings(): { deviceId: string } {
    return { deviceId: this.device };
  }
  /** As when the device is pulled out. */
  unplug(): void {
    this.readyState = "ended";
    this.dispatchEvent(new Event("ended"));
  }
}

interface FakeWish {
  deviceId?: { exact: string };
  facingMode?: string;
}

/** Devices that all work until fail says otherwise. */
export class FakeDevices extends EventTarget {
  fail: { audio?: string; video?: string } = {};
  opened: FakeTrack[] = [];
  /** What there is, by kind and id; "default" is always. */
  list: { kind: string; deviceId: string }[] = [];

  async getUserMedia(want: { audio?: FakeWish; video?: FakeWish }): Promise<object> {
    const kinds = (["audio", "video"] as const).filter((k) => want[k]);
    for (const k of kinds) if (this.fail[k]) throw new DOMException(k, this.fail[k]);
    const tracks = kinds.map((k) => {
      const { deviceId, facingMode } = want[k] ?? {};
      if (deviceId && !this.list.some((d) => d.deviceId === deviceId.exact)) throw new DOMException(k, "OverconstrainedError");
      return new FakeTrack(k, deviceId?.exact ?? (facingMode === "environment" ? "back" : "default"));
    });
    this.opened.push(...tracks);
    return { getTracks: () => tracks };
  }

  async getDisplayMedia(): Promise<object> {
    const track = new FakeTrack("video", "screen");
    this.opened.push(track);
    return { getVideoTracks: () => [track] };
  }

  async enumerateDevices(): Promise<object[]> {
    return this.list;
  }
}

type FakeLeg = wire.CallLeg & { holder?: string };

interface Session {
  uid: string;
  connection: string;
  events: LineEvents;
}

/** A server that knows one call at a time, as far as clients see of it. */
export class FakeServer {
  call: (Omit<wire.Call, "legs"> & { legs: FakeLeg[] }) | undefined;
  sessions = new Map<string, Session>();
  log: { uid: string; method: string; params: any }[] = [];
  /** Signals that are lost, by their place in order. */
  lose: (signal: wire.CallSignalEvent) => boolean = () => false;
  servers: wire.IceServerList = { servers: [{ urls: ["stun:x"] }], turn: true };
  turn = 0;

  /** Somebody connects. */
  line(uid: string): FakeLine {
    return new FakeLine(this, uid);
  }

  count(uid: string, method: string): number {
    return this.log.filter((l) => l.uid === uid && l.method === method).length;
  }

  leg(uid: string): FakeLeg {
    const leg = this.call?.legs.find((l) => l.uid === uid);
    if (!leg) throw new Error(`no leg of ${uid}`);
    return leg;
  }

  view(): wire.Call {
    return JSON.parse(JSON.stringify(this.call, (k, v) => (k === "holder" ? undefined : v)));
  }

  /** Changes the call, and tells all. */
  change(how: (call: NonNullable<FakeServer["call"]>) => void, state?: string): void {
    if (!this.call) return;
    how(this.call);
    if (state) this.call.state = state;
    this.call.version = (this.call.version ?? 0) + 1;
    const event: wire.Event = { [state === "ended" ? "call.ended" : "call.state"]: { call: this.view(), server_time: Date.now() } };
    for (const s of this.sessions.values()) queueMicrotask(() => s.events.event(event));
  }

  tell(uid: string, event: wire.Event): void {
    for (const s of this.sessions.values()) if (s.uid === uid) queueMicrotask(() => s.events.event(event));
  }

  reply(connection: string): wire.CallReply {
    const own = this.call?.legs.find((l) => l.uid === this.sessions.get(connection)?.uid);
    return { call: this.view(), generation: own?.holder === connection ? (own.generation ?? 0) : 0, server_time: Date.now(), rings: own?.state === "invited" || own?.state === "ringing" };
  }

  answer(from: Session, method: string, p: any): any {
    this.log.push({ uid: from.uid, method, params: p });
    const known = this.call && (!p.call || this.call.call === p.call) && this.call.state !== "ended";
    if (method === "ice.servers") return this.servers;
    if (method === "call.current") return { calls: known ? [this.reply(from.connection)] : [] };
    if (method === "call.invite") {
      if (!this.call) {
        const leg: FakeLeg = { uid: from.uid, state: "accepted", generation: 1, order: ++this.turn, holder: from.connection, sends: p.sends };
        const to: string[] = p.to ?? ["bob"];
        this.call = {
          call: p.call, version: 1, kind: to.length > 1 ? "group" : "direct", media: p.media, caller: from.uid, state: "inviting", ring_until: Date.now() + 45_000, limit: 6,
          conversation: p.conversation ?? "",
          legs: [leg, ...to.map((uid) => ({ uid, state: "invited", generation: 0, order: 0, sends: {} }))],
        };
        for (const uid of to) this.tell(uid, { "call.incoming": { call: this.view(), server_time: Date.now(), resumed: p.resumed ?? false } });
      }
      return this.reply(from.connection);
    }
    if (!this.call || this.call.call !== p.call) throw new HalleyError("call_unknown", "unknown");
    const leg = this.leg(from.uid);
    const holds = leg.holder === from.connection;
    switch (method) {
      case "call.ringing":
        this.change(() => (leg.state = "ringing"), "ringing");
        break;
      case "call.accept":
        if (known && !holds && (leg.holder === undefined || p.take)) {
          this.change(() => {
            if (!leg.order) leg.order = ++this.turn;
            Object.assign(leg, { state: leg.state === "joined" ? "joined" : "accepted", generation: (leg.generation ?? 0) + 1, holder: from.connection, sends: p.sends });
          }, this.call.state === "active" ? "active" : "connecting");
        }
        break;
      case "call.signal": {
        if (!holds) throw new HalleyError("call_taken", "taken");
        const to = this.leg(p.to);
        if (p.generation !== leg.generation || p.to_generation !== to.generation) return { sent: false };
        const { call, generation, to_generation, negotiation, description, candidates, done } = p;
        const event = JSON.parse(JSON.stringify({ call, from: from.uid, generation, to_generation, negotiation, description, candidates, done }));
        if (!this.lose(event)) {
          const s = this.sessions.get(to.holder ?? "");
          queueMicrotask(() => s?.events.event({ "call.signal": event }));
        }
        return { sent: true };
      }
      case "call.hangup":
        if (this.call.legs.filter((l) => l.state === "joined").length > 2) {
          this.change(() => Object.assign(leg, { state: "left", reason: "hangup", holder: undefined }), "active");
        } else this.change((c) => (c.reason = "completed"), "ended");
        break;
      case "call.heartbeat":
        break;
      case "call.stats":
        return {};
      default:
        if (!holds) throw new HalleyError("call_taken", "taken");
        if (method === "call.connected" && leg.state === "accepted") {
          this.change(() => (leg.state = "joined"), this.call.legs.filter((l) => l.state === "joined").length > 0 ? "active" : "connecting");
        } else if (method === "call.update") this.change(() => (leg.sends = p.sends), this.call.state);
    }
    return this.reply(from.connection);
  }
}

let connections = 0;

/** A connection to it, which can be made anew. */
export class FakeLine implements Line {
  readonly speaks = true;
  connection = "";
  #events: LineEvents[] = [];

  constructor(
    readonly server: FakeServer,
    readonly uid: string,
  ) {
    this.reconnect();
  }

  reconnect(): void {
    this.server.sessions.delete(this.connection);
    this.connection = `c${++connections}`;
    const all = this.#events;
    this.server.sessions.set(this.connection, {
      uid: this.uid,
      connection: this.connection,
      events: { event: (e) => all.forEach((l) => l.event(e)), session: () => {}, doubt: () => {} },
    });
    for (const l of all) l.session();
  }

  async request(method: any, params: any): Promise<any> {
    await Promise.resolve();
    const session = this.server.sessions.get(this.connection);
    if (!session) throw new HalleyError("unavailable", "not connected");
    return JSON.parse(JSON.stringify(this.server.answer(session, method, params)));
  }

  listen(events: LineEvents): () => void {
    this.#events.push(events);
    queueMicrotask(() => events.session());
    return () => void this.#events.splice(this.#events.indexOf(events), 1);
  }
}
