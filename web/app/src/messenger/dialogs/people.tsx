import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
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
  chosen: ReadonlySet<string>;
  onChange(chosen: Set<string>): void;
}

/** Chooses some of many people, with a search; a uid that isn't among them can be typed whole. */
export function PeoplePicker({ uids, chosen, onChange }: Props) {
  const m = useMessenger();
  const query = useSignal("");
  const q = query.value.trim().toLowerCase();
  const found = uids
    .filter((uid) => q === "" || uid.toLowerCase().includes(q) || m.people.name(uid).toLowerCase().includes(q))
    .sort((a, b) => m.people.name(a).localeCompare(m.people.name(b), document.documentElement.lang));
  const exact = query.value.trim();
  const stranger = /^[A-Za-z0-9._@:-]{1,64}$/.test(exact) && !found.includes(exact) && exact !== m.me ? [exact] : [];

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
          const only = [...found, ...stranger];
          if (e.key !== "Enter" || q === "" || !only[0]) return;
          e.preventDefault();
          toggle(only[0]);
          query.value = "";
        }}
      />
      <div class="picker-list">
        <List class="vlist" data={[...found, ...stranger]} itemSize={52}>
          {(uid) =>
            (
              <label key={uid} class="pick">
                <input type="checkbox" checked={chosen.has(uid)} onChange={() => toggle(uid)} />
                <PersonRow uid={uid} note={m.people.name(uid) === uid ? "" : uid} />
              </label>
            )
          }
        </List>
        {found.length + stranger.length === 0 && <p class="nothing">{q === "" ? t("noContactsTitle") : t("nothingFound", { q: exact })}</p>}
      </div>
    </div>
  );
}
