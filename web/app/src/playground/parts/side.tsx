import { useSignal } from "@preact/signals";
import { exactTime, roomLabel, roomName } from "../../format.ts";
import { type Playground, reason, type TargetKind } from "../playground.ts";
import { Avatar } from "../../parts/avatar.tsx";

/** The panel on the right: who is here, a push to send, what happened. */
export function Side({ playground }: { playground: Playground }) {
  return (
    <aside class="side" aria-label="Details">
      <Members playground={playground} />
      <PushForm playground={playground} />
      <Log playground={playground} />
    </aside>
  );
}

function Members({ playground }: { playground: Playground }) {
  const room = playground.room.value;
  if (!room) return null;
  return (
    <section class="panel members" aria-labelledby="members-title">
      <h2 id="members-title">
        In {roomLabel(room.name)} <span class="count">{room.complete ? room.uids.length : room.count}</span>
      </h2>
      {room.complete ? (
        <ul>
          {room.uids.map((uid) => (
            <li key={uid}>
              <Avatar name={uid} small />
              <span class="grow">{uid}</span>
              {uid === playground.uid.value && <span class="muted">you</span>}
            </li>
          ))}
        </ul>
      ) : (
        <p class="muted">Larger rooms are counted, not listed.</p>
      )}
    </section>
  );
}

const kinds: [TargetKind, string][] = [
  ["room", "Room"],
  ["user", "Person"],
  ["all", "Everybody"],
];

function PushForm({ playground }: { playground: Playground }) {
  const kind = useSignal<TargetKind>("room");
  const name = useSignal<string | undefined>(undefined);
  const text = useSignal("");
  const busy = useSignal(false);
  const answer = useSignal("");
  const failed = useSignal(false);

  if (!playground.canPush) {
    return (
      <section class="panel" aria-labelledby="push-title">
        <h2 id="push-title">Push</h2>
        <p class="muted">Log in with an API key to push from here.</p>
      </section>
    );
  }

  // Until one types another: the room in view.
  const shown = name.value ?? (kind.value === "room" ? roomLabel(playground.current.value) : "");

  async function submit(event: Event) {
    event.preventDefault();
    if (busy.value) return;
    busy.value = true;
    try {
      await playground.push(kind.value, kind.value === "room" ? roomName(shown) : shown.trim(), text.value);
      failed.value = false;
      answer.value = "Accepted.";
      text.value = "";
    } catch (failure) {
      failed.value = true;
      answer.value = `${reason(failure)}.`;
    } finally {
      busy.value = false;
    }
  }

  return (
    <section class="panel push-form" aria-labelledby="push-title">
      <h2 id="push-title">Push</h2>
      <form onSubmit={submit}>
        <fieldset class="choice">
          <legend class="aside">To</legend>
          {kinds.map(([value, label]) => (
            <label key={value}>
              <input
                type="radio"
                name="push-kind"
                checked={kind.value === value}
                onChange={() => {
                  kind.value = value;
                  name.value = undefined;
                }}
              />
              <span>{label}</span>
            </label>
          ))}
        </fieldset>
        {kind.value !== "all" && (
          <input
            aria-label={kind.value === "room" ? "Room" : "Person"}
            placeholder={kind.value === "room" ? "lobby" : "ann"}
            required
            autocomplete="off"
            autocapitalize="none"
            spellcheck={false}
            value={shown}
            onInput={(e) => (name.value = e.currentTarget.value)}
          />
        )}
        <div class="push-line">
          <input aria-label="Text of the push" placeholder="Say it to them" required maxLength={2000} value={text} onInput={(e) => (text.value = e.currentTarget.value)} />
          <button class="primary" type="submit" disabled={busy.value}>
            Push
          </button>
        </div>
        <p class={failed.value ? "form-error" : "form-ok"} role="status">
          {answer}
        </p>
      </form>
    </section>
  );
}

function Log({ playground }: { playground: Playground }) {
  return (
    <section class="panel log" aria-labelledby="log-title">
      <h2 id="log-title">What happened</h2>
      {/* The newest first, so that nothing needs to be scrolled. */}
      <ol tabIndex={0} aria-label="What happened">
        {[...playground.log.value].reverse().map((entry) => (
          <li key={entry.id} class={entry.kind}>
            <time>{exactTime(entry.at)}</time>
            <span>{entry.text}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}
