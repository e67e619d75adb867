import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { List, type VListHandle } from "./parts/list.tsx";
import { t } from "../i18n/index.ts";
import { brief, exact } from "../i18n/time.ts";
import type { Listed, Messenger } from "../model/messenger.ts";
import { peerOf } from "../model/types.ts";
import { Alert, Broom, Check, Chat, Close, Mute, People, PersonPlus, Pin, Plus, Search, Trash } from "../parts/icons.tsx";
import { Avatar } from "../parts/avatar.tsx";
import { AddContact, JoinGroup } from "./dialogs/add.tsx";
import { NewGroup } from "./dialogs/group.tsx";
import { confirm } from "./parts/dialog.tsx";
import { type Item, openMenu } from "./parts/menu.tsx";
import { preview } from "./preview.ts";
import { openChat, openDialog, openPerson, run, useMessenger } from "./ui.ts";

/** The list on the left: conversations, the newest on top, and a search over them and the contacts. */
export function Chats() {
  const m = useMessenger();
  const query = useSignal("");
  const list = useRef<VListHandle>(null);
  const q = query.value.trim().toLowerCase();
  const all = m.list.value;
  const found = q === "" ? all : all.filter((l) => m.title(l.conversation).toLowerCase().includes(q) || l.conversation.id.toLowerCase().includes(q));
  const people =
    q === ""
      ? []
      : m.people.friends.value.filter(
          (c) => (m.people.name(c.uid).toLowerCase().includes(q) || c.uid.toLowerCase().includes(q)) && !found.some((l) => l.conversation.id === m.directWith(c.uid)),
        );

  return (
    <section class="list" aria-label={t("chats")}>
      <ListHead query={query.value} label={t("searchChats")} onQuery={(text) => (query.value = text)} />
      {all.length === 0 && q === "" ? (
        m.ready.value || m.connection.value.name === "online" ? (
          <div class="empty">
            <span class="empty-sign" aria-hidden="true">
              <Chat />
            </span>
            <strong>{t("noChatsTitle")}</strong>
            <p>{t("noChatsText")}</p>
            <button type="button" class="primary" onClick={() => openDialog(AddContact)}>
              {t("findPeople")}
            </button>
          </div>
        ) : (
          <Waiting />
        )
      ) : (
        <div class="list-scroll" role="list" aria-label={t("chats")} onKeyDown={(e) => moveFocus(e, list.current)}>
          <List ref={list} class="vlist" data={[...found, ...people.map((c) => c.uid)]} itemSize={68}>
            {(item) => (typeof item === "string" ? <Friend key={`p-${item}`} uid={item} /> : <Line key={item.conversation.id} listed={item} />)}
          </List>
          {q !== "" && found.length + people.length === 0 && <p class="nothing">{t("nothingFound", { q: query.value })}</p>}
        </div>
      )}
    </section>
  );
}

/** Search, and what can be begun. */
export function ListHead({ query, label, onQuery }: { query: string; label: string; onQuery(text: string): void }) {
  return (
    <header class="list-head">
      <div class="search-box">
        <Search />
        <input
          type="search"
          id="search"
          placeholder={t("search")}
          aria-label={label}
          autocomplete="off"
          spellcheck={false}
          value={query}
          onInput={(e) => onQuery(e.currentTarget.value)}
          onKeyDown={(e) => {
            if (e.key === "Escape") onQuery("");
            if (e.key === "ArrowDown") document.querySelector<HTMLElement>(".list .line")?.focus();
          }}
        />
        {query !== "" && (
          <button type="button" class="search-clear" aria-label={t("clearSearch")} onClick={() => onQuery("")}>
            <Close />
          </button>
        )}
      </div>
      <button
        type="button"
        class="icon-button tinted"
        aria-label={t("new_")}
        title={t("new_")}
        aria-haspopup="menu"
        onClick={(e) =>
          openMenu(e, t("new_"), [
            { label: t("newGroup"), icon: <People />, run: () => openDialog(() => <NewGroup />) },
            { label: t("addContact"), icon: <PersonPlus />, run: () => openDialog(AddContact) },
            { label: t("joinGroup"), icon: <Plus />, run: () => openDialog(JoinGroup) },
          ])
        }
      >
        <Plus />
      </button>
    </header>
  );
}

function Waiting() {
  return (
    <div class="skeletons" aria-label={t("loading")}>
      {[0, 1, 2, 3, 4].map((i) => (
        <span key={i} class="skeleton" />
      ))}
    </div>
  );
}

/** Arrows go from line to line, Home and End to the ends. */
export function moveFocus(event: KeyboardEvent, list: VListHandle | null): void {
  const lines = [...(event.currentTarget as Element).querySelectorAll<HTMLElement>(".line")];
  const at = lines.indexOf(document.activeElement as HTMLElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: lines.length - 1 }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  if (event.key === "Home") list?.scrollTo(0);
  if (to < 0) document.getElementById("search")?.focus();
  else lines[Math.min(to, lines.length - 1)]?.focus();
}

