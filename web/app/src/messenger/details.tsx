import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { t } from "../i18n/index.ts";
import { when } from "../i18n/time.ts";
import type { Messenger } from "../model/messenger.ts";
import { type Conversation, type JoinPolicy, type Member, peerOf } from "../model/types.ts";
import { Avatar } from "../parts/avatar.tsx";
import { Block, Broom, Close, Dots, Leave, Pen, People, Person, Plus, Trash } from "../parts/icons.tsx";
import { PersonRow } from "./dialogs/people.tsx";
import { AddMembers, EditText, NewGroup } from "./dialogs/group.tsx";
import { confirm } from "./parts/dialog.tsx";
import { type Item, openMenu } from "./parts/menu.tsx";
import { copy, details, openChat, openDialog, openPerson, run, toast, useMessenger } from "./ui.ts";

/** What belongs to a conversation beside its messages. */
export function Details({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  const settings = m.settingsOf(c.id);
  const peer = peerOf(c.id, m.me);
  return (
    <aside class="details" aria-label={t("details")}>
      <header class="pane-head">
        <h2 class="grow">{t("details")}</h2>
        <button type="button" class="icon-button" aria-label={t("close")} onClick={() => (details.value = false)}>
          <Close />
        </button>
      </header>
      <div class="details-scroll">
        {peer ? <Direct uid={peer} /> : <Group conversation={c} />}
        <section class="details-part">
          <Switch label={t("muteChat")} on={settings.mute} onChange={(mute) => m.port.set(c.id, { mute })} />
          <Switch label={t("pinChat")} on={settings.pin} onChange={(pin) => m.port.set(c.id, { pin })} />
        </section>
        <section class="details-part">
          <button type="button" class="row-button" onClick={() => confirm(t("clearQuestion"), t("clearText"), t("clear"), () => m.port.set(c.id, { clear: c.lastSeq }))}>
            <Broom />
            {t("clear")}
          </button>
          {peer ? <BlockButton uid={peer} /> : <Ending conversation={c} />}
        </section>
      </div>
    </aside>
  );
}

function Switch({ label, on, disabled, onChange }: { label: string; on: boolean; disabled?: boolean; onChange(on: boolean): Promise<unknown> }) {
  return (
    <label class="switch">
      <span>{label}</span>
      <input
        type="checkbox"
        role="switch"
        checked={on}
        disabled={disabled ?? false}
        onChange={(e) => {
          const box = e.currentTarget;
          void run(onChange(box.checked)).then((well) => {
            if (!well) box.checked = on;
          });
        }}
      />
    </label>
  );
}

function BlockButton({ uid }: { uid: string }) {
  const m = useMessenger();
  const name = m.people.name(uid);
  return m.people.blocked.value.has(uid) ? (
    <button type="button" class="row-button" onClick={() => void run(m.port.block(uid, false))}>
      <Block />
      {t("unblock")}
    </button>
  ) : (
    <button type="button" class="row-button bad" onClick={() => confirm(t("blockQuestion", { a: name }), t("blockText"), t("block"), () => m.port.block(uid, true))}>
      <Block />
      {t("block")}
    </button>
  );
}

function Direct({ uid }: { uid: string }) {
  const m = useMessenger();
  const name = m.people.name(uid);
  return (
    <section class="details-part centred">
      <Avatar name={name} of={uid} image={m.people.avatar(uid)} large />
      <strong>{name}</strong>
      <span class="muted mono">{uid}</span>
      <div class="profile-actions">
        <button type="button" class="secondary with-icon" onClick={() => openPerson(uid)}>
          <Person />
          {t("profile")}
        </button>
        <button type="button" class="secondary with-icon" onClick={() => openDialog(() => <NewGroup with={[uid]} />)}>
          <People />
          {t("newGroup")}
        </button>
      </div>
    </section>
  );
}

function Group({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  const manages = c.role === "owner" || c.role === "admin";
  const alive = !c.dissolved && c.role !== "none";
  return (
    <>
      <section class="details-part">
        <Fact label={t("groupName")} edit={alive && manages ? () => openDialog(() => <EditText title={t("groupName")} label={t("groupNameHint")} text={c.title} most={80} onSave={(title) => m.port.setInfo(c.id, { title })} />) : undefined}>
          {c.title || c.id}
        </Fact>
        <Fact
          label={t("announcement")}
          edit={
            alive && manages
              ? () =>
                  openDialog(() => (
                    <EditText empty title={t("announcement")} label={t("editAnnouncement")} text={c.announcement} rows={6} most={2000} onSave={(announcement) => m.port.setInfo(c.id, { announcement })} />
                  ))
              : undefined
          }
        >
          {c.announcement ? <span class="pre">{c.announcement}</span> : <span class="muted">{t("noAnnouncement")}</span>}
        </Fact>
        <Fact label={t("groupId")}>
          <button type="button" class="plain mono flush" title={t("copy")} onClick={() => copy(c.id)}>
            {c.id}
          </button>
        </Fact>
      </section>
      {alive && manages && <JoinRequests conversation={c} />}
      {c.role !== "none" && <Members conversation={c} manages={manages && alive} />}
      {alive && manages && (
        <section class="details-part">
          <h3>{t("management")}</h3>
          <Switch label={t("muteAll")} on={c.muteAll} onChange={(muteAll) => m.port.setInfo(c.id, { muteAll })} />
          <Switch label={t("historyOpen")} on={c.historyOpen} onChange={(historyOpen) => m.port.setInfo(c.id, { historyOpen })} />
          <label class="select">
            <span>{t("joinPolicy")}</span>
            <select value={c.joinPolicy || "by_members"} onChange={(e) => void run(m.port.setInfo(c.id, { joinPolicy: e.currentTarget.value as JoinPolicy }))}>
              <option value="by_admins">{t("byAdmins")}</option>
              <option value="by_members">{t("byMembers")}</option>
              <option value="open">{t("openToAll")}</option>
            </select>
          </label>
        </section>
      )}
    </>
  );
}

function Fact({ label, edit, children }: { label: string; edit?: (() => void) | undefined; children: ComponentChildren }) {
  return (
    <div class="fact">
      <span class="fact-label">{label}</span>
      {edit && (
        <button type="button" class="tool" aria-label={`${t("edit")}: ${label}`} title={t("edit")} onClick={edit}>
          <Pen />
        </button>
      )}
      <div class="fact-value">{children}</div>
    </div>
  );
}

function JoinRequests({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  const requests = [...m.groupRequests.value.values()].filter((r) => r.conversation === c.id && r.state === "asked");
  if (requests.length === 0) return null;
  return (
    <section class="details-part">
      <h3>{t("joinRequests")}</h3>
      {requests.map((r) => (
        <div key={r.uid}>
          <PersonRow uid={r.uid} note={r.note}>
            <button type="button" class="secondary small" onClick={() => void run(m.port.answerJoin(c.id, r.uid, false))}>
              {t("decline")}
            </button>
            <button type="button" class="primary small" onClick={() => void run(m.port.answerJoin(c.id, r.uid, true))}>
              {t("accept")}
            </button>
          </PersonRow>
        </div>
      ))}
    </section>
  );
}

const pageOfMembers = 100;
const ranks: Record<string, number> = { owner: 0, admin: 1, member: 2 };

function Members({ conversation: c, manages }: { conversation: Conversation; manages: boolean }) {
  const m = useMessenger();
  const members = useSignal<Member[]>([]);
  const next = useSignal<string | undefined>("");
  const query = useSignal("");
  const version = useSignal(0);
  const asked = useRef(0);

  async function load(cursor: string) {
    const mine = ++asked.current;
    next.value = undefined;
    try {
      const page = await m.port.members(c.id, { cursor, limit: pageOfMembers });
      // Answers may overtake each other: what was asked last is what is so.
      if (mine !== asked.current) return;
      m.noteMembers(c.id, page.items);
      members.value = cursor === "" ? page.items : [...members.value, ...page.items];
      next.value = page.next;
    } catch {
      if (mine === asked.current) next.value = cursor;
    }
  }
  useEffect(() => void load(""), [c.id, c.members, c.role, m.memberships(c.id), version.value]);

  const q = query.value.trim().toLowerCase();
  const shown = members.value
    .filter((member) => q === "" || member.uid.toLowerCase().includes(q) || m.people.name(member.uid).toLowerCase().includes(q))
    .sort((a, b) => (ranks[a.role] ?? 2) - (ranks[b.role] ?? 2) || m.people.name(a.uid).localeCompare(m.people.name(b.uid), document.documentElement.lang));
  const mayAdd = !c.dissolved && (manages || c.joinPolicy !== "by_admins");
  return (
    <section class="details-part">
      <h3>
        {t("members")} <span class="figure">{c.members}</span>
      </h3>
      {c.members > 8 && (
        <input type="search" class="search-input" placeholder={t("searchMembers")} aria-label={t("searchMembers")} value={query} onInput={(e) => (query.value = e.currentTarget.value)} />
      )}
      {mayAdd && (
        <button
          type="button"
          class="row-button"
          onClick={() => openDialog(() => <AddMembers conversation={c.id} members={new Set(members.value.map((member) => member.uid))} />)}
        >
          <span class="avatar small sign">
            <Plus />
          </span>
          {t("addMembers")}
        </button>
      )}
      {shown.map((member) => {
        const items = actions(m, c, member, manages, () => version.value++);
        const muted = member.mutedUntil > m.port.now();
        return (
          <PersonRow key={member.uid} uid={member.uid} note={muted ? t("mutedUntil", { t: when(member.mutedUntil) }) : member.uid === m.me ? t("you") : ""}>
            {member.role !== "member" && <span class={`tag ${member.role}`}>{t(member.role === "owner" ? "owner" : "admin")}</span>}
            {items.length > 0 && (
              <button
                type="button"
                class="tool"
                aria-label={`${t("more")}: ${m.people.name(member.uid)}`}
                title={t("more")}
                aria-haspopup="menu"
                onClick={(e) => openMenu(e, m.people.name(member.uid), items)}
              >
                <Dots />
              </button>
            )}
          </PersonRow>
        );
      })}
      {next.value && (
        <button type="button" class="plain" onClick={() => void load(next.value ?? "")}>
          {t("more")}
        </button>
      )}
    </section>
  );
}

/** What one may do with a member. */
function actions(m: Messenger, c: Conversation, member: Member, manages: boolean, changed: () => void): Item[] {
  const { uid } = member;
  if (uid === m.me) return [];
  const name = m.people.name(uid);
  const items: Item[] = [
    { label: t("message"), run: () => openChat(m, m.directWith(uid)) },
    { label: t("profile"), run: () => openPerson(uid) },
  ];
  const owner = c.role === "owner";
  const below = owner || member.role === "member";
  const go = (what: Promise<unknown>) => void run(what).then(changed);
  if (owner) {
    items.push(
      member.role === "admin"
        ? { label: t("makeMember"), run: () => go(m.port.setRole(c.id, uid, "member")) }
        : { label: t("makeAdmin"), run: () => go(m.port.setRole(c.id, uid, "admin")) },
    );
  }
  if (manages && below) {
    if (member.mutedUntil > m.port.now()) items.push({ label: t("unmuteMember"), run: () => go(m.port.muteMembers(c.id, [uid], 0)) });
    else {
      for (const [label, minutes] of [["mute10m", 10], ["mute1h", 60], ["mute1d", 1440]] as const) {
        items.push({ label: t(label), run: () => go(m.port.muteMembers(c.id, [uid], Math.round(m.port.now()) + minutes * 60_000)) });
      }
    }
  }
  if (owner) {
    items.push({
      label: t("transfer"),
      run: () => confirm(t("transferQuestion", { a: name }), t("transferText"), t("transfer"), () => m.port.setRole(c.id, uid, "owner").then(changed)),
    });
  }
  if (manages && below) {
    items.push({
      label: t("kick"),
      bad: true,
      run: () => confirm(t("kickQuestion", { a: name }), t("kickText"), t("kick"), () => m.port.removeMembers(c.id, [uid]).then(changed)),
    });
  }
  return items;
}

/** Leaving and dissolving. */
function Ending({ conversation: c }: { conversation: Conversation }) {
  const m = useMessenger();
  if (c.dissolved || c.role === "none") return null;
  return (
    <>
      <button
        type="button"
        class="row-button bad"
        onClick={() => {
          if (c.role === "owner") toast(t("leaveOwner"));
          else confirm(t("leaveQuestion"), t("leaveText"), t("leaveGroup"), () => m.port.leave(c.id));
        }}
      >
        <Leave />
        {t("leaveGroup")}
      </button>
      {c.role === "owner" && (
        <button type="button" class="row-button bad" onClick={() => confirm(t("dissolveQuestion"), t("dissolveText"), t("dissolve"), () => m.port.dissolve(c.id))}>
          <Trash />
          {t("dissolve")}
        </button>
      )}
    </>
  );
}
