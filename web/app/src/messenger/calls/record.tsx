import { t } from "../../i18n/index.ts";
import { length } from "../../i18n/time.ts";
import type { CallRecord } from "../../model/body.ts";
import { callable } from "../../model/calls.ts";
import type { Conversation } from "../../model/types.ts";
import { Camera, Phone } from "../../parts/icons.tsx";
import { run, useMessenger } from "../ui.ts";

/** What a call was, in a few words. mine: it was the user who called. */
export function recordText(call: CallRecord, mine: boolean): string {
  switch (call.outcome) {
    case "answered":
      return t(call.media === "video" ? "callAnsweredVideo" : "callAnswered", { t: length(call.duration) });
    case "missed":
      return t(!mine ? "callMissed" : call.reason === "cancelled" ? "callCancelled" : "callNoAnswer");
    case "declined":
      return t("callDeclined");
    case "busy":
      return t(mine ? "callBusy" : "callMissed");
    default:
      return t("callFailed");
  }
}

/** A call in its conversation, with what calls back. */
export function Record({ call, conversation: c, mine }: { call: CallRecord; conversation: Conversation; mine: boolean }) {
  const m = useMessenger();
  const missed = !mine && (call.outcome === "missed" || call.outcome === "busy");
  const can = m.calls.possible && callable(c);
  return (
    <p class={missed ? "call-record missed" : "call-record"}>
      {call.media === "video" ? <Camera /> : <Phone />}
      <span>{recordText(call, mine)}</span>
      {can && (
        <button
          type="button"
          class="plain"
          disabled={m.calls.call.value !== undefined || m.calls.beginning.value !== ""}
          onClick={() => void run(m.calls.dial(c.id, call.media))}
        >
          {t("callAgain")}
        </button>
      )}
    </p>
  );
}
