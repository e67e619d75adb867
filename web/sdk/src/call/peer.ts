import type * as wire from "../gen/halley/v1/client.ts";
import { type Slot, slots } from "./media.ts";
import type { Budget } from "./stats.ts";

/** What one leg signals to another; the call puts names and generations on it. */
export interface Signal {
  negotiation: number;
  description?: wire.CallDescription;
  candidates?: wire.CallCandidate[];
  done?: boolean;
}

export interface PeerOptions {
  uid: string;
  /** Of the other leg: which connection of his this was negotiated with. */
  generation: number;
  order: number;
  polite: boolean;
  config: RTCConfiguration;
  connect(config: RTCConfiguration): RTCPeerConnection;
  track(slot: Slot): MediaStreamTrack | null;
  /** Sends on; false: it was thrown away. */
  send(signal: Signal): Promise<boolean>;
  /** The connection's state, or what comes in, has changed. */
  changed(): void;
  /** No way through: another connection must be made in its place. */
  hopeless(): void;
}

type Timer = ReturnType<typeof setTimeout>;

/** Candidates are gathered for so long before they go. */
const batchFor = 120;
/** At most so many of them in a signal, which has 16 KiB. */
const batchSize = 40;
/** At most so many of the other side's wait for their description. */
const mostEarly = 400;
const disconnectedFor = 3000;
/** How long a connection may take before it is tried anew. */
const patience = 10_000;
/** Restarts without success before a new connection is made. */
const mostRestarts = 3;

/**
 * Peer is one peer connection to one other leg, by the W3C's perfect negotiation. Each has three transceivers for
 * microphone, camera and screen, in that order, from its first offer on: what is sent then changes without negotiating.
 */
export class Peer {
  readonly uid: string;
  readonly order: number;
  readonly pc: RTCPeerConnection;
  /** What comes of the other one. */
  readonly streams: Record<Slot, MediaStream | undefined> = { audio: undefined, camera: undefined, screen: undefined };
  readonly #o: PeerOptions;
  #generation: number;
  /** The newest that was told, though nothing may have been negotiated with it yet. */
  #seen: number;
  #negotiation = 0;
  /** The newest number of which the other side's description is set: candidates of a newer one wait for it. */
  #remote = 0;
  #early = new Map<number, wire.CallCandidate[]>();
  #waiting = 0;
  #making = false;
  #begun = false;
  /** This side came back: its offer counts. Or the other one did: his does. Else politeness decides. */
  #insist = false;
  #yield = false;
  #again = false;
  #restarts = 0;
  #chain: Promise<unknown> = Promise.resolve();
  #sending: Promise<unknown> = Promise.resolve();
  #batch: wire.CallCandidate[] = [];
  #batchTimer: Timer | undefined;
  #watchdog: Timer | undefined;
  #budget: Budget | undefined;
  #limiting: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: PeerOptions) {
    this.#o = options;
    this.uid = options.uid;
    this.order = options.order;
    this.#generation = this.#seen = options.generation;
    const pc = (this.pc = connect(options));
    pc.onnegotiationneeded = () => {
      // The first offer is begun with begin(), by the one whose it is.
      if (this.#begun) this.#run(() => this.#offer());
    };
    pc.onicecandidate = ({ candidate }) => this.#candidate(candidate);
    pc.ontrack = (event) => this.#track(event);
    pc.onconnectionstatechange = () => this.#state();
    this.#watch(patience * (options.polite ? 1 : 1.5));
  }

  get state(): RTCPeerConnectionState {
    return this.#closed ? "closed" : this.pc.connectionState;
  }

