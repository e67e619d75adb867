import { t } from "../../i18n/index.ts";
import { length } from "../../i18n/time.ts";
import type { CallRecord } from "../../model/body.ts";

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
