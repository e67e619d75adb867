import { signal, useSignal } from "@preact/signals";
import { type ComponentChildren, render } from "preact";
import { useEffect } from "preact/hooks";
import { t, why } from "../i18n/index.ts";
import { when } from "../i18n/time.ts";
import { Avatar } from "../parts/avatar.tsx";
import { Horn, Leave, Moon, People, Person, Pulse, Sun } from "../parts/icons.tsx";
import { theme, toggleTheme } from "../theme.ts";
import { AdminApi, type Cluster, type Found, type Group, type Member, type Session } from "./api.ts";
import { a } from "./texts.ts";

type Tab = "people" | "groups" | "broadcast" | "cluster";

// The key stays in this tab, and is gone with it.
const kept = "halley.admin";
const api = signal<AdminApi | undefined>(undefined);
const tab = signal<Tab>("people");
const group = signal("");
const cluster = signal<Cluster | undefined>(undefined);
const note = signal<{ text: string; bad: boolean } | undefined>(undefined);
const question = signal<{ text: string; action: () => Promise<unknown>; done: string } | undefined>(undefined);

const lookEvery = 5000;

async function run(what: Promise<unknown>, done: string): Promise<void> {
  try {
    await what;
    note.value = { text: done, bad: false };
  } catch (error) {
    note.value = { text: t("error", { why: why(error) }), bad: true };
  }
}

function ask(text: string, action: () => Promise<unknown>, done = a("done")): void {
  question.value = { text, action, done };
}

function Door() {
  const key = useSignal("");
  const error = useSignal("");
  async function submit(event: Event) {
    event.preventDefault();
    const tried = new AdminApi(key.value.trim());
    try {
      cluster.value = await tried.cluster();
      sessionStorage.setItem(kept, key.value.trim());
      api.value = tried;
    } catch (reason) {
      error.value = t("error", { why: why(reason) });
    }
  }
  return (
    <main class="door">
      <form onSubmit={(e) => void submit(e)}>
        <img src="./icon.svg" alt="" width="48" height="48" />
        <h1>{a("title")}</h1>
        <p class="muted">{a("lead")}</p>
        <label class="field">
          <span>
            {a("key")} <small>{a("keyHint")}</small>
          </span>
          <input type="password" required autocomplete="off" spellcheck={false} value={key} onInput={(e) => (key.value = e.currentTarget.value)} />
        </label>
        <p class="form-error" role="alert">
          {error}
        </p>
        <button type="submit" class="primary">
          {a("enter")}
        </button>
      </form>
    </main>
  );
}

function Console({ api }: { api: AdminApi }) {
  useEffect(() => {
    const look = () =>
      api.cluster().then(
        (c) => (cluster.value = c),
        () => {
          // The figures stay as they were; what is asked for next says why.
        },
      );
    void look();
    const timer = setInterval(() => document.visibilityState === "visible" && void look(), lookEvery);
    return () => clearInterval(timer);
  }, [api]);
  const c = cluster.value;
  const tabs: [Tab, ComponentChildren][] = [
    ["people", <Person />],
    ["groups", <People />],
    ["broadcast", <Horn />],
    ["cluster", <Pulse />],
  ];
  return (
    <div class="console">
      <header class="bar">
        <img src="./icon.svg" alt="" width="28" height="28" />
        <strong>{a("title")}</strong>
        {c && (
          <span class="muted figures">
            {a("connections", { n: c.comets.reduce((n, comet) => n + comet.connections, 0) })} · {a("comets", { n: c.comets.length })}
          </span>
        )}
        <span class="grow" />
        <button type="button" class="icon-button" aria-label={t(theme.value === "dark" ? "themeLight" : "themeDark")} onClick={toggleTheme}>
          {theme.value === "dark" ? <Sun /> : <Moon />}
        </button>
        <button
          type="button"
          class="icon-button"
          aria-label={a("leave")}
          title={a("leave")}
          onClick={() => {
            sessionStorage.removeItem(kept);
            location.reload();
          }}
        >
          <Leave />
        </button>
      </header>
      <nav class="views" aria-label={a("title")}>
        {tabs.map(([name, icon]) => (
          <button type="button" key={name} aria-current={tab.value === name ? "page" : undefined} onClick={() => (tab.value = name)}>
            {icon}
            {a(name)}
          </button>
        ))}
      </nav>
      <main class="view">
        {note.value && (
          <p class={note.value.bad ? "note bad" : "note"} role="status">
            <span class="grow">{note.value.text}</span>
            <button type="button" class="plain" onClick={() => (note.value = undefined)}>
              {t("close")}
            </button>
          </p>
        )}
        {tab.value === "people" ? <PeopleView api={api} /> : tab.value === "groups" ? <GroupView key={group.value} api={api} /> : tab.value === "broadcast" ? <Broadcast api={api} /> : <ClusterView />}
      </main>
      {question.value && <Question key={question.value.text} />}
    </div>
  );
}

