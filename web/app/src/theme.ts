import { computed, effect, signal } from "@preact/signals";

export type Theme = "light" | "dark";

const key = "halley.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const kept = localStorage.getItem(key);
const dark = signal(system.matches);

/** The person's choice; empty: as the system. */
export const chosenTheme = signal<Theme | "">(kept === "light" || kept === "dark" ? kept : "");

/** The colours in use. */
export const theme = computed<Theme>(() => chosenTheme.value || (dark.value ? "dark" : "light"));

system.addEventListener("change", () => (dark.value = system.matches));

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function chooseTheme(to: Theme | ""): void {
  chosenTheme.value = to;
  if (to) localStorage.setItem(key, to);
  else localStorage.removeItem(key);
}

export function toggleTheme(): void {
  chooseTheme(theme.value === "dark" ? "light" : "dark");
}
