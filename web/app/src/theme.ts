import { effect, signal } from "@preact/signals";

export type Theme = "light" | "dark";

const key = "halley.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = localStorage.getItem(key);

/** The colours in use: the person's choice, else the system's. */
export const theme = signal<Theme>(chosen === "light" || chosen === "dark" ? chosen : system.matches ? "dark" : "light");

system.addEventListener("change", () => {
  if (!localStorage.getItem(key)) theme.value = system.matches ? "dark" : "light";
});

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function toggleTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  localStorage.setItem(key, theme.value);
}
