import { useEffect } from "preact/hooks";
import { t } from "../i18n/index.ts";
import type { Open } from "../model/messenger.ts";
import { type Conversation, peerOf } from "../model/types.ts";
import { Back, Chat, Dots, Horn, Mute, Pin } from "../parts/icons.tsx";
import { CallButtons, CallGoing } from "./calls/layer.tsx";
import { typingText } from "./chats.tsx";
import { Composer } from "./composer.tsx";
import { PresenceText } from "./contacts.tsx";
import { Details } from "./details.tsx";
import { AnnouncementView } from "./dialogs/group.tsx";
import { Messages } from "./messages.tsx";
import { openMenu } from "./parts/menu.tsx";
import { preview } from "./preview.ts";
import { details, openChat, openDialog, openPerson, useMessenger } from "./ui.ts";

/** The right side: the conversation in view, or that there is none. */
export function ConversationPane() {
  const m = useMessenger();
  const open = m.open.value;
  if (!open) {
    return (
      <main class="pane blank" id="main" tabIndex={-1}>
        <Chat />
        <strong>{t("welcomeTitle")}</strong>
        <p>{t("welcomeText")}</p>
      </main>
    );
  }
  const c = m.conversation(open.id) ?? stranger(open.id);
  return (
    <>
      <main class="pane" id="main" tabIndex={-1} aria-label={m.title(c)}>
        <Head conversation={c} />
        <CallGoing conversation={c} />
        <Board open={open} conversation={c} />
        <Messages key={open.id} open={open} conversation={c} />
        <Composer key={`c-${open.id}`} conversation={c} />
      </main>
      {details.value && <Details key={`d-${open.id}`} conversation={c} />}
    </>
  );
}

/** A conversation with somebody to whom nothing was said yet, or of which nothing was heard yet. */
function stranger(id: string): Conversation {
  return {
    id,
    type: id.startsWith("d/") ? "direct" : id.startsWith("i/") ? "inbox" : "group",
    title: "",
    avatar: "",
    announcement: "",
    owner: "",
    dissolved: false,
    muteAll: false,
    members: 2,
    lastSeq: 0,
    lastAt: 0,
    last: undefined,
    unread: 0,
    mentions: 0,
    firstMention: 0,
    readSeq: 0,
    role: "member",
    visibleFrom: 1,
    joinPolicy: "",
    historyOpen: false,
    peerReadSeq: 0,
    peerDeliveredSeq: 0,
  };
}

function Head({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  const peer = peerOf(c.id, m.me);
  const typing = m.typing.value.get(c.id) ?? [];
  const title = m.title(c);

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      // Escape goes one step back, unless somebody took it.
      if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open], .menu, .emoji-picker")) return;
      if (details.value) details.value = false;
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);

  return (
    <header class="pane-head">
      <button type="button" class="icon-button phone-only" aria-label={t("back")} onClick={() => m.leaveOpen()}>
        <Back />
      </button>
      <div class="pane-title">
        <h1>
          {peer ? (
            <button type="button" class="title-button" onClick={() => openPerson(peer)}>
              {title}
            </button>
          ) : (
            <span class="title-text">{title}</span>
          )}
          {m.settingsOf(c.id).mute && (
            <span class="title-mark" title={t("muted")}>
              <Mute />
            </span>
          )}
        </h1>
        <p class="pane-sub" aria-live="polite">
          {typing.length > 0 ? (
            <span class="line-typing">{typingText(m, c.type === "group", typing)}</span>
          ) : peer ? (
            <PresenceText uid={peer} />
          ) : c.type === "group" ? (
            <span>{t("memberCount", { n: c.members })}</span>
          ) : null}
        </p>
      </div>
      <CallButtons conversation={c} />
      {c.type !== "inbox" && (
        <button
          type="button"
          class="icon-button"
          aria-label={t("details")}
          title={t("details")}
          aria-expanded={details.value}
          onClick={() => (details.value = !details.value)}
        >
          <Dots />
        </button>
      )}
    </header>
  );
}

/** Announcement and pinned messages, above all others. */
function Board({ open, conversation: c }: { open: Open; conversation: Conversation }) {
  const m = useMessenger();
  const pinned = open.pinned.value;
  const last = pinned.at(-1);
  if (!last && c.announcement === "") return null;
  return (
    <div class="board">
      {c.announcement !== "" && (
        <button type="button" class="board-line" onClick={() => openDialog(() => <AnnouncementView conversation={c} />)}>
          <Horn />
          <span class="aside">{t("announcement")}: </span>
          <span class="board-text">{c.announcement}</span>
        </button>
      )}
      {last && (
        <button
          type="button"
          class="board-line"
          onClick={(e) => {
            if (pinned.length === 1) openChat(m, c.id, last.seq);
            else openMenu(e, t("board"), pinned.toReversed().map((entry) => ({ label: preview(m, c, entry).slice(0, 80), run: () => openChat(m, c.id, entry.seq) })));
          }}
        >
          <Pin />
          <span class="aside">{t("board")}: </span>
          <span class="board-text">{preview(m, c, last)}</span>
          {pinned.length > 1 && <span class="badge quiet">{pinned.length}</span>}
        </button>
      )}
    </div>
  );
}
