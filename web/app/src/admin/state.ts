// What the page for operators shows, and how it tells what became of something.
import { signal } from "@preact/signals";
import { t, why } from "../i18n/index.ts";
import { a } from "./texts.ts";

export type Tab = "people" | "groups" | "broadcast" | "cluster";

export const tab = signal<Tab>("people");
/** The group that is looked into; empty: the list of all. */
export const group = signal("");
export const note = signal<{ text: string; bad: boolean } | undefined>(undefined);
export const question = signal<{ text: string; action: () => Promise<unknown>; done: string } | undefined>(undefined);

export async function run(what: Promise<unknown>, done: string): Promise<void> {
  try {
    await what;
    if (done) note.value = { text: done, bad: false };
  } catch (error) {
    failed(error);
  }
}

export function failed(error: unknown): void {
  note.value = { text: t("error", { why: why(error) }), bad: true };
}

/** Has somebody say yes first. */
export function ask(text: string, action: () => Promise<unknown>, done = a("done")): void {
  question.value = { text, action, done };
}
