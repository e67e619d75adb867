import { signal, useSignal } from "@preact/signals";
import type { Call, Leg } from "@halley-im/sdk/call";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { t } from "../../i18n/index.ts";
import { length } from "../../i18n/time.ts";
import type { Messenger } from "../../model/messenger.ts";
import { Avatar } from "../../parts/avatar.tsx";
import { Camera, CameraOff, Expand, Gear, Hangup, Mic, MicOff, Minus, PersonPlus, Screen, Shrink, Speaker, Turn, Up } from "../../parts/icons.tsx";
import { type Item, openMenu } from "../parts/menu.tsx";
import { openDialog, run, useMessenger } from "../ui.ts";
import { callTitle, troubleText } from "./layer.tsx";
import { AddToCall } from "./people.tsx";
import { play } from "./tone.ts";

/** After so long without a connection people are told what may be in the way. */
const longWay = 8000;

/** Where others are heard: a device's id; empty: where this machine's sound goes. Kept while the page is open. */
const speaker = signal("");
const canChooseSpeaker = () => "setSinkId" in HTMLMediaElement.prototype;

/** The call that one is in: a window over the page, which can be moved, made small, and fill the screen. */
export function CallWindow({ call }: { call: Call }) {
  const m = useMessenger();
  const box = useRef<HTMLElement>(null);
  const small = useSignal(false);
  const full = useSignal(false);
  // By the server's clock, as the call's times are.
  const now = useSignal(m.port.now());
  const devices = useSignal<MediaDeviceInfo[]>([]);
  const since = useRef(now.value);
  const drag = useDrag(box, !full.value);
  // Its parts aren't signals: all is drawn anew with each change.
  void m.calls.turn.value;

  const { info, place } = call;
  const others = info.legs.filter((l) => l.uid !== m.me && shown(l));
  const title = callTitle(m, info);
  const calling = info.caller === m.me && (info.state === "inviting" || info.state === "ringing");

  useEffect(() => {
    const timer = setInterval(() => (now.value = m.port.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    const look = () => void call.media.devices().then((all) => (devices.value = all));
    look();
    // Their names are told only after the leave to use them.
    const ends = [call.media.on("devices", look), call.media.on("change", look)];
    return () => ends.forEach((end) => end());
  }, [call]);
  useEffect(() => (calling && info.state === "ringing" ? play("waiting") : undefined), [calling, info.state]);
  useEffect(() => {
    const left = () => (full.value = document.fullscreenElement !== null);
    document.addEventListener("fullscreenchange", left);
    return () => {
      document.removeEventListener("fullscreenchange", left);
      if (document.fullscreenElement) void document.exitFullscreen().catch(() => {});
    };
  }, []);

  useLayoutEffect(() => {
    const element = box.current;
    // Who began it by a button goes on here; who writes meanwhile goes on writing.
    if (!document.activeElement?.matches("input, textarea, [contenteditable]")) element?.focus({ preventScroll: true });
    // What had it is gone with the window; the page's beginning is far from where one was.
    return () => setTimeout(() => document.activeElement === document.body && document.getElementById("main")?.focus({ preventScroll: true }));
  }, []);

  const there = others.filter((l) => l.state === "accepted" || l.state === "joined" || l.state === "away").map((l) => l.uid);
  const news = useComings(there, (uid) => m.people.name(uid));

  const fill = () => {
    small.value = false;
    // All of the page, so that menus can stand above it. Some phones can't: there it fills the window.
    const turn = () => void (full.value = !full.value);
    if (document.fullscreenElement) void document.exitFullscreen().catch(() => {});
    else if (full.value || !("requestFullscreen" in document.documentElement)) turn();
    else void document.documentElement.requestFullscreen().catch(turn);
  };
  const connected = others.some((l) => call.remote(l.uid).state === "connected");
  const stuck = !connected && others.some((l) => l.state === "accepted" || l.state === "joined") && now.value - since.current > longWay;
  if (connected) since.current = now.value;
  const talks = place === "here" && statusText(call, connected) === "";
  const { sends, media } = call;
  const worst = others.map((l) => call.remote(l.uid).quality).find((q) => q.level === "poor") ?? (others[0] && call.remote(others[0].uid).quality);

  return (
    <section
      ref={box}
      tabIndex={-1}
      class={`call${small.value ? " small" : ""}${full.value ? " full" : ""}`}
      aria-label={t("callWindow", { a: title })}
      data-state={place === "here" ? info.state : place}
      data-connected={connected}
    >
      <header class="call-head" onPointerDown={drag}>
        <strong class="call-title">{title}</strong>
        <span class="call-status">
          <span role="status">{talks ? <span class="aside">{t("callConnected")}</span> : place === "moved" ? t("callMovedHere") : statusText(call, connected)}</span>
          {/* Beside what is told aloud: else each second would be. */}
          {talks && <span role="timer">{length(now.value - info.activeAt)}</span>}
        </span>
        {worst && connected && (
          <span class={`call-quality ${worst.level}`} title={qualityText(worst)}>
            <i />
            <i />
            <i />
            <span class="aside">{qualityText(worst)}</span>
          </span>
        )}
        <button type="button" class="icon-button small" aria-label={t(small.value ? "callRestore" : "callMinimise")} title={t(small.value ? "callRestore" : "callMinimise")} onClick={() => (small.value = !small.value)}>
          {small.value ? <Up /> : <Minus />}
        </button>
        <button type="button" class="icon-button small" aria-label={t(full.value ? "callNotFull" : "callFull")} title={t(full.value ? "callNotFull" : "callFull")} onClick={fill}>
          {full.value ? <Shrink /> : <Expand />}
        </button>
      </header>
      {info.kind === "group" && (
        <p class="aside" role="status">
          {news}
        </p>
      )}
      <div class="call-tiles" data-n={Math.min(6, others.length + others.filter((l) => l.sends.screen).length)}>
        {others.map((leg) => (
          <Tile key={leg.uid} call={call} leg={leg} messenger={m} direct={info.kind === "direct"} speaks={others.length > 1 && m.calls.speaker.value === leg.uid} />
        ))}
        {sends.video && <Picture class="call-own" track={media.track("camera")} label={t("callYou")} mirrored />}
      </div>
      {m.calls.troubles.value.map((trouble) => (
        <p key={trouble.what} class="call-note">
          {troubleText(trouble)}
        </p>
      ))}
      {(info.ending || (stuck && call.turn === false)) && (
        <p class="call-note" role="alert">
          {info.ending ? t("callEnding") : t("callNoTurn")}
        </p>
      )}
      {place === "moved" ? (
        <footer class="call-buttons">
          <button type="button" class="primary" onClick={() => void run(call.takeBack())}>
            {t("callTake")}
          </button>
          <button type="button" class="secondary" onClick={() => call.close()}>
            {t("close")}
          </button>
        </footer>
      ) : (
        <footer class="call-buttons">
          <MicToggle messenger={m} on={sends.audio} onClick={() => media.mute(sends.audio)} />
          <Toggle on={sends.video} label={t(sends.video ? "callCameraOff" : "callCameraOn")} onClick={() => void media.camera(!sends.video)}>
            {sends.video ? <Camera /> : <CameraOff />}
          </Toggle>
          {"getDisplayMedia" in (navigator.mediaDevices ?? {}) && (
            <Toggle on={!sends.screen} label={t(sends.screen ? "callUnshare" : "callShare")} onClick={() => void media.screen(!sends.screen)}>
              <Screen />
            </Toggle>
          )}
          <button type="button" class="call-button" aria-label={t("callDevices")} title={t("callDevices")} aria-haspopup="menu" onClick={(e) => openMenu(e, t("callDevices"), deviceItems(call, devices.value))}>
            <Gear />
          </button>
          {info.state !== "inviting" && (
            <button type="button" class="call-button" aria-label={t("callAdd")} title={t("callAdd")} onClick={() => openDialog(() => <AddToCall call={call} />)}>
              <PersonPlus />
            </button>
          )}
          <button type="button" class="call-button bad" aria-label={t("hangup")} title={t("hangup")} onClick={() => void m.calls.hangUp(call)}>
            <Hangup />
          </button>
        </footer>
      )}
    </section>
  );
}

/** Who came last, or left: others see it. */
function useComings(there: readonly string[], nameOf: (uid: string) => string): string {
  const news = useSignal("");
  const before = useRef<readonly string[]>(there);
  useEffect(() => {
    const came = there.filter((uid) => !before.current.includes(uid));
    const left = before.current.filter((uid) => !there.includes(uid));
    before.current = there;
    const said = [...came.map((uid) => t("callCame", { a: nameOf(uid) })), ...left.map((uid) => t("callLeft", { a: nameOf(uid) }))];
    if (said.length > 0) news.value = said.join(" ");
  }, [there.join(" ")]);
  return news.value;
}

function Toggle({ on, label, onClick, children }: { on: boolean; label: string; onClick(): void; children: preact.ComponentChildren }) {
  return (
    <button type="button" class={on ? "call-button" : "call-button off"} aria-label={label} title={label} onClick={onClick}>
      {children}
    </button>
  );
}

/** With how loud one is: who is heard sees it, and who isn't as well. */
function MicToggle({ messenger: m, on, onClick }: { messenger: Messenger; on: boolean; onClick(): void }) {
  const label = t(on ? "callMute" : "callUnmute");
  const level = on ? Math.min(1, Math.sqrt(m.calls.level.value)) : 0;
  return (
    <button
      type="button"
      class={on ? "call-button call-mic" : "call-button off"}
      aria-label={label}
      title={label}
      data-heard={level > 0.1}
      style={{ "--level": level.toFixed(2) }}
      onClick={onClick}
    >
      {on ? <Mic /> : <MicOff />}
    </button>
  );
}

/** Whoever has left, or can't come, isn't kept in view; whoever says no is. */
function shown(leg: Leg): boolean {
  return leg.state !== "left" && leg.state !== "cancelled" && leg.state !== "unreachable";
}

/** What there is to wait for; empty: they talk. */
function statusText(call: Call, connected: boolean): string {
  const { state, activeAt } = call.info;
  if (state === "inviting") return t("callCalling");
  if (state === "ringing") return t("callRinging");
  if (state === "reconnecting" || (state === "active" && !connected)) return t("callReconnecting");
  if (state === "connecting" || activeAt === 0) return t("callConnecting");
  return "";
}

function qualityText(q: ReturnType<Call["remote"]>["quality"]): string {
  const text = t(`quality_${q.level}`);
  if (q.path === "unknown") return text;
  return t("qualityMore", { q: text, ms: Math.round(q.roundTrip), loss: (q.loss * 100).toFixed(1), path: t(q.path === "relay" ? "pathRelay" : "pathDirect") });
}

function deviceItems(call: Call, devices: readonly MediaDeviceInfo[]): Item[] {
  const { media } = call;
  const items: Item[] = [];
  for (const d of devices) {
    const a = d.label || d.deviceId.slice(0, 6);
    if (d.kind === "audiooutput") {
      const id = d.deviceId === "default" ? "" : d.deviceId;
      if (canChooseSpeaker()) items.push({ label: t("callSpeakers", { a }), icon: <Speaker />, on: speaker.value === id, run: () => void (speaker.value = id) });
      continue;
    }
    const kind = d.kind === "audioinput" ? "audio" : "camera";
    const label = t(kind === "audio" ? "callMicrophones" : "callCameras", { a });
    items.push({ label, icon: kind === "audio" ? <Mic /> : <Camera />, on: media.device(kind) === d.deviceId, run: () => void media.choose(kind, d.deviceId) });
  }
  if (devices.filter((d) => d.kind === "videoinput").length > 1) items.push({ label: t("callSwitch"), icon: <Turn />, run: () => void media.switchCamera() });
  return items.length > 0 ? items : [{ label: t("media_missing"), run: () => {} }];
}

function legText(leg: Leg, state: RTCPeerConnectionState, direct: boolean): string {
  switch (leg.state) {
    case "invited":
      return direct ? t("callCalling") : t("callInvited");
    case "ringing":
      return t("callRinging");
    case "away":
      return t("callAway");
    case "declined":
      return t("callDeclined");
    case "busy":
      return t("callBusy");
    case "missed":
      return t("callNoAnswer");
    default:
      return state === "connected" ? "" : state === "disconnected" || state === "failed" ? t("callReconnecting") : t("callConnecting");
  }
}

/** Somebody else: his picture, or who he is, and how it is with him. */
function Tile({ call, leg, messenger: m, direct, speaks }: { call: Call; leg: Leg; messenger: Messenger; direct: boolean; speaks: boolean }) {
  const remote = call.remote(leg.uid);
  const name = m.people.name(leg.uid);
  const text = legText(leg, remote.state, direct);
  const there = leg.state === "accepted" || leg.state === "joined";
  const [camera] = remote.camera?.getVideoTracks() ?? [];
  const [screen] = remote.screen?.getVideoTracks() ?? [];
  const seen = there && leg.sends.video && camera;
  return (
    <>
      {there && leg.sends.screen && screen && (
        <figure class="call-tile screen" aria-label={t("callSharing", { a: name })}>
          <Picture track={screen} label={t("callSharing", { a: name })} />
          <figcaption>{t("callSharing", { a: name })}</figcaption>
        </figure>
      )}
      <figure class={`call-tile${speaks ? " speaks" : ""}${there ? "" : " out"}`} data-uid={leg.uid} data-leg={leg.state} data-peer={remote.state}>
        {seen ? <Picture track={camera} label={name} /> : <Avatar name={name} of={leg.uid} image={m.people.avatar(leg.uid)} />}
        {there && remote.audio && <Sound stream={remote.audio} />}
        <figcaption>
          <span class="call-name">{name}</span>
          {there && !leg.sends.audio && (
            <span title={t("callMic", { a: name })}>
              <MicOff />
              <span class="aside">{t("callMic", { a: name })}</span>
            </span>
          )}
          {there && !leg.sends.video && call.info.media === "video" && (
            <span title={t("callCam", { a: name })}>
              <CameraOff />
              <span class="aside">{t("callCam", { a: name })}</span>
            </span>
          )}
          {text && <span class="call-leg">{text}</span>}
        </figcaption>
      </figure>
    </>
  );
}

function Picture({ track, label, mirrored, class: name = "" }: { track: MediaStreamTrack | null; label: string; mirrored?: boolean; class?: string }) {
  const ref = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const video = ref.current;
    if (!video) return;
    video.srcObject = track ? new MediaStream([track]) : null;
    // Without sound browsers let it begin by itself; a second try comes with the next track.
    video.play().catch(() => {});
    return () => {
      video.srcObject = null;
    };
  }, [track]);
  return <video ref={ref} class={`call-picture${mirrored ? " mirrored" : ""}${name ? ` ${name}` : ""}`} aria-label={label} muted autoPlay playsInline />;
}

