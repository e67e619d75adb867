import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { t } from "../i18n/index.ts";
import { when } from "../i18n/time.ts";
import { contentOf, quoteOf, textBody, withText } from "../model/body.ts";
import type { Messenger } from "../model/messenger.ts";
import { type Conversation, type Draft, type Member, peerOf } from "../model/types.ts";
import { Avatar } from "../parts/avatar.tsx";
import { Close, Pen, Reply, Send, Smile } from "../parts/icons.tsx";
import { mentionAt, mentionsIn } from "./mention.ts";
import { EmojiPicker } from "./parts/picker.tsx";
import { composing, run, toast, useMessenger } from "./ui.ts";

/** The server takes 32 KiB of body; this leaves room for what is around the text. */
const mostBytes = 30 << 10;
const mostMentioned = 8;

interface Candidate {
  /** Empty: everybody. */
  uid: string;
  name: string;
}

/** Where one writes, or why one can't. */
export function Composer({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  const own = useSignal<Member | undefined>(undefined);
  const members = useSignal<Member[]>([]);
  const isGroup = c.type === "group";

  // Whom one can mention; read again when somebody comes or goes.
  useEffect(() => {
    if (!isGroup || c.role === "none") return;
    let late = false;
    m.port.members(c.id, { cursor: "", limit: 200 }).then(
      (page) => {
        if (late) return;
        members.value = page.items;
        own.value = page.items.find((member) => member.uid === m.me);
        m.noteMembers(c.id, page.items);
      },
      () => {
        // No mentions then.
      },
    );
    return () => {
      late = true;
    };
  }, [c.id, c.members, c.role, c.lastSeq - (c.last?.seq ?? 0)]);

  const peer = peerOf(c.id, m.me);
  const mutedUntil = own.value?.mutedUntil ?? 0;
  const reason = c.dissolved
    ? t("isDissolved")
    : isGroup && c.role === "none"
      ? t("notMember")
      : c.type === "inbox"
        ? t("isInbox")
        : mutedUntil > m.port.now()
          ? t("youAreMuted", { t: when(mutedUntil) })
          : isGroup && c.muteAll && c.role === "member"
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
  return <Writer conversation={c} members={members.value} />;
}

function Writer({ conversation: c, members }: { conversation: Conversation; members: Member[] }) {
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
  useEffect(() => {
    // Phones would open their keyboard over the conversation.
    if (matchMedia("(hover: hover)").matches || act) area.current?.focus();
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
  const candidates = typed && typed.start !== dismissed.value ? find(m, members, typed.query, manages) : [];
  const chosen = candidates[Math.min(at.value, candidates.length - 1)];

  function mention(who: Candidate) {
    if (!typed) return;
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
    const told = mentioned(m, members, clean, manages);
    if (editing) {
      const { entry } = act!;
      if (clean !== contentOf(entry.body).text) void run(m.port.edit(c.id, entry.seq, { body: withText(entry.body, clean), ...told }));
      stop();
      return;
    }
    m.send(c.id, { body: textBody(clean, act ? quoteOf(act.entry) : undefined), ...told });
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
            <span>{contentOf(act.entry.body).text}</span>
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

function find(m: Messenger, members: Member[], query: string, manages: boolean): Candidate[] {
  const q = query.toLowerCase();
  const all: Candidate[] = members.filter((member) => member.uid !== m.me).map((member) => ({ uid: member.uid, name: m.people.name(member.uid) }));
  if (manages) all.unshift({ uid: "", name: t("everybody") });
  return all.filter((who) => who.name.toLowerCase().includes(q) || who.uid.toLowerCase().startsWith(q)).slice(0, mostMentioned);
}

/** Whom a text mentions. */
function mentioned(m: Messenger, members: Member[], text: string, manages: boolean): Omit<Draft, "body"> {
  const all: Candidate[] = members.flatMap(({ uid }) => [...new Set([m.people.name(uid), uid])].map((name) => ({ uid, name })));
  if (manages) all.push({ uid: "", name: t("everybody") });
  const uids = new Set(mentionsIn(text, all).flatMap(({ who }) => who.map(({ uid }) => uid)));
  const mentionAll = uids.delete("");
  return { mentions: [...uids], mentionAll };
}
