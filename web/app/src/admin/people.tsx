import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { when } from "../i18n/time.ts";
import { Avatar } from "../parts/avatar.tsx";
import type { AdminApi, Found, Group, Session } from "./api.ts";
import { ask, failed, group, tab } from "./state.ts";
import { a } from "./texts.ts";

const searchAfter = 250;
const lookEvery = 5000;

/** All who are online, a page at a time; or whom a search finds, online or not. */
export function PeopleView({ api }: { api: AdminApi }) {
  const query = useSignal("");
  const found = useSignal<Found[] | undefined>(undefined);
  const online = useSignal<Found[] | undefined>(undefined);
  const next = useSignal("");
  /** Whether more than the first page is shown: then it stands as it was read. */
  const deeper = useSignal(false);
  const chosen = useSignal("");
  /** Which question is the last: the answers of others are late. */
  const asked = useRef(0);
  const q = query.value.trim();

  async function list(cursor = "") {
    const mine = ++asked.current;
    // From now on, not from the answer on: what is looked at anew meanwhile would put the first page in the place of all.
    const before = deeper.peek();
    deeper.value = cursor !== "";
    try {
      const page = await api.online(cursor);
      if (mine !== asked.current) return;
      online.value = cursor === "" ? page.users : [...(online.value ?? []), ...page.users];
      next.value = page.next;
    } catch (error) {
      if (mine === asked.current) deeper.value = before;
      failed(error);
    }
  }
  useEffect(() => {
    void list();
    const timer = setInterval(() => {
      if (document.visibilityState === "visible" && query.peek().trim() === "" && !deeper.peek()) void list();
    }, lookEvery);
    return () => clearInterval(timer);
  }, [api]);

  useEffect(() => {
    found.value = undefined;
    if (q === "") return;
    let late = false;
    const timer = setTimeout(() => {
      api.people(q).then((all) => {
        if (!late) found.value = all;
      }, failed);
    }, searchAfter);
    return () => {
      late = true;
      clearTimeout(timer);
    };
  }, [q]);

  const shown = q === "" ? online.value : found.value;
  return (
    <>
      <div class="search-row">
        <input type="search" placeholder={a("search")} aria-label={a("search")} autocomplete="off" autocapitalize="none" spellcheck={false} value={query} onInput={(e) => (query.value = e.currentTarget.value)} />
      </div>
      <h2 class="list-title">{a(q === "" ? "onlineNow" : "found")}</h2>
      {shown?.length === 0 && <p class="muted hint">{a(q === "" ? "nobodyOnline" : "nobody")}</p>}
      <ul class="rows" aria-live="polite">
        {shown?.map((p) => (
          <li key={p.uid} class="item">
            <button type="button" class="item-head" aria-expanded={chosen.value === p.uid} onClick={() => (chosen.value = chosen.value === p.uid ? "" : p.uid)}>
              <Avatar name={p.name || p.uid} of={p.uid} small />
              <span class="grow">
                <strong>{p.name || p.uid}</strong> {p.name && <span class="muted mono">{p.uid}</span>}
              </span>
              {p.since > 0 && (
                <span class="muted figures">
                  {a("sessionCount", { n: p.sessions })} · {a("sinceTime", { t: when(p.since) })}
                </span>
              )}
              <span class={p.online ? "state on" : "state"}>
                {p.online ? [a("online"), ...p.platforms].join(" · ") : p.lastSeen > 0 ? a("lastSeen", { t: when(p.lastSeen) }) : a("offline")}
              </span>
            </button>
            {chosen.value === p.uid && <PersonView api={api} uid={p.uid} />}
          </li>
        ))}
      </ul>
      {q === "" && next.value && (
        <button type="button" class="plain" onClick={() => void list(next.value)}>
          {a("more")}
        </button>
      )}
    </>
  );
}

function PersonView({ api, uid }: { api: AdminApi; uid: string }) {
  const sessions = useSignal<Session[] | undefined>(undefined);
  const groups = useSignal<Group[]>([]);
  async function look() {
    sessions.value = await api.sessions(uid).catch(() => []);
    groups.value = (await api.conversationsOf(uid).catch(() => [])).filter((g) => g.type === "group");
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
        {groups.value.map((g) => (
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