  /** Makes the first offer. fresh: this side came back without what it had, so that its offer counts. */
  begin(fresh = false): void {
    if (fresh) this.#insist = true;
    if (this.#begun) return;
    this.#begun = true;
    for (const slot of slots) {
      const transceiver = this.pc.addTransceiver(slot === "audio" ? "audio" : "video", { direction: "sendrecv" });
      const track = this.#o.track(slot);
      if (track) void transceiver.sender.replaceTrack(track).catch(() => {});
    }
    this.#run(() => this.#offer());
  }

  /** Finds new ways, with new credentials if there are. back: this side comes back and its offer counts. */
  restart(config?: RTCConfiguration, back = false): void {
    if (this.#closed) return;
    try {
      if (config) this.pc.setConfiguration(config);
    } catch {
      // What the operator gave is refused: it goes on with what there was.
    }
    if (back) this.#insist = true;
    if (!this.#begun) {
      if (back) this.begin(true);
      return;
    }
    this.#run(async () => {
      if (this.pc.signalingState === "have-local-offer") {
        if (!this.pc.remoteDescription && back) return this.#o.hopeless();
        await this.pc.setLocalDescription({ type: "rollback" });
      }
      this.pc.restartIce();
      // Browsers tell negotiationneeded then, which may come or not after a rollback: an offer of one's own is sure.
      await this.#offer();
    });
    this.#watch(patience);
  }

  /** The server counts generations anew: it had forgotten the call. */
  renumber(): void {
    this.#generation = this.#seen = 0;
  }