function Question() {
  const q = question.value;
  if (!q) return null;
  return (
    <dialog
      ref={(element) => {
        if (element && !element.open) element.showModal();
      }}
      class="ask"
      aria-label={q.text}
      onCancel={(e) => {
        e.preventDefault();
        question.value = undefined;
      }}
    >
      <p>{q.text}</p>
      <div class="buttons">
        <button type="button" class="secondary" autofocus onClick={() => (question.value = undefined)}>
          {a("no")}
        </button>
        <button
          type="button"
          class="primary danger"
          onClick={() => {
            question.value = undefined;
            void run(q.action(), q.done);
          }}
        >
          {a("yes")}
        </button>
      </div>
    </dialog>
  );
}

function PeopleView({ api }: { api: AdminApi }) {
  const query = useSignal("");
  const found = useSignal<Found[] | undefined>(undefined);
  const onlyOnline = useSignal(false);
  const chosen = useSignal("");
  useEffect(() => {
    const q = query.value.trim();
    if (q === "") {
      found.value = undefined;
      return;
    }
    let late = false;
    const timer = setTimeout(() => {
      api.people(q).then(
        (all) => {
          if (!late) found.value = all;
        },
        (error: unknown) => (note.value = { text: t("error", { why: why(error) }), bad: true }),
      );
    }, 250);
    return () => {
      late = true;
      clearTimeout(timer);
    };
  }, [query.value]);
  const shown = found.value?.filter((p) => p.online || !onlyOnline.value);
  return (
    <>
      <div class="search-row">
        <input type="search" placeholder={a("search")} aria-label={a("search")} autocomplete="off" autocapitalize="none" spellcheck={false} value={query} onInput={(e) => (query.value = e.currentTarget.value)} />
        <label class="check">
          <input type="checkbox" checked={onlyOnline.value} onChange={(e) => (onlyOnline.value = e.currentTarget.checked)} />
          {a("onlyOnline")}
        </label>
      </div>
      {shown === undefined ? (
        <p class="muted hint">{a("searchHint")}</p>
      ) : shown.length === 0 ? (
        <p class="muted hint">{a("nobody")}</p>
      ) : (
        <ul class="rows" aria-live="polite">
          {shown.map((p) => (
            <li key={p.uid} class="item">
              <button type="button" class="item-head" aria-expanded={chosen.value === p.uid} onClick={() => (chosen.value = chosen.value === p.uid ? "" : p.uid)}>
                <Avatar name={p.name || p.uid} of={p.uid} small />
                <span class="grow">
                  <strong>{p.name || p.uid}</strong> {p.name && <span class="muted mono">{p.uid}</span>}
                </span>
                <span class={p.online ? "state on" : "state"}>
                  {p.online ? [a("online"), ...p.platforms].join(" · ") : p.lastSeen > 0 ? a("lastSeen", { t: when(p.lastSeen) }) : a("offline")}
                </span>
              </button>
              {chosen.value === p.uid && <PersonView api={api} uid={p.uid} />}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

function PersonView({ api, uid }: { api: AdminApi; uid: string }) {
  const sessions = useSignal<Session[] | undefined>(undefined);
  const groups = useSignal<Group[]>([]);
  async function look() {
    sessions.value = await api.sessions(uid).catch(() => []);
    groups.value = await api.conversationsOf(uid).catch(() => []);
  }
  useEffect(() => void look(), [uid]);
  const kick = (target: Parameters<AdminApi["kick"]>[0]) =>
    ask(
      a("kickAsk", { uid }),
      () =>
        api.kick(target).then(() => {
          setTimeout(() => void look(), 800);
        }),
      a("kicked"),
    );
  return (
    <div class="inside">
      <h3>{a("sessions")}</h3>
      {sessions.value?.length === 0 && <p class="muted">{a("noSessions")}</p>}
      {(sessions.value?.length ?? 0) > 0 && (
        <div class="table-box">
          <table>
            <thead>
              <tr>
                <th>{a("device")}</th>
                <th>{a("address")}</th>
                <th>{a("since")}</th>
                <th>{a("comet")}</th>
                <th>
                  <span class="aside">{a("kick")}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {sessions.value?.map((s) => (
                <tr key={s.key}>
                  <td>
                    {[s.platform, s.device].filter(Boolean).join(" · ") || "—"}
                    <br />
                    <span class="muted mono">{s.key}</span>
                  </td>
                  <td class="mono">{s.remote_addr ?? "—"}</td>
                  <td>{when(s.connected_at)}</td>
                  <td class="mono">{s.comet}</td>
                  <td>
                    <button type="button" class="secondary" onClick={() => kick({ key: s.key })}>
                      {a("kick")}
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <div class="buttons">
        <button type="button" class="secondary" onClick={() => kick({ uid })}>
          {a("kickAll")}
        </button>
        <button type="button" class="secondary bad" onClick={() => kick({ uid, revoke: true })}>
          {a("kickRevoke")}
        </button>
      </div>
      <h3>{a("talks")}</h3>
      {groups.value.length === 0 && <p class="muted">{a("noGroups")}</p>}
      <ul class="chips">
        {groups.value
          .filter((g) => g.type === "group")
          .map((g) => (
            <li key={g.id}>
              <button
                type="button"
                class="secondary"
                onClick={() => {
                  group.value = g.id;
                  tab.value = "groups";
                }}
              >
                {g.title || g.id} <span class="muted">{g.members}</span>
              </button>
            </li>
          ))}
      </ul>
    </div>
  );
}

function GroupView({ api }: { api: AdminApi }) {
  const id = useSignal(group.value);
  const found = useSignal<Group | undefined>(undefined);
  const members = useSignal<Member[]>([]);
  const next = useSignal("");
  const error = useSignal("");
  const all = useSignal<Group[]>([]);
  const nextGroups = useSignal("");
  async function list(cursor = "") {
    try {
      const page = await api.groups(cursor);
      all.value = [...(cursor === "" ? [] : all.value), ...(page.conversations ?? [])];
      nextGroups.value = page.next ?? "";
    } catch (reason) {
      error.value = t("error", { why: why(reason) });
    }
  }
  async function look(cursor = "") {
    error.value = "";
    try {
      if (cursor === "") found.value = await api.group(group.value);
      const page = await api.members(group.value, cursor);
      members.value = cursor === "" ? page.members : [...members.value, ...page.members];
      next.value = page.next ?? "";
    } catch (reason) {
      error.value = t("error", { why: why(reason) });
    }
  }
  useEffect(() => {
    if (group.value) void look();
    else void list();
  }, []);
  const g = found.value;
  return (
    <>
      <form
        class="search-row"
        onSubmit={(e) => {
          e.preventDefault();
          if (group.value === id.value.trim()) void look();
          group.value = id.value.trim();
        }}
      >
        <input class="mono" placeholder={a("groupId")} aria-label={a("groupId")} autocapitalize="none" spellcheck={false} value={id} onInput={(e) => (id.value = e.currentTarget.value)} />
        <button type="submit" class="primary">
          {a("open")}
        </button>
      </form>
      {error.value && (
        <p class="form-error" role="alert">
          {error}
        </p>
      )}
      {!group.value && (
        <ul class="rows">
          {all.value.map((one) => (
            <li key={one.id} class="item">
              <button type="button" class="item-head" onClick={() => (group.value = one.id)}>
                <Avatar name={one.title || one.id} of={one.id} small />
                <span class="grow">
                  <strong>{one.title || one.id}</strong> {one.dissolved && <span class="bad">{a("dissolved")}</span>}
                </span>
                <span class="muted">{a("members", { n: one.members })}</span>
              </button>
            </li>
          ))}
          {nextGroups.value && (
            <button type="button" class="plain" onClick={() => void list(nextGroups.value)}>
              {a("more")}
            </button>
          )}
        </ul>
      )}
      {g && (
        <section class="item padded">
          <button type="button" class="plain back" onClick={() => (group.value = "")}>
            ‹ {a("groups")}
          </button>
          <div class="group-head">
            <Avatar name={g.title || g.id} of={g.id} />
            <div class="grow">
              <h2>{g.title || g.id}</h2>
              <p class="muted">
                {a("members", { n: g.members })} · <span class="mono">{g.id}</span> {g.dissolved && <strong class="bad">· {a("dissolved")}</strong>}
              </p>
            </div>
            {!g.dissolved && (
              <button type="button" class="secondary bad" onClick={() => ask(a("dissolveAsk", { title: g.title || g.id }), () => api.dissolve(g.id).then(() => look()))}>
                {a("dissolve")}
              </button>
            )}
          </div>
          {g.announcement && (
            <p>
              <strong>{a("announcement")}:</strong> {g.announcement}
            </p>
          )}
          <ul class="rows">
            {members.value.map((member) => (
              <li key={member.uid} class="member">
                <Avatar name={member.uid} small />
                <span class="grow mono">{member.uid}</span>
                {(member.muted_until ?? 0) > Date.now() && <span class="muted">{a("mutedUntil", { t: when(member.muted_until ?? 0) })}</span>}
                <span class={member.role === "member" ? "muted" : "tag"}>{a(member.role === "owner" ? "owner" : member.role === "admin" ? "admin" : "member")}</span>
                {member.role !== "owner" && !g.dissolved && (
                  <button type="button" class="secondary" onClick={() => ask(a("removeAsk", { uid: member.uid }), () => api.removeMember(g.id, member.uid).then(() => look()))}>
                    {a("remove")}
                  </button>
                )}
              </li>
            ))}
          </ul>
          {next.value && (
            <button type="button" class="plain" onClick={() => void look(next.value)}>
              {a("more")}
            </button>
          )}
        </section>
      )}
    </>
  );
}

function Broadcast({ api }: { api: AdminApi }) {
  const all = useSignal(true);
  const uids = useSignal("");
  const text = useSignal("");
  const op = useSignal(1000);
  const speed = useSignal("");
  function submit() {
    const send = async () => {
      const { id } = all.value ? await api.broadcast(op.value, text.value, Number(speed.value) || 0) : await api.notify(uids.value.split(/[\s,，;]+/).filter(Boolean), text.value);
      text.value = "";
      note.value = { text: a("sent", { id }), bad: false };
    };
    if (all.value) ask(a("sendAsk"), send);
    else void send().catch((error: unknown) => (note.value = { text: t("error", { why: why(error) }), bad: true }));
  }
  return (
    <form
      class="item padded form"
      onSubmit={(e) => {
        e.preventDefault();
        submit();
      }}
    >
      <fieldset>
        <legend>{a("to")}</legend>
        <label class="check">
          <input type="radio" name="to" checked={all.value} onChange={() => (all.value = true)} />
          {a("everybody")}
        </label>
        <label class="check">
          <input type="radio" name="to" checked={!all.value} onChange={() => (all.value = false)} />
          {a("some")}
        </label>
      </fieldset>
      <p class="muted">{a(all.value ? "broadcastHint" : "inboxHint")}</p>
      {!all.value && (
        <label class="field">
          <span>{a("uids")}</span>
          <input required autocapitalize="none" spellcheck={false} value={uids} onInput={(e) => (uids.value = e.currentTarget.value)} />
        </label>
      )}
      <label class="field">
        <span>{a("text")}</span>
        <textarea rows={4} required maxLength={10_000} value={text} onInput={(e) => (text.value = e.currentTarget.value)} />
      </label>
      {all.value && (
        <div class="two">
          <label class="field">
            <span>{a("op")}</span>
            <input type="number" min={18} max={2_000_000_000} value={op} onInput={(e) => (op.value = Number(e.currentTarget.value))} />
          </label>
          <label class="field">
            <span>{a("speed")}</span>
            <input type="number" min={1} value={speed} onInput={(e) => (speed.value = e.currentTarget.value)} />
          </label>
        </div>
      )}
      <div class="buttons">
        <button type="submit" class="primary">
          {a("send")}
        </button>
      </div>
    </form>
  );
}

function ClusterView() {
  const c = cluster.value;
  if (!c) return <p class="muted hint">{t("loading")}</p>;
  return (
    <section class="item padded">
      <p class="muted">{a("version", { v: c.version })}</p>
      <div class="table-box">
        <table>
          <thead>
            <tr>
              <th>{a("name")}</th>
              <th>{a("addr")}</th>
              <th class="num">{a("conns")}</th>
              <th class="num">{a("rooms")}</th>
              <th>{a("state")}</th>
            </tr>
          </thead>
          <tbody>
            {c.comets.map((comet) => (
              <tr key={comet.name}>
                <td>{comet.name}</td>
                <td class="mono">{comet.addr}</td>
                <td class="num">
                  <meter class="load" min={0} max={comet.capacity || 1} value={comet.connections} aria-label={comet.name} /> {comet.connections.toLocaleString()}
                </td>
                <td class="num">{comet.rooms.toLocaleString()}</td>
                <td>
                  <span class={comet.draining ? "state" : "state on"}>{a(comet.draining ? "draining" : "alive")}</span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Root() {
  return api.value ? <Console api={api.value} /> : <Door />;
}

const before = sessionStorage.getItem(kept);
if (before) api.value = new AdminApi(before);
render(<Root />, document.body);
