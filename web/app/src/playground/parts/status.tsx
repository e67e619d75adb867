import { useComputed, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { duration } from "../../format.ts";
import { type Playground, reason } from "../playground.ts";

/** How the connection is, for eyes and screen readers. The countdown is not read out: only changes of state are. */
export function Status({ playground }: { playground: Playground }) {
  const now = useSignal(Date.now());
  const state = playground.state.value;
  const waiting = state.name === "waiting";

  useEffect(() => {
    if (!waiting) return;
    now.value = Date.now();
    const timer = setInterval(() => (now.value = Date.now()), 200);
    return () => clearInterval(timer);
  }, [waiting]);

  const left = useComputed(() => {
    const s = playground.state.value;
    return s.name === "waiting" ? Math.max(0, Math.ceil((s.until - now.value) / 1000)) : 0;
  });
  const trip = playground.roundTrip.value;

  return (
    <div class={`status ${state.name}`}>
      <span class="dot" aria-hidden="true" />
      <span role="status" data-state={state.name}>
        {state.name === "online" && (state.moving ? "Moving" : "Online")}
        {state.name === "connecting" && "Connecting"}
        {waiting && <span title={reason(state.error)}>Reconnecting</span>}
        {state.name === "closed" && "Disconnected"}
      </span>
      {state.name === "online" && trip !== undefined && (
        <span class="figure" title="Round trip of the last heartbeat">
          {duration(trip)}
        </span>
      )}
      {waiting && (
        <>
          <span class="figure" aria-hidden="true">
            in {left} s
          </span>
          <button class="chip" type="button" onClick={() => playground.retryNow()}>
            Now
          </button>
        </>
      )}
    </div>
  );
}