  /** The other leg has another connection: what was asked of the last one has no answer, and its offer comes next. */
  comesBack(generation: number): void {
    if (generation <= this.#seen) return;
    this.#seen = generation;
    this.#yield = true;
    this.#run(async () => {
      if (this.pc.signalingState === "have-local-offer" && this.pc.remoteDescription) {
        await this.pc.setLocalDescription({ type: "rollback" });
        this.#again = true;
      }
    });
    this.#watch(patience);
  }

  /** Whether an offer is for another peer connection than this one: the other side has lost the one that it had. */
  isReplacedBy(signal: Signal, generation: number): boolean {
    if (signal.description?.type !== "offer" || signal.negotiation !== 1) return false;
    if (generation > this.#generation) return true;
    const now = this.pc.remoteDescription?.sdp;
    // A page that is loaded anew while another tab has the connection keeps its generation: its session's id is another one.
    if (now) return originOf(now) !== originOf(signal.description.sdp ?? "");
    // Two first offers met. What a first offer has made can't be taken back without leaving empty places: a new one takes it.
    return this.#begun && this.#givesWay();
  }

  receive(signal: Signal, generation: number): void {
    this.#run(async () => {
      const { negotiation: n, description, candidates = [] } = signal;
      if (description) await this.#description(n, description, generation);
      if (n < this.#remote) return;
      for (const candidate of candidates) {
        if (n <= this.#remote) await this.#add(candidate);
        else if (this.#waiting < mostEarly) {
          this.#waiting++;
          this.#early.set(n, [...(this.#early.get(n) ?? []), candidate]);
        }
      }
    });
  }

  /** Sends what there is now in a place. */
  async put(slot: Slot): Promise<void> {
    const transceiver = this.#transceivers()[slots.indexOf(slot)];
    if (transceiver && this.#begun) await transceiver.sender.replaceTrack(this.#o.track(slot)).catch(() => {});
    if (this.#budget) await this.limit(this.#budget);
  }

  /** Bounds what is sent. */
  limit(b: Budget): Promise<void> {
    this.#budget = b;
    // One after the other: a browser refuses what was read before another change.
    this.#limiting = this.#limiting.then(() => this.#limit(this.#budget ?? b));
    return this.#limiting;
  }

  async #limit(b: Budget): Promise<void> {
    const most: Record<Slot, number> = { audio: b.audio, camera: b.video, screen: b.screen };
    for (const [i, slot] of slots.entries()) {
      const sender = this.#transceivers()[i]?.sender;
      if (!sender?.track) continue;
      try {
        const parameters = sender.getParameters();
        // Before the first negotiation some browsers have none.
        const encoding = parameters.encodings?.[0];
        if (!encoding) continue;
        const scale = slot === "camera" ? b.scale : 1;
        if (encoding.maxBitrate === most[slot] && (slot === "audio" || encoding.scaleResolutionDownBy === scale)) continue;
        encoding.maxBitrate = most[slot];
        if (slot !== "audio") encoding.scaleResolutionDownBy = scale;
        if (slot === "screen") parameters.degradationPreference = "maintain-resolution";
        await sender.setParameters(parameters);
      } catch {
        // It goes on with what the browser finds right.
      }
    }
  }

  /** Loudness of what comes, 0 to 1. */
  get level(): number {
    const [audio] = this.#transceivers();
    const [source] = audio?.receiver.getSynchronizationSources?.() ?? [];
    if (!source) return 0;
    // Since 1970 by the standard; since the page's beginning in some browsers.
    const at = source.timestamp > 1e11 ? source.timestamp : performance.timeOrigin + source.timestamp;
    return at > Date.now() - 1000 ? (source.audioLevel ?? 0) : 0;
  }

  /** The same of what goes out, where the browser tells it. */
  async ownLevel(): Promise<number> {
    let level = 0;
    try {
      const stats = await this.#transceivers()[0]?.sender.getStats();
      stats?.forEach((row: { type: string; audioLevel?: number }) => {
        if (row.type === "media-source") level = Math.max(level, row.audioLevel ?? 0);
      });
    } catch {
      // Closed meanwhile.
    }
    return level;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#batchTimer);
    clearTimeout(this.#watchdog);
    const { pc } = this;
    pc.onnegotiationneeded = pc.onicecandidate = pc.ontrack = pc.onconnectionstatechange = null;
    pc.close();
  }

  // ---- negotiating ----

  /** One thing after the other; what fails shows as media that doesn't connect, which is tried anew. */
  #run(task: () => Promise<void>): void {
    this.#chain = this.#chain.then(() => (this.#closed ? undefined : task())).catch(() => {});
  }

  #transceivers(): RTCRtpTransceiver[] {
    return this.pc.getTransceivers().slice(0, slots.length);
  }

  #givesWay(): boolean {
    if (this.#insist !== this.#yield) return this.#yield;
    return this.#o.polite;
  }

  async #offer(): Promise<void> {
    if (this.pc.signalingState !== "stable") return;
    this.#making = true;
    try {
      await this.pc.setLocalDescription();
      const local = this.pc.localDescription;
      if (!local || local.type !== "offer" || this.#closed) return;
      this.#negotiation++;
      this.#send({ negotiation: this.#negotiation, description: { type: local.type, sdp: local.sdp } });
    } finally {
      this.#making = false;
    }
  }

  async #description(n: number, description: wire.CallDescription, generation: number): Promise<void> {
    const { pc } = this;
    const { type = "", sdp = "" } = description;
    if (type === "answer") {
      if (n !== this.#negotiation || pc.signalingState !== "have-local-offer") return;
      await pc.setRemoteDescription({ type, sdp });
      this.#insist = false;
    } else if (type === "offer") {
      // It came before, or another one overtook it. After a replacement numbers begin anew, but so does the peer.
      if (n <= this.#remote) return;
      const collision = this.#making || pc.signalingState !== "stable";
      if (collision && !this.#givesWay()) return;
      const first = !pc.remoteDescription;
      // A rollback, where one is needed, is part of it.
      await pc.setRemoteDescription({ type, sdp });
      this.#begun = true;
      this.#yield = false;
      this.#generation = Math.max(this.#generation, generation);
      if (first) await this.#fill();
      await pc.setLocalDescription();
      const local = pc.localDescription;
      if (!local || this.#closed) return;
      this.#negotiation = Math.max(this.#negotiation, n);
      this.#send({ negotiation: n, description: { type: local.type, sdp: local.sdp } });
    } else return;
    this.#remote = n;
    this.#negotiation = Math.max(this.#negotiation, n);
    for (const [number, candidates] of [...this.#early]) {
      if (number > n) continue;
      this.#early.delete(number);
      this.#waiting -= candidates.length;
      if (number === n) for (const candidate of candidates) await this.#add(candidate);
    }
    if (this.#budget) await this.limit(this.#budget);
    if (this.#again && type === "offer") {
      this.#again = false;
      await this.#offer();
    }
  }

  /** Puts one's own into the places that the other side's first offer has made. */
  async #fill(): Promise<void> {
    for (const [i, transceiver] of this.#transceivers().entries()) {
      transceiver.direction = "sendrecv";
      const track = this.#o.track(slots[i] as Slot);
      if (track) await transceiver.sender.replaceTrack(track);
    }
  }

  async #add(candidate: wire.CallCandidate): Promise<void> {
    try {
      await this.pc.addIceCandidate({
        candidate: candidate.candidate ?? "",
        sdpMid: candidate.sdpMid ?? null,
        sdpMLineIndex: candidate.sdpMLineIndex ?? null,
        ...(candidate.usernameFragment && { usernameFragment: candidate.usernameFragment }),
      });
    } catch {
      // Of an offer that was ignored, or one that the browser can't use: the others may do.
    }
  }

  #candidate(candidate: RTCIceCandidate | null): void {
    // Empty ones end a generation; the null that follows ends all.
    if (candidate?.candidate === "") return;
    if (candidate) {
      const { candidate: line, sdpMid, sdpMLineIndex, usernameFragment } = candidate;
      this.#batch.push({
        candidate: line,
        ...(sdpMid !== null && { sdpMid }),
        ...(sdpMLineIndex !== null && { sdpMLineIndex }),
        ...(usernameFragment && { usernameFragment }),
      });
      if (this.#batch.length < batchSize) {
        this.#batchTimer ??= setTimeout(() => this.#flush(false), batchFor);
        return;
      }
    }
    this.#flush(candidate === null);
  }

  #flush(done: boolean): void {
    clearTimeout(this.#batchTimer);
    this.#batchTimer = undefined;
    const candidates = this.#batch;
    this.#batch = [];
    if (candidates.length === 0 && !done) return;
    this.#send({ negotiation: this.#negotiation, ...(candidates.length > 0 && { candidates }), ...(done && { done }) });
  }

  /** In order: an answer before its candidates. */
  #send(signal: Signal): void {
    this.#sending = this.#sending.then(() => (this.#closed ? false : this.#o.send(signal))).catch(() => false);
  }

  // ---- what becomes of it ----

  #track({ transceiver, track }: RTCTrackEvent): void {
    const slot = slots[this.pc.getTransceivers().indexOf(transceiver)];
    if (!slot) return;
    this.streams[slot] = new MediaStream([track]);
    this.#o.changed();
  }

  #state(): void {
    const { connectionState } = this.pc;
    if (connectionState === "connected") {
      this.#restarts = 0;
      if (this.#budget) void this.limit(this.#budget);
    } else if (connectionState === "disconnected") this.#watch(disconnectedFor * (this.#o.polite ? 1 : 1.5));
    else if (connectionState === "failed") this.#watch(this.#o.polite ? 0 : 1500);
    this.#o.changed();
  }

  /** Looks after so long whether it is connected and all is answered, and tries anew if not. */
  #watch(after: number): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      if (this.#closed || (this.pc.connectionState === "connected" && this.pc.signalingState === "stable")) return;
      // Whoever came back has had his turn.
      this.#insist = this.#yield = false;
      if (++this.#restarts > mostRestarts || (this.#begun && !this.pc.remoteDescription && this.#restarts > 1)) {
        this.#restarts = 0;
        this.#o.hopeless();
        return;
      }
      if (!this.#begun) this.begin();
      else if (this.pc.remoteDescription) this.restart();
      this.#watch(patience * (this.#o.polite ? 1 : 1.5));
    }, after);
  }
}

/** With servers that the browser can't use it goes without them: neighbours reach each other all the same, unless addresses are to be kept secret. */
function connect({ connect, config }: PeerOptions): RTCPeerConnection {
  try {
    return connect(config);
  } catch {
    return connect({ bundlePolicy: "max-bundle", ...(config.iceTransportPolicy && { iceTransportPolicy: config.iceTransportPolicy }) });
  }
}

/** The session id of an SDP, which is another one for each peer connection. */
function originOf(sdp: string): string {
  return /^o=\S+ (\S+)/m.exec(sdp)?.[1] ?? "";
}
