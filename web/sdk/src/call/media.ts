import { Emitter } from "../emitter.ts";

export type Slot = "audio" | "camera" | "screen";
export const slots: readonly Slot[] = ["audio", "camera", "screen"];

/**
 * Why there is no sound or picture of one's own:
 * no_webrtc: this browser can't; insecure: the page didn't come over HTTPS; denied: by the person or the system; missing: there is no such device;
 * in_use: another program has it; unplugged: it was, in the middle; failed: none of these.
 */
export type Trouble = "no_webrtc" | "insecure" | "denied" | "missing" | "in_use" | "unplugged" | "failed";

export interface MediaTrouble {
  what: Slot;
  why: Trouble;
}

export interface MediaEvents {
  /** A track came, went, or was switched. */
  change: void;
  trouble: MediaTrouble;
  /** Devices came or went. */
  devices: void;
}

/** Whether this browser and page can make calls at all. */
export function callProblem(): Trouble | undefined {
  if (!("RTCPeerConnection" in globalThis)) return "no_webrtc";
  if (globalThis.isSecureContext === false) return "insecure";
  if (!globalThis.navigator?.mediaDevices?.getUserMedia) return "no_webrtc";
  return undefined;
}

export function troubleOf(error: unknown): Trouble {
  switch ((error as { name?: string } | undefined)?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return "denied";
    case "NotFoundError":
    case "OverconstrainedError":
      return "missing";
    case "NotReadableError":
    case "AbortError":
      return "in_use";
    default:
      return callProblem() ?? "failed";
  }
}

const picture: MediaTrackConstraints = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } };
const sound: MediaTrackConstraints = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/** Microphone, camera and screen of this device, as they are sent. Nothing of it throws: what fails is told as trouble. */
export class LocalMedia extends Emitter<MediaEvents> {
  readonly #tracks = new Map<Slot, MediaStreamTrack>();
  readonly #chosen: { audio?: string; camera?: string } = {};
  #facing: "user" | "environment" = "user";
  #muted = false;
  #closed = false;
  /** Nothing is wanted until devices are opened again: what the browser gives late is let go at once. */
  #resting = false;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #onDevices = () => this.emit("devices", undefined);

  constructor() {
    super();
    globalThis.navigator?.mediaDevices?.addEventListener?.("devicechange", this.#onDevices);
  }

  track(slot: Slot): MediaStreamTrack | null {
    return this.#tracks.get(slot) ?? null;
  }

  /** What the others see and hear. */
  get sends(): { audio: boolean; video: boolean; screen: boolean } {
    return { audio: this.#tracks.has("audio") && !this.#muted, video: this.#tracks.has("camera"), screen: this.#tracks.has("screen") };
  }

  get muted(): boolean {
    return this.#muted;
  }

  /** The devices in use. */
  device(kind: "audio" | "camera"): string {
    return this.#tracks.get(kind)?.getSettings?.().deviceId ?? this.#chosen[kind] ?? "";
  }

  /** Opens the microphone, and the camera if wanted. Whoever has neither can still watch and listen. */
  async open(want: { camera: boolean }): Promise<void> {
    this.#resting = false;
    await this.#inTurn(async () => {
      if (want.camera) {
        // In one question, so that people are asked once.
        try {
          const stream = await this.#get({ audio: this.#sound(), video: this.#picture() });
          for (const track of stream.getTracks()) this.#put(track.kind === "audio" ? "audio" : "camera", track);
          return;
        } catch {
          // Which of the two it was shows one by one.
        }
      }
      await this.#open("audio");
      if (want.camera) await this.#open("camera");
    });
  }

  mute(on: boolean): void {
    if (on === this.#muted && this.#tracks.has("audio")) return;
    this.#muted = on;
    const track = this.#tracks.get("audio");
    if (track) track.enabled = !on;
    else if (!on) void this.#inTurn(() => this.#open("audio"));
    this.emit("change", undefined);
  }

  /** Off means off: the camera's light goes out. */
  async camera(on: boolean): Promise<void> {
    await this.#inTurn(async () => {
      if (on === this.#tracks.has("camera")) return;
      if (on) await this.#open("camera");
      else this.#drop("camera");
    });
  }

