import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Playground, Received } from "../playground.ts";
import { PushCard } from "./room.tsx";

const shownFor = 6000;

/** Shows what was pushed for a moment, unless the list of pushes is in view. */
export function Toasts({ playground }: { playground: Playground }) {
  const shown = useSignal<Received[]>([]);
  const last = playground.pushes.value.at(-1);

  useEffect(() => {
    if (!last || playground.current.value === "") return;
    shown.value = [...shown.value, last].slice(-3);
    const timer = setTimeout(() => (shown.value = shown.value.filter((push) => push !== last)), shownFor);
    // Not cleared when the next one comes: each has its own time. Only when all is over.
    timers.add(timer);
  }, [last]);
  useEffect(() => () => timers.forEach(clearTimeout), []);

  return (
    <div class="toasts" aria-live="polite">
      {(playground.current.value === "" ? [] : shown.value).map((push) => (
        <button type="button" key={push.id} class="toast" onClick={() => playground.show("")}>
          <PushCard push={push} />
        </button>
      ))}
    </div>
  );
}

const timers = new Set<ReturnType<typeof setTimeout>>();
