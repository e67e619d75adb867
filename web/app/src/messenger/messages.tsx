import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Rows, type VirtualizerHandle } from "./parts/list.tsx";
import { t } from "../i18n/index.ts";
import { dayName, exact } from "../i18n/time.ts";
import { contentOf } from "../model/body.ts";
import type { Open } from "../model/messenger.ts";
import type { Row } from "../model/rows.ts";
import type { Conversation, Entry } from "../model/types.ts";
import { Avatar } from "../parts/avatar.tsx";
import { Down, Up } from "../parts/icons.tsx";
import { Bubble, OutgoingBubble } from "./bubble.tsx";
import { changeText } from "./preview.ts";
import { openChat, said, useMessenger, wanted } from "./ui.ts";

/** From here to an end, more is loaded. */
const near = 1200;
/** Nearer to the end than this counts as standing at it. */
const atEndWithin = 60;
const flashFor = 1600;

/** The messages of the conversation in view: a list of any length, of which what is in view is in the document. */
export function Messages({ open, conversation: c }: { open: Open; conversation: Conversation }) {
  const m = useMessenger();
  const scroller = useRef<HTMLDivElement>(null);
  const list = useRef<VirtualizerHandle>(null);
  const rows = open.rows.value;
  const { window } = open;
  const shifts = window.shifts.value;
  const lastShift = useRef(0);
  const stuck = useRef(true);
  const away = useSignal(false);
  const newBelow = useSignal(0);
  const flash = useSignal(0);
  const unreadAbove = useSignal(open.unread > 5 ? open.unread : 0);
  const firstMention = useRef(c.firstMention);
  const mentionAbove = useSignal(c.firstMention > 0);
  const begun = useRef(false);
  const scrolled = useRef(false);
  const lastKey = useRef("");
  const loading = window.loading.value;
  const empty = useComputed(() => open.rows.value.length === 0 && open.window.loading.value === "" && !open.window.error.value);

  // Only in the very rendering in which something came in front does the list keep its place by its end.
  const shift = shifts !== lastShift.current;

  useLayoutEffect(() => {
    lastShift.current = shifts;
  }, [shifts]);

  const toEnd = () => {
    list.current?.scrollToIndex(rows.length - 1, { align: "end" });
  };

  useLayoutEffect(() => {
    if (rows.length === 0) return;
    const last = rows.at(-1)!;
    const came = last.key === lastKey.current ? 0 : theirsAfter(rows, lastKey.current, m.me);
    const mine = last.kind === "outgoing" && last.key !== lastKey.current;
    lastKey.current = last.key;
    if (!begun.current) {
      begun.current = true;
      if (wanted.peek()?.conversation !== open.id) toEnd();
      return;
    }
    if (mine || (stuck.current && !window.hasNewer.peek())) toEnd();
    else if (came > 0 && !window.hasNewer.peek()) newBelow.value += came;
  }, [rows]);

  // A row may be asked for that isn't loaded yet: it is gone to when it is.
  const want = wanted.value;
  useEffect(() => {
    if (want?.conversation !== open.id) return;
    if (want.seq === 0) {
      if (loading === "all") return;
      wanted.value = undefined;
      stuck.current = true;
      toEnd();
      return;
    }
    const at = rows.findIndex((row) => "entry" in row && row.entry.seq >= want.seq);
    if (at < 0 || loading === "all") return;
    wanted.value = undefined;
    stuck.current = false;
    list.current?.scrollToIndex(at, { align: "center" });
    flash.value = want.seq;
    setTimeout(() => (flash.value = 0), flashFor);
  }, [want, rows, loading]);

  function look() {
    const l = list.current;
    const box = scroller.current;
    if (!l || !box) return;
    const below = box.scrollHeight - box.scrollTop - box.clientHeight;
    stuck.current = below < atEndWithin && !window.hasNewer.peek();
    away.value = below > 600 || window.hasNewer.peek();
    if (stuck.current) {
      newBelow.value = 0;
      see();
      window.trim();
    }
    if (box.scrollTop < near) void window.older();
    if (below < near) void window.newer();
    // The first entry in view, or none above the end.
    const at = l.findItemIndex(box.scrollTop);
    const top = rows.slice(at, at + 4).find((row) => "entry" in row);
    // Before the list stands at its end for the first time, its beginning is in view and nobody has seen it.
    const settled = scrolled.current || (l.viewportSize > 0 && l.scrollSize <= l.viewportSize);
    if (settled && top && "entry" in top) {
      if (top.entry.seq <= open.readSeq + 1 || (at === 0 && !window.hasOlder.peek())) unreadAbove.value = 0;
      if (top.entry.seq <= firstMention.current) mentionAbove.value = false;
    }
  }

  function onScroll() {
    scrolled.current = true;
    look();
  }

  // Read is what stands at the end of the list before somebody's eyes.
  function see() {
    if (stuck.current && document.visibilityState === "visible" && document.hasFocus()) m.saw(open.id);
  }
  useEffect(see, [rows]);
  useEffect(() => {
    addEventListener("focus", see);
    document.addEventListener("visibilitychange", see);
    return () => {
      removeEventListener("focus", see);
      document.removeEventListener("visibilitychange", see);
    };
  }, [rows]);
  // A short conversation may have all in view and nothing to scroll.
  useEffect(look, [rows, loading]);

  // The keyboard opens, a banner comes: what was at the end stays there.
  useEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const observer = new ResizeObserver(() => stuck.current && (box.scrollTop = box.scrollHeight));
    observer.observe(box);
    // The rows: one grows under a finger, or by a reaction.
    if (box.lastElementChild) observer.observe(box.lastElementChild);
    return () => observer.disconnect();
  }, []);

  function jumpToEnd() {
    newBelow.value = 0;
    unreadAbove.value = 0;
    stuck.current = true;
    if (window.hasNewer.peek()) {
      wanted.value = { conversation: open.id, seq: 0 };
      void window.end();
    } else toEnd();
  }

  /** Arrows go from message to message. */
  function onKeyDown(event: KeyboardEvent) {
    const box = scroller.current;
    if (!box || !(event.target instanceof Element)) return;
    if (event.key === "End" && event.ctrlKey) return jumpToEnd();
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    const all = [...box.querySelectorAll<HTMLElement>("[data-message]")];
    const at = all.indexOf(event.target.closest<HTMLElement>("[data-message]") as HTMLElement);
    const next = at < 0 ? all.at(-1) : all[at + (event.key === "ArrowUp" ? -1 : 1)];
    event.preventDefault();
    if (next) {
      next.focus({ preventScroll: true });
      next.scrollIntoView({ block: "nearest" });
    } else box.scrollBy({ top: event.key === "ArrowUp" ? -200 : 200 });
  }

  return (
    <div class="messages-box">
      <div ref={scroller} class="messages" role="log" aria-live="off" aria-label={t("messages")} tabIndex={0} onScroll={onScroll} onKeyDown={onKeyDown}>
        <div class="messages-space">
          {window.error.value !== undefined ? (
            <p class="load-note">
              {t("loadFailed")}{" "}
              <button type="button" class="plain" onClick={() => void (rows.length > 0 ? window.older() : window.end())}>
                {t("again")}
              </button>
            </p>
          ) : null}
        </div>
        {empty.value && (
          <div class="empty">
            <span class="wave" aria-hidden="true">
              👋
            </span>
            <strong>{t("emptyTitle")}</strong>
            <p>{t("emptyText")}</p>
          </div>
        )}
        <Rows ref={list} scrollRef={scroller} data={rows} shift={shift} bufferSize={500}>
          {(row) => (<RowView key={row.key} row={row} conversation={c} flash={flash.value} />)}
        </Rows>
      </div>
      {(loading === "older" || loading === "all") && <span class="loading-bar" role="progressbar" aria-label={t("loading")} />}
      <div class="jumps">
        {mentionAbove.value && (
          <button
            type="button"
            class="jump"
            onClick={() => {
              mentionAbove.value = false;
              openChat(m, open.id, firstMention.current);
            }}
          >
            @ {t("toMention")}
          </button>
        )}
        {unreadAbove.value > 0 && (
          <button
            type="button"
            class="jump"
            onClick={() => {
              unreadAbove.value = 0;
              openChat(m, open.id, open.readSeq + 1);
            }}
          >
            <Up />
            {t("toUnread", { n: unreadAbove.value })}
          </button>
        )}
      </div>
      {(away.value || newBelow.value > 0) && rows.length > 0 && (
        <button type="button" class={newBelow.value > 0 ? "jump down counted" : "jump down"} aria-label={t("toEnd")} title={t("toEnd")} onClick={jumpToEnd}>
          <Down />
          {newBelow.value > 0 && <span>{newBelow.value}</span>}
        </button>
      )}
      <span class="aside" role="status" aria-live="polite">
        {said}
      </span>
    </div>
  );
}

