import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { List, type VListHandle } from "./parts/list.tsx";
import { t } from "../i18n/index.ts";
import { when } from "../i18n/time.ts";
import type { Messenger } from "../model/messenger.ts";
import { Avatar } from "../parts/avatar.tsx";
import { Back, Bell, Block, Chat, People, Trash } from "../parts/icons.tsx";
import { ListHead, moveFocus } from "./chats.tsx";
import { AddContact, AskContact } from "./dialogs/add.tsx";
import { PersonRow } from "./dialogs/people.tsx";
import { EditText } from "./dialogs/group.tsx";
import { initialOf } from "./initial.ts";
import { confirm } from "./parts/dialog.tsx";
import { openChat, openDialog, openPerson, run, shown, useMessenger } from "./ui.ts";

type Item = { kind: "head"; text: string } | { kind: "requests" } | { kind: "group"; id: string; title: string } | { kind: "person"; uid: string; name: string };

/** The list on the left: requests, groups, contacts by their first letters. */
export function Contacts() {
  const m = useMessenger();
  const query = useSignal("");
  const list = useRef<VListHandle>(null);
  const items = itemsOf(m, query.value.trim().toLowerCase());
  return (
    <section class="list" aria-label={t("contacts")}>
      <ListHead query={query.value} label={t("searchChats")} onQuery={(text) => (query.value = text)} />
      <div class="list-scroll" onKeyDown={(e) => moveFocus(e, list.current)}>
        <List ref={list} class="vlist" data={items} itemSize={60}>
          {(item) => (<Row key={item.kind === "person" ? item.uid : item.kind === "group" ? item.id : item.kind === "head" ? `h-${item.text}` : "requests"} item={item} />)}
        </List>
        {m.people.friends.value.length === 0 && query.value === "" && (
          <div class="empty low">
            <strong>{t("noContactsTitle")}</strong>
            <p>{t("noContactsText")}</p>
            <button type="button" class="primary" onClick={() => openDialog(AddContact)}>
              {t("findPeople")}
            </button>
          </div>
        )}
        {query.value !== "" && items.length === 0 && <p class="nothing">{t("nothingFound", { q: query.value })}</p>}
      </div>
    </section>
  );
}

function itemsOf(m: Messenger, q: string): Item[] {
  const fits = (text: string) => q === "" || text.toLowerCase().includes(q);
  const items: Item[] = [];
  if (q === "") items.push({ kind: "requests" });
  const lang = document.documentElement.lang;
  const groups = [...m.conversations.value.values()]
    .filter((c) => c.type === "group" && !c.dissolved && c.role !== "none" && fits(m.title(c)))
    .map((c) => ({ kind: "group" as const, id: c.id, title: m.title(c) }))
    .sort((a, b) => a.title.localeCompare(b.title, lang));
  if (groups.length > 0) items.push({ kind: "head", text: t("groups") }, ...groups);
  const people = m.people.friends.value
    .map((c) => ({ kind: "person" as const, uid: c.uid, name: m.people.name(c.uid) }))
    .filter((p) => fits(p.name) || fits(p.uid))
    .sort((a, b) => a.name.localeCompare(b.name, lang));
  let letter = "";
  for (const person of people) {
    const first = initialOf(person.name);
    if (first !== letter) items.push({ kind: "head", text: (letter = first) });
    items.push(person);
  }
  return items;
}

function Row({ item }: { item: Item }) {
  const m = useMessenger();
  if (item.kind === "head") return <h3 class="letter">{item.text}</h3>;
  if (item.kind === "requests") {
    const n = m.requests.value;
    return (
      <button type="button" class="line slim" aria-current={shown.value?.kind === "requests" ? "true" : undefined} onClick={() => (shown.value = { kind: "requests" })}>
        <span class="avatar sign">
          <Bell />
        </span>
        <span class="line-name grow">{t("newFriends")}</span>
        {n > 0 && <span class="badge">{n}</span>}
      </button>
    );
  }
  if (item.kind === "group") {
    return (
      <button type="button" class="line slim" onClick={() => openChat(m, item.id)}>
        <Avatar name={item.title} of={item.id} />
        <span class="line-name grow">{item.title}</span>
      </button>
    );
  }
  const current = shown.value?.kind === "person" && shown.value.uid === item.uid;
  return (
    <button type="button" class="line slim" aria-current={current ? "true" : undefined} onClick={() => openPerson(item.uid)}>
      <span class="avatar-box">
        <Avatar name={item.name} of={item.uid} image={m.people.avatar(item.uid)} />
        {m.people.presences.value.get(item.uid)?.online && <span class="presence" title={t("online")} />}
      </span>
      <span class="line-name grow">{item.name}</span>
    </button>
  );
}

/** The right side of the contacts. */
export function ContactPane() {
  const what = shown.value;
  if (!what) {
    return (
      <main class="pane blank" id="main" tabIndex={-1}>
        <People />
      </main>
    );
  }
  return (
    <main class="pane scrolls" id="main" tabIndex={-1}>
      <header class="pane-head phone-only">
        <button type="button" class="icon-button" aria-label={t("back")} onClick={() => (shown.value = undefined)}>
          <Back />
        </button>
      </header>
      {what.kind === "requests" ? <Requests /> : <Person key={what.uid} uid={what.uid} />}
    </main>
  );
}

