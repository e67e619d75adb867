import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { language, t } from "../../i18n/index.ts";
import { type Emoji, emojiOf, findEmoji, type Group, groups, oftenUsed, used } from "../emoji.ts";

const signs: Record<Group, string> = { 0: "😀", 1: "👋", 3: "🐻", 4: "🍎", 5: "✈️", 6: "⚽", 7: "💡", 8: "❤️", 9: "🏁" };
const name = (group: Group) => t(`emoji${group}`);

interface Props {
  onPick(unicode: string): void;
  onClose(): void;
}

/** Emoji to pick from: by group, by search, those often used first. Arrows go through the grid. */
export function EmojiPicker({ onPick, onClose }: Props) {
  const query = useSignal("");
  const group = useSignal<Group>(0);
  const often = useSignal<Emoji[]>([]);
  const shown = useSignal<Emoji[] | undefined>(undefined);
  const failed = useSignal(false);
  const box = useRef<HTMLDivElement>(null);
  const lang = language.value;

  useLayoutEffect(() => {
    // On phones the keyboard would take the place of what there is to pick.
    if (matchMedia("(hover: hover)").matches) box.current?.querySelector("input")?.focus();
    const outside = (event: PointerEvent) => {
      if (event.target instanceof Element && !box.current?.contains(event.target) && !event.target.closest("[data-emoji-button]")) onClose();
    };
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, []);
  useEffect(() => {
    oftenUsed(lang).then(
      (all) => (often.value = all),
      () => {},
    );
  }, []);

  useEffect(() => {
    let late = false;
    const q = query.value.trim();
    (q === "" ? emojiOf(lang, group.value) : findEmoji(lang, q)).then(
      (all) => {
        if (!late) shown.value = all;
      },
      () => (failed.value = true),
    );
    return () => {
      late = true;
    };
  }, [query.value, group.value, lang]);

  function pick(unicode: string) {
    used(lang, unicode);
    onPick(unicode);
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.key === "Escape") {
      event.stopPropagation();
      onClose();
      return;
    }
    const all = [...(box.current?.querySelectorAll<HTMLElement>(".emoji") ?? [])];
    const at = all.indexOf(document.activeElement as HTMLElement);
    if (at < 0) {
      if (event.key === "ArrowDown" && all[0]) {
        event.preventDefault();
        all[0].focus();
      } else if (event.key === "Enter" && shown.value?.[0] && query.value) {
        event.preventDefault();
        pick(shown.value[0].unicode);
      }
      return;
    }
    // How many stand in a line is the layout's affair.
    const top = all[at]!.offsetTop;
    const below = all.findIndex((e, i) => i > at && e.offsetTop > top && e.offsetLeft >= all[at]!.offsetLeft);
    const above = all.findLastIndex((e, i) => i < at && e.offsetTop < top && e.offsetLeft <= all[at]!.offsetLeft);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: below, ArrowUp: above }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (event.key === "ArrowUp" && above < 0) box.current?.querySelector("input")?.focus();
    else all[to]?.focus();
  }

  const grid = (all: Emoji[]) => (
    <div class="emoji-grid">
      {all.map((e) => (
        <button type="button" key={e.unicode} class="emoji" title={e.name} aria-label={e.name} tabIndex={-1} onClick={() => pick(e.unicode)}>
          {e.unicode}
        </button>
      ))}
    </div>
  );

  return (
    <div ref={box} class="emoji-picker" role="dialog" aria-label={t("emoji")} onKeyDown={onKeyDown}>
      <input
        type="search"
        class="search-input"
        placeholder={t("searchEmoji")}
        aria-label={t("searchEmoji")}
        autocomplete="off"
        value={query}
        onInput={(e) => (query.value = e.currentTarget.value)}
      />
      {query.value === "" && (
        <div class="emoji-groups" role="group" aria-label={t("emoji")}>
          {groups.map((g) => (
            <button type="button" key={g} class="emoji-group" aria-label={name(g)} title={name(g)} aria-pressed={group.value === g} onClick={() => (group.value = g)}>
              {signs[g]}
            </button>
          ))}
        </div>
      )}
      <div class="emoji-scroll">
        {failed.value && <p class="muted">{t("emojiFailed")}</p>}
        {query.value === "" && often.value.length > 0 && (
          <>
            <h3>{t("emojiOften")}</h3>
            {grid(often.value)}
          </>
        )}
        {query.value === "" && <h3>{name(group.value)}</h3>}
        {shown.value && (shown.value.length > 0 ? grid(shown.value) : <p class="muted">{t("nothingFound", { q: query.value })}</p>)}
      </div>
    </div>
  );
}