/** How many messages of others stand behind the row with that key. */
function theirsAfter(rows: readonly Row[], key: string, me: string): number {
  const at = rows.findLastIndex((row) => row.key === key);
  return at < 0 ? 0 : rows.slice(at + 1).filter((row) => row.kind === "message" && row.entry.from !== me).length;
}

function RowView({ row, conversation: c, flash }: { row: Row; conversation: Conversation; flash: number }) {
  const m = useMessenger();
  switch (row.kind) {
    case "day":
      return (
        <div class="divider day" role="separator">
          <span title={exact(row.at)}>{dayName(row.at)}</span>
        </div>
      );
    case "unread":
      return (
        <div class="divider unread-line" role="separator">
          <span>{t("newMessages")}</span>
        </div>
      );
    case "change":
      return <Change entry={row.entry} conversation={c} flash={flash === row.entry.seq} />;
    case "outgoing":
      return (
        <div class={row.first ? "row mine first" : "row mine"} data-message tabIndex={-1}>
          <Avatar name={m.people.name(m.me)} of={m.me} image={m.people.avatar(m.me)} />
          <OutgoingBubble outgoing={row.outgoing} />
        </div>
      );
    case "message": {
      const mine = row.entry.from === m.me;
      const system = row.entry.from === "";
      const name = system ? "Halley" : m.people.name(row.entry.from);
      return (
        <div
          class={`row${mine ? " mine" : ""}${row.first ? " first" : ""}${flash === row.entry.seq ? " flash" : ""}`}
          data-message
          data-seq={row.entry.seq}
          tabIndex={-1}
        >
          <Avatar name={name} of={row.entry.from || "halley"} image={system ? "/icon.svg" : m.people.avatar(row.entry.from)} />
          <Bubble entry={row.entry} conversation={c} name={name} named={row.first && !mine && c.type === "group"} />
        </div>
      );
    }
  }
}

/** What isn't a message: who came, who went, what was recalled. */
function Change({ entry, conversation: c, flash }: { entry: Entry; conversation: Conversation; flash: boolean }) {
  const m = useMessenger();
  const kept = entry.kind === "message" && entry.from === m.me ? recalled.get(`${c.id}/${entry.seq}`) : undefined;
  return (
    <div class={flash ? "divider change flash" : "divider change"} data-message tabIndex={-1}>
      <span>
        {changeText(m, entry, m.open.value?.window.recallers.value.get(entry.seq))}
        {entry.kind === "pin" && (
          <button type="button" class="plain" onClick={() => openChat(m, c.id, entry.target)}>
            {t("show")}
          </button>
        )}
        {kept && (
          <button
            type="button"
            class="plain"
            onClick={() => {
              m.write(c.id, contentOf(kept.body).text);
              document.querySelector<HTMLElement>(".composer textarea")?.focus();
            }}
          >
            {t("editAgain")}
          </button>
        )}
      </span>
    </div>
  );
}

/** What was recalled here a moment ago, to be written anew. */
export const recalled = new Map<string, Entry>();
