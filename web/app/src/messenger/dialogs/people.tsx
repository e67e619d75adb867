import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useFoundUsers } from "../found.ts";
import { List } from "../parts/list.tsx";
import { t } from "../../i18n/index.ts";
import { Avatar } from "../../parts/avatar.tsx";
import { Close } from "../../parts/icons.tsx";
import { useMessenger } from "../ui.ts";

/** Somebody in a row: picture, name, what is known beside it, what can be done. */
export function PersonRow({ uid, note, children }: { uid: string; note?: ComponentChildren; children?: ComponentChildren }) {
  const m = useMessenger();
  const name = m.people.name(uid);
  return (
    <div class="person">
      <Avatar name={name} of={uid} image={m.people.avatar(uid)} small />
      <span class="person-text">
        <span class="person-name">{name}</span>
        {note !== undefined && note !== "" && <span class="person-note">{note}</span>}
      </span>
      {children}
    </div>
  );
}

interface Props {
  /** Whom to choose from. */
  uids: readonly string[];
  /** Who can't be chosen even if a search finds them. */
  without?: ReadonlySet<string>;
  chosen: ReadonlySet<string>;
  onChange(chosen: Set<string>): void;
}

/** Chooses some of many people, with a search, which finds others, too; a uid that nobody knows of yet can be typed whole. */
export function PeoplePicker({ uids, without, chosen, onChange }: Props) {
  const m = useMessenger();
  const query = useSignal("");
  const q = query.value.trim().toLowerCase();
  const found = uids
    .filter((uid) => q === "" || uid.toLowerCase().includes(q) || m.people.name(uid).toLowerCase().includes(q))
    .sort((a, b) => m.people.name(a).localeCompare(m.people.name(b), document.documentElement.lang));
  const exact = query.value.trim();
  const others = (useFoundUsers(query.value) ?? []).filter((uid) => !found.includes(uid) && !without?.has(uid));
  const stranger = /^[A-Za-z0-9._@:-]{1,64}$/.test(exact) && ![...found, ...others, m.me].includes(exact) && !without?.has(exact) ? [exact] : [];
  const all = [...found, ...others, ...stranger];

  function toggle(uid: string) {
    const next = new Set(chosen);
    if (!next.delete(uid)) next.add(uid);
    onChange(next);
  }

  return (
    <div class="picker">
      {chosen.size > 0 && (
        <ul class="chosen" aria-label={t("chosen", { n: chosen.size })}>
          {[...chosen].map((uid) => (
            <li key={uid}>
              <button type="button" class="chosen-one" onClick={() => toggle(uid)}>
                {m.people.name(uid)}
                <Close />
              </button>
            </li>
          ))}
        </ul>
      )}
      <input
        type="search"
        class="search-input"
        data-first
        placeholder={t("findHint")}
        aria-label={t("search")}
        autocomplete="off"
        autocapitalize="none"
        spellcheck={false}
        value={query}
        onInput={(e) => (query.value = e.currentTarget.value)}
        onKeyDown={(e) => {
          // Who has typed a whole uid means that one, if there is one.
          const first = [...found, ...others].find((uid) => uid === exact) ?? all[0];
          if (e.key !== "Enter" || q === "" || !first) return;
          e.preventDefault();
          toggle(first);
          query.value = "";
        }}
      />
      <div class="picker-list">
        {all.length > 0 ? (
          <List class="vlist" data={all} itemSize={52}>
            {(uid) =>
              (
                <label key={uid} class="pick">
                  <input type="checkbox" checked={chosen.has(uid)} onChange={() => toggle(uid)} />
                  <PersonRow uid={uid} note={m.people.name(uid) === uid ? "" : uid} />
                </label>
              )
            }
          </List>
        ) : (
          <p class="nothing">{q === "" ? t("findText") : t("nothingFound", { q: exact })}</p>
        )}
      </div>
    </div>
  );
}
