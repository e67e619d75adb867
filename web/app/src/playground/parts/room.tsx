import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { bodyText, duration, exactTime, roomLabel, time } from "../../format.ts";
import type { Line, Playground, Received, Room } from "../playground.ts";
import { Avatar } from "../../parts/avatar.tsx";
import { Bell, Chat, Close, Hash, People, Send } from "../../parts/icons.tsx";

/** The middle: the room in view, or the pushes. */
export function Conversation({ playground }: { playground: Playground }) {
  const room = playground.room.value;
  return (
    <main class="conversation" id="conversation" tabIndex={-1}>
      {room ? <RoomView key={room.name} playground={playground} room={room} /> : <Pushes pushes={playground.pushes.value} />}
    </main>
  );
}

function RoomView({ playground, room }: { playground: Playground; room: Room }) {
  const online = playground.state.value.name === "online";
  return (
    <>
      <header class="conversation-head">
        <Hash />
        <h1>{roomLabel(room.name)}</h1>
        <span class="figure" title={`${room.count} sessions`}>
          <People /> {room.complete ? room.uids.length : room.count}
          <span class="aside"> in this room</span>
        </span>
        <button class="icon-button" type="button" title="Leave this room" aria-label={`Leave ${roomLabel(room.name)}`} onClick={() => void playground.leave(room.name)}>
          <Close />
        </button>
      </header>
      <Lines lines={room.lines} alone={room.count < 2} onAgain={(id) => void playground.sayAgain(id)} />
      <Composer label={roomLabel(room.name)} online={online} onSay={(text) => void playground.say(text)} />
    </>
  );
}

function Lines({ lines, alone, onAgain }: { lines: Line[]; alone: boolean; onAgain(id: string): void }) {
  const list = useScrolled<HTMLDivElement>(lines);
  if (lines.length === 0) {
    return (
      <div class="empty">
        <Chat />
        <p>Nothing said yet.</p>
        <p class="muted">{alone ? "Open this page in a second window, log in under another name, and say hello." : "Somebody is here. Say hello."}</p>
      </div>
    );
  }
  return (
    <div class="lines" ref={list} role="log" aria-label="Messages" tabIndex={0}>
      <ol>
        {lines.map((line, i) => (
          <LineView key={line.id} line={line} follows={follows(lines[i - 1], line)} onAgain={onAgain} />
        ))}
      </ol>
    </div>
  );
}

function LineView({ line, follows, onAgain }: { line: Line; follows: boolean; onAgain(id: string): void }) {
  const pending = line.took === undefined && !line.failed;
  return (
    <li class={`line${line.mine ? " mine" : ""}${follows ? " follows" : ""}${pending ? " pending" : ""}`}>
      {!line.mine && !follows && <Avatar name={line.from} />}
      <div class="bubble-box">
        {!follows && (
          <p class="line-head">
            <strong>{line.mine ? "You" : line.from}</strong>
            <time title={exactTime(line.at)}>{time(line.at)}</time>
          </p>
        )}
        <div class="bubble">
          <p class={typeof line.body === "string" ? "" : "mono"}>{bodyText(line.body)}</p>
        </div>
        <p class="line-foot">
          {line.failed ? (
            <span class="failed">
              Not sent: {line.failed}.{" "}
              <button class="chip" type="button" onClick={() => onAgain(line.id)}>
                Try again
              </button>
            </span>
          ) : (
            <span class="took" title={line.mine ? "Until the server had accepted it" : "From the server to this page"}>
              {pending ? "sending…" : duration(line.took ?? 0)}
            </span>
          )}
        </p>
      </div>
    </li>
  );
}

/** Whether a line is said so shortly after the one before, by the same person, that it needs no name. */
function follows(before: Line | undefined, line: Line): boolean {
  return before !== undefined && before.from === line.from && line.at - before.at < 120_000;
}

function Composer({ label, online, onSay }: { label: string; online: boolean; onSay(text: string): void }) {
  const text = useSignal("");
  const input = useRef<HTMLTextAreaElement>(null);

  useLayoutEffect(() => {
    // On a phone the keyboard would cover half of what one came to read.
    if (matchMedia("(pointer: fine)").matches) input.current?.focus();
  }, []);
  useLayoutEffect(() => {
    const el = input.current;
    if (!el) return;
    el.style.height = "auto";
    el.style.height = `${Math.min(el.scrollHeight, 160)}px`;
  }, [text.value]);

  function say(event: Event) {
    event.preventDefault();
    const said = text.value.trim();
    if (!said) return;
    onSay(said);
    text.value = "";
    input.current?.focus();
  }

  return (
    <form class="composer" onSubmit={say}>
      <textarea
        ref={input}
        rows={1}
        aria-label={`Message to ${label}`}
        placeholder={online ? `Message ${label}` : "Not connected. What you send waits for a moment."}
        maxLength={8000}
        value={text}
        onInput={(e) => (text.value = e.currentTarget.value)}
        onKeyDown={(e) => {
          // Not while an input method composes: there Enter chooses a word.
          if (e.key === "Enter" && !e.shiftKey && !e.isComposing) say(e);
        }}
      />
      <button class="primary icon-button" type="submit" aria-label="Send" disabled={!text.value.trim()}>
        <Send />
      </button>
    </form>
  );
}

function Pushes({ pushes }: { pushes: Received[] }) {
  const list = useScrolled<HTMLDivElement>(pushes);
  return (
    <>
      <header class="conversation-head">
        <Bell />
        <h1>Pushes</h1>
      </header>
      {pushes.length === 0 ? (
        <div class="empty">
          <Bell />
          <p>Nothing pushed yet.</p>
          <p class="muted">Push to a person, a room or everybody from this page, or as your backend would:</p>
          <code>halley push --uid ann --body 'hello'</code>
        </div>
      ) : (
        <div class="lines" ref={list} role="log" aria-label="Pushes" tabIndex={0}>
          <ol>
            {pushes.map((push) => (
              <li class="push" key={push.id}>
                <PushCard push={push} />
              </li>
            ))}
          </ol>
        </div>
      )}
    </>
  );
}

export function PushCard({ push }: { push: Received }) {
  return (
    <article class="push-card">
      <p class="line-head">
        <Bell />
        <strong>{push.from || `Op ${push.op}`}</strong>
        <time title={exactTime(push.at)}>{time(push.at)}</time>
        {push.took !== undefined && (
          <span class="took" title="From the push API to this page">
            {duration(push.took)}
          </span>
        )}
      </p>
      <p class="push-text">{push.text || <em>empty</em>}</p>
    </article>
  );
}

/** Keeps a list at its end while one is there, and leaves it alone while one reads further up. */
function useScrolled<E extends HTMLElement>(what: unknown) {
  const ref = useRef<E>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    const el = ref.current;
    const onScroll = () => {
      if (el) atEnd.current = el.scrollHeight - el.scrollTop - el.clientHeight < 80;
    };
    el?.addEventListener("scroll", onScroll, { passive: true });
    return () => el?.removeEventListener("scroll", onScroll);
  }, [ref.current]);
  useLayoutEffect(() => {
    if (atEnd.current && ref.current) ref.current.scrollTop = ref.current.scrollHeight;
  }, [what]);
  return ref;
}