function Friend({ uid }: { uid: string }) {
  const m = useMessenger();
  const name = m.people.name(uid);
  return (
    <div role="listitem">
      <button type="button" class="line" onClick={() => openChat(m, m.directWith(uid))}>
        <Avatar name={name} of={uid} image={m.people.avatar(uid)} />
        <span class="line-text">
          <span class="line-name">{name}</span>
          <span class="line-preview">{uid}</span>
        </span>
      </button>
    </div>
  );
}

function Line({ listed }: { listed: Listed }) {
  const m = useMessenger();
  const { conversation: c, settings, draft, failed } = listed;
  const title = m.title(c);
  const peer = peerOf(c.id, m.me);
  const isOpen = m.open.value?.id === c.id;
  const typing = m.typing.value.get(c.id) ?? [];
  const online = peer !== "" && m.people.presences.value.get(peer)?.online;
  const showDraft = draft !== "" && !isOpen;
  return (
    <div role="listitem">
      <button
        type="button"
        class={`line${settings.pin ? " pinned" : ""}`}
        aria-current={isOpen ? "true" : undefined}
        onClick={() => openChat(m, c.id)}
        onContextMenu={(e) => openMenu(e, title, actions(m, listed))}
      >
        <span class="avatar-box">
          <Avatar name={title} of={peer || c.id} image={peer ? m.people.avatar(peer) : c.type === "inbox" ? "/icon.svg" : c.avatar} />
          {online && <span class="presence" title={t("online")} />}
          {c.unread > 0 &&
            (settings.mute ? (
              <span class="unread-dot" />
            ) : (
              <span class="unread" aria-hidden="true">
                {c.unread > 99 ? "99+" : c.unread}
              </span>
            ))}
        </span>
        <span class="line-text">
          <span class="line-top">
            <span class="line-name">{title}</span>
            <time class="line-time" dateTime={new Date(c.lastAt).toISOString()} title={c.lastAt ? exact(c.lastAt) : ""}>
              {brief(c.lastAt)}
            </time>
          </span>
          <span class="line-bottom">
            <span class="line-preview">
              {failed && (
                <span class="line-flag bad">
                  <Alert />
                  <span class="aside">{t("notSent")}</span>
                </span>
              )}
              {c.mentions > 0 && <span class="line-flag">[{t("mentioned")}] </span>}
              {typing.length > 0 ? (
                <span class="line-typing">{typingText(m, c.type === "group", typing)}</span>
              ) : showDraft ? (
                <>
                  <span class="line-flag">[{t("draft")}] </span>
                  {draft}
                </>
              ) : (
                preview(m, c, m.lastOf(c))
              )}
            </span>
            {settings.mute && (
              <span class="line-mark" title={t("muted")}>
                <Mute />
                <span class="aside">{t("muted")}</span>
              </span>
            )}
            {settings.pin && (
              <span class="line-mark" title={t("pinned")}>
                <Pin />
                <span class="aside">{t("pinned")}</span>
              </span>
            )}
          </span>
        </span>
        {c.unread > 0 && <span class="aside">{t("unreadCount", { n: c.unread })}</span>}
      </button>
    </div>
  );
}

export function typingText(m: Messenger, group: boolean, uids: readonly string[]): string {
  if (!group) return t("typing");
  const [a = "", b = ""] = uids.map((uid) => m.people.name(uid));
  if (uids.length === 1) return t("typingOne", { a });
  return uids.length === 2 ? t("typingTwo", { a, b }) : t("typingMany", { n: uids.length });
}

/** What can be done with a conversation in the list. */
function actions(m: Messenger, { conversation: c, settings }: Listed): Item[] {
  const items: Item[] = [
    { label: t(settings.pin ? "unpinChat" : "pinChat"), icon: <Pin />, run: () => void run(m.port.set(c.id, { pin: !settings.pin })) },
    { label: t(settings.mute ? "unmuteChat" : "muteChat"), icon: <Mute />, run: () => void run(m.port.set(c.id, { mute: !settings.mute })) },
  ];
  if (c.unread > 0) items.push({ label: t("markRead"), icon: <Check />, run: () => m.saw(c.id) });
  const peer = peerOf(c.id, m.me);
  if (peer) items.push({ label: t("profile"), icon: <PersonPlus />, run: () => openPerson(peer) });
  items.push(
    {
      label: t("clear"),
      icon: <Broom />,
      run: () => confirm(t("clearQuestion"), t("clearText"), t("clear"), () => m.port.set(c.id, { clear: c.lastSeq })),
    },
    {
      label: t("hideChat"),
      icon: <Trash />,
      run: () => {
        m.saw(c.id);
        if (m.open.peek()?.id === c.id) m.leaveOpen();
        void run(m.port.set(c.id, { hide: true }));
      },
    },
  );
  return items;
}
