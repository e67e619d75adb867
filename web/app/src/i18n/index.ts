import { computed, effect, signal } from "@preact/signals";
import { en, type Texts } from "./en.ts";
import { zh } from "./zh.ts";

export type Language = "en" | "zh";
export const languages: Record<Language, string> = { en: "English", zh: "简体中文" };

const key = "halley.language";

/** The language in use: the person's choice, else the browser's. */
export const language = signal<Language>(initial());

/** For Intl: the browser's own variety where it is of this language. */
export const locale = computed(() => (navigator.language?.startsWith(language.value) ? navigator.language : language.value === "zh" ? "zh-CN" : "en"));

function initial(): Language {
  const kept = localStorage.getItem(key);
  if (kept === "en" || kept === "zh") return kept;
  return navigator.languages.map((l) => l.slice(0, 2)).find((l) => l === "en" || l === "zh") === "zh" ? "zh" : "en";
}

export function setLanguage(to: Language): void {
  language.value = to;
  localStorage.setItem(key, to);
}

effect(() => {
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
});

const all: Record<Language, Texts> = { en, zh };

/** A text in the language in use, with what it is about put in; n chooses between one and more. */
export function t(name: keyof Texts, values: Record<string, string | number> = {}): string {
  return fill(all[language.value][name], values);
}

export function fill(text: string, values: Record<string, string | number>): string {
  const [one = "", more] = text.split("|");
  const form = more !== undefined && values.n !== 1 ? more : one;
  return form.replaceAll(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

/** Why something failed, for people. */
export function why(error: unknown): string {
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
  const name = `c_${code}`;
  return name in en ? t(name as keyof Texts) : t("c_other", { code: code || String(error) });
}
