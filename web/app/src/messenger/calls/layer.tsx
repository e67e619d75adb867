import type { ComponentChildren } from "preact";
import type { CallInfo, MediaTrouble } from "@halley-im/sdk/call";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { t } from "../../i18n/index.ts";
import { callable } from "../../model/calls.ts";
import type { Messenger } from "../../model/messenger.ts";
import type { Conversation } from "../../model/types.ts";
import { Avatar } from "../../parts/avatar.tsx";
import { Camera, Close, Phone } from "../../parts/icons.tsx";
import { notifying } from "../notify.ts";
import { names, openChat, run, toast, useMessenger } from "../ui.ts";
import { callAll } from "./people.tsx";
import { play } from "./tone.ts";
import { CallWindow } from "./window.tsx";

/** What stands above everything else of the page: what rings, and the call that one is in. */
export function CallLayer() {
  const m = useMessenger();
  const { calls } = m;
  useEffect(() => {
    calls.onTrouble = (trouble) => toast(troubleText(trouble), true);
    calls.onOver = (_, reason) => {
      const name = `callOver_${reason}`;
      if (name in over) toast(t(over[name as keyof typeof over]), reason !== "completed");
    };
  }, [calls]);
  const call = calls.call.value;
  const ringing = calls.ringing.value;
  const elsewhere = calls.elsewhere.value;
  return (
    <>
      {call && <CallWindow key={call.id} call={call} />}
      {!call && elsewhere && elsewhere.state !== "ended" && (
        <div class="call-bar" role="status">
          <Phone />
          <span>{t("callElsewhere")}</span>
          <button type="button" class="plain" disabled={calls.beginning.value !== ""} onClick={() => void run(calls.takeOver(elsewhere))}>
            {t("callTake")}
          </button>
        </div>
      )}
      {ringing.length > 0 && (
        <IncomingList>
          {ringing.map((info) => (
            <Incoming key={info.id} info={info} />
          ))}
        </IncomingList>
      )}
    </>
  );
}

const over = {
  callOver_completed: "callOver_completed",
  callOver_declined: "callOver_declined",
  callOver_cancelled: "callOver_cancelled",
  callOver_busy: "callOver_busy",
  callOver_no_answer: "callOver_no_answer",
  callOver_unreachable: "callOver_unreachable",
  callOver_failed_media: "callOver_failed_media",
  callOver_connection_lost: "callOver_connection_lost",
  callOver_ended_by_host: "callOver_ended_by_host",
  callOver_removed: "callOver_removed",
} as const;

export function troubleText({ what, why }: MediaTrouble): string {
  return t(`mediaNone_${what}`, { why: t(`media_${why}`) });
}

/** What a call is called: by its conversation, else by who is in it. */
export function callTitle(m: Messenger, info: CallInfo): string {
  const c = info.conversation ? m.conversation(info.conversation) : undefined;
  if (c && info.kind === "group") return m.title(c);
  return names(
    m,
    info.legs.map((l) => l.uid).filter((uid) => uid !== m.me),
  );
}

/** Above all, over an open dialog as well. Where there is none the focus stays where it is: who types must not decline by it. */
function IncomingList({ children }: { children: ComponentChildren }) {
  const ref = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const element = ref.current;
    if (!element) return;
    if (document.querySelector("dialog:modal")) element.showModal();
    else element.setAttribute("open", "");
    return () => element.close();
  }, []);
  return (
    <dialog ref={ref} class="incoming-list" aria-label={t("callsIncoming")} onCancel={(e) => e.preventDefault()}>
      {children}
    </dialog>
  );
}

function Incoming({ info }: { info: CallInfo }) {
  const m = useMessenger();
  const a = m.people.name(info.caller);
  const group = info.kind === "group" && info.conversation ? callTitle(m, info) : "";
  const text = group ? t("callInGroup", { a, g: group }) : t(info.media === "video" ? "callInVideo" : "callIn", { a });
  useEffect(() => play("incoming"), []);
  useEffect(() => notify(text, info, () => info.conversation && openChat(m, info.conversation)), [text]);
  const answer = (camera: boolean) => {
    if (info.conversation) openChat(m, info.conversation);
    void run(m.calls.answer(info, camera));
  };
  const busy = m.calls.beginning.value !== "";
  return (
    <div class="incoming" role="alertdialog" aria-label={text} data-call={info.id}>
      <span class="incoming-ring">
        <Avatar name={a} of={info.caller} image={m.people.avatar(info.caller)} />
      </span>
      <p class="incoming-text" tabIndex={-1} autoFocus>
        {text}
      </p>
      <div class="incoming-buttons">
        <button type="button" class="call-button bad" aria-label={t("decline")} title={t("decline")} onClick={() => void m.calls.decline(info)}>
          <Close />
        </button>
        {info.media === "video" && (
          <button type="button" class="call-button good" disabled={busy} aria-label={t("answerVideo")} title={t("answerVideo")} onClick={() => answer(true)}>
            <Camera />
          </button>
        )}
        <button
          type="button"
          class="call-button good"
          disabled={busy}
          aria-label={t(info.media === "video" ? "answerAudio" : "answer")}
          title={t(info.media === "video" ? "answerAudio" : "answer")}
          onClick={() => answer(false)}
        >
          <Phone />
        </button>
      </div>
    </div>
  );
}

/** Tells of it where nobody looks at the page. Returns what takes it back. */
function notify(text: string, info: CallInfo, open: () => void): () => void {
  if (!notifying.peek() || (document.visibilityState === "visible" && document.hasFocus())) return () => {};
  try {
    const note = new Notification(text, { tag: `call-${info.id}`, requireInteraction: true, icon: new URL("./icon.svg", document.baseURI).href });
    note.onclick = () => {
      focus();
      open();
      note.close();
    };
    return () => note.close();
  } catch {
    // Some phones have the constructor and let only service workers use it.
    return () => {};
  }
}

/** The buttons in a conversation's head. */
export function CallButtons({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  const { calls } = m;
  if (!calls.possible || !callable(c)) return null;
  const busy = calls.beginning.value !== "" || calls.call.value !== undefined;
  const dial = (media: "audio" | "video") => callAll(m, c, media);
  return (
    <>
      <button type="button" class="icon-button" aria-label={t("callAudio")} title={t("callAudio")} disabled={busy} onClick={() => dial("audio")}>
        <Phone />
      </button>
      <button type="button" class="icon-button" aria-label={t("callVideo")} title={t("callVideo")} disabled={busy} onClick={() => dial("video")}>
        <Camera />
      </button>
    </>
  );
}

/** That a group's call goes on, into which one can come. */
export function CallGoing({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  const { calls } = m;
  const info = calls.live.value.get(c.id);
  if (!info || info.kind !== "group" || calls.call.value?.id === info.id || calls.ringing.value.some((r) => r.id === info.id)) return null;
  const there = info.legs.filter((l) => l.state === "joined" || l.state === "accepted").map((l) => l.uid);
  if (there.length === 0 || there.includes(m.me)) return null;
  return (
    <div class="call-going" role="status">
      <Phone />
      <span class="grow">{t("callGoing", { names: names(m, there) })}</span>
      <button type="button" class="primary" disabled={calls.beginning.value !== ""} onClick={() => void run(calls.answer(info, info.media === "video"))}>
        {t("callJoin")}
      </button>
    </div>
  );
}
