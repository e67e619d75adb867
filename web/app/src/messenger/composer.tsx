import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n/index.ts";
import { when } from "../i18n/time.ts";
import { contentOf, quoteOf, textBody, withText } from "../model/body.ts";
import { Members } from "../model/members.ts";
import type { Messenger } from "../model/messenger.ts";
import { type Conversation, type Member, peerOf } from "../model/types.ts";
import { Avatar } from "../parts/avatar.tsx";
import { Close, Pen, Reply, Send, Smile } from "../parts/icons.tsx";
import { type Candidate, mentionAt, mentioned, namesOf } from "./mention.ts";
import { EmojiPicker } from "./parts/picker.tsx";
import { quoteText } from "./preview.ts";
import { composing, run, toast, useMessenger } from "./ui.ts";

/** The server takes 32 KiB of body; this leaves room for what is around the text. */
const mostBytes = 30 << 10;
const mostMentioned = 8;

/** Who isn't found among so many pages of members is to be written by more of his name, or by his uid. */
const mostPages = 20;
/** Before another page is asked for: names come a moment after uids, and more may be typed. */
const pause = 150;

/** Where one writes, or why one can't. */
export function Composer({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  const [members] = useState(() => new Members(m, c.id));
  const isMember = c.type === "group" && c.role !== "none";
  const version = m.memberships(c.id);

  // The first page tells as well how far they have read.
  useEffect(() => {
    if (isMember) void members.more();
  }, [isMember]);
  // When somebody comes or goes nobody asks before he wants to mention one.
  const known = useRef(version);
  useEffect(() => {
    if (version !== known.current) members.restart();
    known.current = version;
  }, [version]);

  const peer = peerOf(c.id, m.me);
  const mutedUntil = m.mutedUntil.value;
  const reason = c.dissolved
    ? t("isDissolved")
    : c.type === "group" && c.role === "none"
      ? t("notMember")
      : c.type === "inbox"
        ? t("isInbox")
        : mutedUntil > m.port.now()
          ? t("youAreMuted", { t: when(mutedUntil) })
          : c.type === "group" && c.muteAll && c.role === "member"
            ? t("allMuted")
            : "";
  if (reason) return <p class="composer-note">{reason}</p>;
  if (peer && m.people.blocked.value.has(peer)) {
    return (
      <p class="composer-note">
        {t("youBlocked")}{" "}
        <button type="button" class="plain" onClick={() => void run(m.port.block(peer, false))}>
          {t("unblock")}
        </button>
      </p>
    );
  }
  return <Writer conversation={c} members={members} />;
}

function Writer({ conversation: c, members }: { conversation: Conversation; members: Members }) {
  const m = useMessenger();
  const area = useRef<HTMLTextAreaElement>(null);
  const act = composing.value?.conversation === c.id ? composing.value : undefined;
  const editing = act?.kind === "edit" ? act.entry : undefined;
  // What is edited stands apart from the draft, which stays as it was.
  const edited = useSignal("");
  const picking = useSignal(false);
  const caret = useSignal(0);
  const at = useSignal(0);
  const dismissed = useSignal(-1);
  const text = editing ? edited.value : m.draft(c.id);
  const manages = c.role === "owner" || c.role === "admin";

  // Before anybody can write: what he has written by then would be overwritten.
  useLayoutEffect(() => {
    if (editing) edited.value = contentOf(editing.body).text;
  }, [editing]);
  // At once: after the next paint it might be taken from something else that one began to write in.
  useLayoutEffect(() => {
    // Phones would open their keyboard over the conversation. And where others let one write again, who writes elsewhere goes on there.
    if (act || (matchMedia("(hover: hover)").matches && !document.activeElement?.matches("input, textarea"))) area.current?.focus();
  }, [act, c.id]);
  useLayoutEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, innerHeight * 0.36)}px`;
  }, [text, act]);

  function write(next: string) {
    if (editing) edited.value = next;
    else m.write(c.id, next);
  }

  // ---- mentions ----

  const typed = c.type === "group" ? mentionAt(text, caret.value) : undefined;
  const wanted = typed && typed.start !== dismissed.value ? typed : undefined;
  const candidates = wanted ? find(m, members.items.value, wanted.query, manages) : [];
  const chosen = candidates[Math.min(at.value, candidates.length - 1)];
  /** Those who were picked from the list: a name alone may be another's, too. */
  const picked = useRef<Candidate[]>([]);
  const pages = useRef({ start: -1, left: 0 });

  const goOn = wanted !== undefined && candidates.length < mostMentioned && !members.complete.value && !members.loading.value;
  useEffect(() => {
    if (pages.current.start !== wanted?.start) pages.current = { start: wanted?.start ?? -1, left: mostPages };
    if (!goOn || pages.current.left === 0) return;
    const timer = setTimeout(async () => {
      pages.current.left--;
      // Without a line there is nothing to wait for.
      if (!(await members.more())) pages.current.left = 0;
    }, pause);
    return () => clearTimeout(timer);
  }, [goOn, wanted?.start, wanted?.query]);

  function mention(who: Candidate) {
    if (!typed) return;
    picked.current.push(who);
    insert(`@${who.name} `, typed.start, typed.start + 1 + typed.query.length);
    at.value = 0;
  }

  function insert(piece: string, from: number, to: number) {
    write(text.slice(0, from) + piece + text.slice(to));
    const next = from + piece.length;
    caret.value = next;
    // When the new text stands there.
    queueMicrotask(() => {
      area.current?.focus();
      area.current?.setSelectionRange(next, next);
    });
  }

  // ---- sending ----

  function stop() {
    composing.value = undefined;
    area.current?.focus();
  }

  function submit() {
    const clean = text.trim();
    if (clean === "") return;
    if (new TextEncoder().encode(clean).length > mostBytes) return toast(t("tooLong"), true);
    const before = editing ? namesOf(m, editing).filter(({ uid }) => uid !== "" || manages) : [];
    const told = mentioned(clean, candidatesOf(m, members.items.peek(), manages), [...before, ...picked.current]);
    picked.current = [];
    if (editing) {
      const { entry } = act!;
      if (clean !== contentOf(entry.body).text) void run(m.port.edit(c.id, entry.seq, { body: withText(entry.body, clean), ...told }));
      stop();
      return;
    }
    // What was recalled while he wrote goes along with nothing of what it said.
    const quote = act && quoteOf(act.entry);
    m.send(c.id, { body: textBody(clean, quote && { ...quote, text: m.open.peek()?.window.isRecalled(quote.seq) ? "" : quote.text }), ...told });
    composing.value = undefined;
    picking.value = false;
    area.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent) {
    // Enter ends a word of an input method here.
    if (event.isComposing || event.keyCode === 229) return;
    if (candidates.length > 0 && chosen) {
      const n = candidates.length;
      if (event.key === "ArrowDown") at.value = (at.value + 1) % n;
      else if (event.key === "ArrowUp") at.value = (at.value + n - 1) % n;
      else if (event.key === "Enter" || event.key === "Tab") mention(chosen);
      else if (event.key === "Escape") dismissed.value = typed?.start ?? -1;
      else return;
      event.preventDefault();
      return;
    }
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "Escape" && act) {
      event.preventDefault();
      stop();
    } else if (event.key === "ArrowUp" && text === "" && !act) {
      // The last one's own, to be put right.
      const last = m.open.peek()?.rows.peek().findLast((row) => row.kind === "message" && row.entry.from === m.me);
      if (last?.kind === "message" && !contentOf(last.entry.body).strange) {
        event.preventDefault();
        composing.value = { kind: "edit", conversation: c.id, entry: last.entry };
      }
    }
  }

  const name = m.title(c);
  return (
    <form
      class="composer"
      onSubmit={(e) => {
        e.preventDefault();
        submit();
      }}
    >
      {act && (
        <div class="composing">
          {editing ? <Pen /> : <Reply />}
          <span class="composing-text">
            <strong>{editing ? t("editing") : t("replyingTo", { a: act.entry.from === m.me ? t("you") : m.people.name(act.entry.from) })}</strong>
            <span>{editing ? contentOf(editing.body).text : quoteText(m, c.id, quoteOf(act.entry))}</span>
          </span>
          <button type="button" class="icon-button" aria-label={t(editing ? "stopEdit" : "stopReply")} onClick={stop}>
            <Close />
          </button>
        </div>
      )}
      {candidates.length > 0 && (
        <ul class="mentions" role="listbox" id="mentions" aria-label={t("mentionList")}>
          {candidates.map((who, i) => (
            <li
              key={who.uid}
              id={`mention-${i}`}
              role="option"
              aria-selected={who === chosen}
              class="mention-option"
              onPointerDown={(e) => {
                e.preventDefault();
                mention(who);
              }}
            >
              <Avatar name={who.uid ? who.name : "@"} of={who.uid || "all"} image={m.people.avatar(who.uid)} small />
              <span>{who.name}</span>
              {who.uid && who.uid !== who.name && <span class="muted">{who.uid}</span>}
            </li>
          ))}
        </ul>
      )}
      {picking.value && (
        <EmojiPicker
          onPick={(emoji) => {
            const { selectionStart, selectionEnd } = area.current ?? { selectionStart: text.length, selectionEnd: text.length };
            insert(emoji, selectionStart, selectionEnd);
          }}
          onClose={() => {
            picking.value = false;
            area.current?.focus();
          }}
        />
      )}
      <div class="writer">
        <button
          type="button"
          class="icon-button"
          data-emoji-button
          aria-label={t("emoji")}
          title={t("emoji")}
          aria-expanded={picking.value}
          onClick={() => (picking.value = !picking.value)}
        >
          <Smile />
        </button>
        <textarea
          ref={area}
          rows={1}
          placeholder={t("write")}
          aria-label={t("messageTo", { a: name })}
          aria-autocomplete="list"
          aria-controls={candidates.length > 0 ? "mentions" : undefined}
          aria-activedescendant={chosen ? `mention-${candidates.indexOf(chosen)}` : undefined}
          enterkeyhint="send"
          title={t("enterSends")}
          value={text}
          onInput={(e) => {
            caret.value = e.currentTarget.selectionEnd;
            at.value = 0;
            write(e.currentTarget.value);
          }}
          onSelect={(e) => (caret.value = e.currentTarget.selectionEnd)}
          onBlur={() => m.tellTyping(c.id, false)}
          onKeyDown={onKeyDown}
        />
        <button type="submit" class="icon-button primary send" aria-label={editing ? t("save") : t("send")} title={editing ? t("save") : t("send")} disabled={text.trim() === ""}>
          <Send />
        </button>
      </div>
    </form>
  );
}

function find(m: Messenger, members: readonly Member[], query: string, manages: boolean): Candidate[] {
  const q = query.toLowerCase();
  const all: Candidate[] = members.filter((member) => member.uid !== m.me).map((member) => ({ uid: member.uid, name: m.people.name(member.uid) }));
  if (manages) all.unshift({ uid: "", name: t("everybody") });
  return all.filter((who) => who.name.toLowerCase().includes(q) || who.uid.toLowerCase().startsWith(q)).slice(0, mostMentioned);
}

/** All whom one may mention, by each of their names. */
function candidatesOf(m: Messenger, members: readonly Member[], manages: boolean): Candidate[] {
  const all: Candidate[] = members.flatMap(({ uid }) => [...new Set([m.people.name(uid), uid])].map((name) => ({ uid, name })));
  if (manages) all.push({ uid: "", name: t("everybody") });
  return all;
}