  async choose(kind: "audio" | "camera", device: string): Promise<void> {
    this.#chosen[kind] = device;
    await this.#inTurn(async () => {
      if (this.#tracks.has(kind)) await this.#open(kind);
    });
  }

  /** The other camera: that of the other side of a phone, else the next one. */
  async switchCamera(): Promise<void> {
    const cameras = (await this.devices()).filter((d) => d.kind === "videoinput");
    const at = cameras.findIndex((d) => d.deviceId === this.device("camera"));
    const next = cameras[(at + 1) % (cameras.length || 1)];
    this.#facing = this.#facing === "user" ? "environment" : "user";
    const touch = (globalThis.navigator?.maxTouchPoints ?? 0) > 0;
    if (touch) delete this.#chosen.camera;
    else if (next) this.#chosen.camera = next.deviceId;
    await this.#inTurn(async () => {
      if (this.#tracks.has("camera")) await this.#open("camera");
    });
  }

  async screen(on: boolean): Promise<void> {
    // Not in turn: browsers open the choice only as long as they remember the click.
    if (!on) return this.#drop("screen");
    if (this.#tracks.has("screen")) return;
    try {
      const get = globalThis.navigator.mediaDevices.getDisplayMedia;
      if (!get) throw new DOMException("no screen sharing here", "NotSupportedError");
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 15 } }, audio: false });
      const [track] = stream.getVideoTracks();
      if (track) {
        track.contentHint = "detail";
        this.#put("screen", track);
      }
    } catch (error) {
      const why = troubleOf(error);
      // Who closes the choice has changed his mind; that is no trouble.
      if (why !== "denied") this.emit("trouble", { what: "screen", why });
    }
  }

  async devices(): Promise<MediaDeviceInfo[]> {
    try {
      return (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.deviceId !== "");
    } catch {
      return [];
    }
  }

  /** Lets all devices go, until they are opened again. */
  rest(): void {
    this.#resting = true;
    for (const slot of slots) this.#stop(slot);
  }

  close(): void {
    this.#closed = true;
    globalThis.navigator?.mediaDevices?.removeEventListener?.("devicechange", this.#onDevices);
    this.rest();
  }

  #inTurn(task: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(() => (this.#closed || this.#resting ? undefined : task()));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #sound(): MediaTrackConstraints {
    return { ...sound, ...(this.#chosen.audio && { deviceId: { exact: this.#chosen.audio } }) };
  }

  #picture(): MediaTrackConstraints {
    return { ...picture, ...(this.#chosen.camera ? { deviceId: { exact: this.#chosen.camera } } : { facingMode: this.#facing }) };
  }

  async #get(want: MediaStreamConstraints): Promise<MediaStream> {
    const problem = callProblem();
    if (problem) throw new DOMException(problem, "NotSupportedError");
    return navigator.mediaDevices.getUserMedia(want);
  }

  async #open(kind: "audio" | "camera"): Promise<void> {
    if (this.#closed || this.#resting) return;
    try {
      // Phones open one camera at a time: the one before must be let go first.
      if (kind === "camera") this.#stop("camera");
      const stream = await this.#get(kind === "audio" ? { audio: this.#sound() } : { video: this.#picture() });
      const [track] = stream.getTracks();
      if (track) this.#put(kind, track);
    } catch (error) {
      const why = troubleOf(error);
      if (this.#chosen[kind] && why === "missing") {
        // The chosen one is gone; any other will do.
        delete this.#chosen[kind];
        return this.#open(kind);
      }
      this.emit("trouble", { what: kind, why });
      this.emit("change", undefined);
    }
  }

  #put(slot: Slot, track: MediaStreamTrack): void {
    if (this.#closed || this.#resting) return track.stop();
    this.#stop(slot);
    if (slot === "audio") track.enabled = !this.#muted;
    this.#tracks.set(slot, track);
    // Told when the device is unplugged, or the person ends sharing in the browser's own bar; not by stop().
    track.addEventListener("ended", () => {
      if (this.#tracks.get(slot) !== track) return;
      this.#drop(slot);
      if (slot === "screen" || this.#closed) return;
      this.emit("trouble", { what: slot, why: "unplugged" });
      delete this.#chosen[slot];
      // Another one may be there: who talks wants to go on.
      if (slot === "audio") void this.#inTurn(() => this.#open("audio"));
    });
    this.emit("change", undefined);
  }

  #stop(slot: Slot): void {
    const track = this.#tracks.get(slot);
    this.#tracks.delete(slot);
    track?.stop();
  }

  #drop(slot: Slot): void {
    if (!this.#tracks.has(slot)) return;
    this.#stop(slot);
    this.emit("change", undefined);
  }
}