/** Somebody's voice. After a reload the browser may want a touch before it lets the page sound. */
function Sound({ stream }: { stream: MediaStream }) {
  const ref = useRef<HTMLAudioElement>(null);
  const blocked = useSignal(false);
  const start = () => {
    ref.current?.play().then(
      () => (blocked.value = false),
      (error) => (blocked.value = (error as Error).name === "NotAllowedError"),
    );
  };
  useEffect(() => {
    if (!ref.current) return;
    ref.current.srcObject = stream;
    start();
  }, [stream]);
  useEffect(() => {
    const audio = ref.current;
    if (!audio || !canChooseSpeaker() || audio.sinkId === speaker.value) return;
    // It may be gone: then all goes where it went before.
    audio.setSinkId(speaker.value).catch(() => (speaker.value = ""));
  }, [speaker.value]);
  return (
    <>
      <audio ref={ref} />
      {blocked.value && (
        <button type="button" class="primary call-sound" onClick={start}>
          {t("callPlay")}
        </button>
      )}
    </>
  );
}

/** Lets people move the window about, within the page. */
function useDrag(box: { readonly current: HTMLElement | null }, possible: boolean): (event: PointerEvent) => void {
  const clear = () => {
    const { style } = box.current ?? {};
    if (style) style.left = style.top = style.right = style.bottom = "";
  };
  useEffect(() => {
    if (!possible) clear();
    addEventListener("resize", clear);
    return () => removeEventListener("resize", clear);
  }, [possible]);
  return (event) => {
    const element = box.current;
    if (!possible || !element || event.button !== 0 || (event.target as Element).closest("button")) return;
    const { left, top, width, height } = element.getBoundingClientRect();
    const [dx, dy] = [event.clientX - left, event.clientY - top];
    const head = event.currentTarget as HTMLElement;
    head.setPointerCapture(event.pointerId);
    const move = (e: PointerEvent) => {
      element.style.right = element.style.bottom = "auto";
      element.style.left = `${Math.max(0, Math.min(innerWidth - width, e.clientX - dx))}px`;
      element.style.top = `${Math.max(0, Math.min(innerHeight - height, e.clientY - dy))}px`;
    };
    const end = () => {
      head.removeEventListener("pointermove", move);
      head.removeEventListener("pointerup", end);
      head.removeEventListener("pointercancel", end);
    };
    head.addEventListener("pointermove", move);
    head.addEventListener("pointerup", end);
    head.addEventListener("pointercancel", end);
  };
}