function Requests() {
  const m = useMessenger();
  const asked = m.people.asked.value;
  const requested = m.people.requested.value;
  const groups = [...m.groupRequests.value.values()].filter((r) => r.state === "asked" && r.uid !== m.me);
  return (
    <div class="sheet">
      <h1>{t("newFriends")}</h1>
      {asked.length + requested.length + groups.length === 0 && (
        <div class="empty low">
          <strong>{t("noRequests")}</strong>
          <p>{t("noRequestsText")}</p>
        </div>
      )}
      {asked.map((c) => (
        <div class="card" key={c.uid}>
          <PersonRow uid={c.uid} note={t("wantsContact")}>
            <button type="button" class="secondary" onClick={() => void run(m.port.answerContact(c.uid, false, ""))}>
              {t("decline")}
            </button>
            <button type="button" class="primary" onClick={() => void run(m.port.answerContact(c.uid, true, ""))}>
              {t("accept")}
            </button>
          </PersonRow>
          {c.note && <blockquote class="quote">{c.note}</blockquote>}
        </div>
      ))}
      {groups.map((r) => (
        <div class="card" key={`${r.conversation}/${r.uid}`}>
          <PersonRow uid={r.uid} note={t("wantsJoin", { group: m.conversation(r.conversation)?.title ?? r.conversation })}>
            <button type="button" class="secondary" onClick={() => void run(m.port.answerJoin(r.conversation, r.uid, false))}>
              {t("decline")}
            </button>
            <button type="button" class="primary" onClick={() => void run(m.port.answerJoin(r.conversation, r.uid, true))}>
              {t("accept")}
            </button>
          </PersonRow>
          {r.note && <blockquote class="quote">{r.note}</blockquote>}
        </div>
      ))}
      {requested.map((c) => (
        <div class="card" key={c.uid}>
          <PersonRow uid={c.uid} note={t("waitingFor")}>
            <button type="button" class="secondary" onClick={() => void run(m.port.removeContact(c.uid))}>
              {t("takeBack")}
            </button>
          </PersonRow>
        </div>
      ))}
    </div>
  );
}

/** Who somebody is, and what one can do with him. */
function Person({ uid }: { uid: string }) {
  const m = useMessenger();
  // As it is now.
  useEffect(() => m.people.want([uid], 0), [uid]);
  const name = m.people.name(uid);
  const user = m.people.users.value.get(uid);
  const contact = m.people.contacts.value.get(uid);
  const isBlocked = m.people.blocked.value.has(uid);
  const friend = contact?.state === "accepted";
  return (
    <div class="sheet profile">
      <Avatar name={name} of={uid} image={user?.avatar} large />
      <h1>{name}</h1>
      <PresenceText uid={uid} />
      <dl class="facts">
        {user?.name && user.name !== name && (
          <>
            <dt>{t("displayName")}</dt>
            <dd>{user.name}</dd>
          </>
        )}
        <dt>{t("userId")}</dt>
        <dd class="mono">{uid}</dd>
        {friend && (
          <>
            <dt>{t("remark")}</dt>
            <dd>
              {contact.remark || <span class="muted">—</span>}{" "}
              <button
                type="button"
                class="plain"
                onClick={() =>
                  openDialog(() => (
                    <EditText empty title={t("remark")} label={t("remarkHint")} text={contact.remark} most={80} onSave={(remark) => m.port.setRemark(uid, remark)} />
                  ))
                }
              >
                {t("edit")}
              </button>
            </dd>
          </>
        )}
        {contact?.note && (
          <>
            <dt>{t("note")}</dt>
            <dd>{contact.note}</dd>
          </>
        )}
      </dl>
      {contact?.state === "asked" && (
        <div class="profile-actions">
          <button type="button" class="secondary" onClick={() => void run(m.port.answerContact(uid, false, ""))}>
            {t("decline")}
          </button>
          <button type="button" class="primary" onClick={() => void run(m.port.answerContact(uid, true, ""))}>
            {t("accept")}
          </button>
        </div>
      )}
      <div class="profile-actions">
        <button type="button" class="primary with-icon" onClick={() => openChat(m, m.directWith(uid))}>
          <Chat />
          {t("message")}
        </button>
        {!contact && uid !== m.me && (
          <button type="button" class="secondary" onClick={() => openDialog(() => <AskContact uid={uid} />)}>
            {t("addContact")}
          </button>
        )}
      </div>
      <div class="profile-more">
        {isBlocked ? (
          <button type="button" class="row-button" onClick={() => void run(m.port.block(uid, false))}>
            <Block />
            {t("unblock")}
          </button>
        ) : (
          <button
            type="button"
            class="row-button bad"
            onClick={() => confirm(t("blockQuestion", { a: name }), t("blockText"), t("block"), () => m.port.block(uid, true))}
          >
            <Block />
            {t("block")}
          </button>
        )}
        {friend && (
          <button
            type="button"
            class="row-button bad"
            onClick={() =>
              confirm(t("removeContactQuestion", { a: name }), t("removeContactText"), t("removeContact"), async () => {
                await m.port.removeContact(uid);
                shown.value = undefined;
              })
            }
          >
            <Trash />
            {t("removeContact")}
          </button>
        )}
      </div>
    </div>
  );
}

/** Online, or since when not, as far as it may be known. */
export function PresenceText({ uid }: { uid: string }) {
  const m = useMessenger();
  const p = m.people.presences.value.get(uid);
  if (!p) return null;
  return (
    <span class={p.online ? "presence-text on" : "presence-text"}>
      {p.online ? t("online") : p.lastSeen > 0 ? t("lastSeen", { t: when(p.lastSeen) }) : t("offline")}
    </span>
  );
}
