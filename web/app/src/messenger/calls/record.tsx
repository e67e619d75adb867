import { t } from "../../i18n/index.ts";
import type { CallRecord } from "../../model/body.ts";
import { callable } from "../../model/calls.ts";
import type { Conversation } from "../../model/types.ts";
import { Camera, Phone } from "../../parts/icons.tsx";
import { useMessenger } from "../ui.ts";
import { callAll } from "./people.tsx";
import { recordText } from "./words.ts";

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
          onClick={() => callAll(m, c, call.media)}
        >
          {t("callAgain")}
        </button>
      )}
    </p>
  );
}
