import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { t, why } from "../i18n/index.ts";
import { when } from "../i18n/time.ts";
import { Avatar } from "../parts/avatar.tsx";
import type { AdminApi, Group, Member } from "./api.ts";
import { ask, group } from "./state.ts";
import { a } from "./texts.ts";

/** All groups, or one with its members. */
export function GroupView({ api }: { api: AdminApi }) {
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
