// What the page shows of the messenger, and its preferences. Nothing here is known to the server.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { t, why } from "../i18n/index.ts";
import type { Messenger } from "../model/messenger.ts";
import type { Entry } from "../model/types.ts";

export type Pane = "chats" | "contacts";
/** What the contacts' right side shows. */
export type Shown = { kind: "requests" } | { kind: "person"; uid: string } | undefined;

export const pane = signal<Pane>("chats");
export const shown = signal<Shown>(undefined);
/** Whether the conversation's details stand beside it. */
export const details = signal(false);
/** What a dialog shows; the newest is on top. */
export const dialogs = signal<readonly { id: number; view: () => ComponentChildren }[]>([]);
export const toasts = signal<readonly { id: number; text: string; bad: boolean }[]>([]);
/** For screen readers. */
export const said = signal("");
/** Reply to a message, or edit it, in the open conversation. */
export const composing = signal<{ kind: "reply" | "edit"; conversation: string; entry: Entry } | undefined>(undefined);
/** Asks the list of messages to show one, or (0) the end. */
export const wanted = signal<{ conversation: string; seq: number } | undefined>(undefined);

const context = createContext<Messenger | undefined>(undefined);
export const MessengerProvider = context.Provider;

export function useMessenger(): Messenger {
  const m = useContext(context);
  if (!m) throw new Error("no messenger");
  return m;
}

let last = 0;

export function openDialog(view: () => ComponentChildren): void {
  dialogs.value = [...dialogs.value, { id: ++last, view }];
}

export const DialogId = createContext(0);

/** Closes the dialog that asks for it, whatever has been opened or closed meanwhile. Only within a dialog. */
export function useClose(): () => void {
  const own = useContext(DialogId);
  return () => (dialogs.value = dialogs.value.filter(({ id }) => id !== own));
}

const toastFor = 4500;

export function toast(text: string, bad = false): void {
  const id = ++last;
  toasts.value = [...toasts.value.filter((other) => other.text !== text), { id, text, bad }].slice(-3);
  setTimeout(() => (toasts.value = toasts.value.filter((other) => other.id !== id)), toastFor);
}

/** Carries something out and tells if it fails. Returns whether it went well. */
export async function run(what: Promise<unknown>, done = ""): Promise<boolean> {
  try {
    await what;
    if (done) toast(done);
    return true;
  } catch (error) {
    toast(t("error", { why: why(error) }), true);
    return false;
  }
}

/** Puts a text where it can be pasted from. Browsers have that only where the page came over HTTPS, or from this machine. */
export function copy(text: string): void {
  void run(navigator.clipboard?.writeText(text) ?? Promise.reject(new Error(t("noClipboard"))), t("copied"));
}

/** Opens a conversation, from wherever. */
export function openChat(m: Messenger, id: string, seq = 0): void {
  pane.value = "chats";
  if (m.open.peek()?.id !== id) {
    composing.value = undefined;
    // Where the details lie over the conversation, they aren't what one wants to see first.
    if (matchMedia("(max-width: 75rem)").matches) details.value = false;
  }
  const open = m.show(id, seq);
  if (seq > 0) wanted.value = { conversation: open.id, seq };
}

export function openPerson(uid: string): void {
  shown.value = { kind: "person", uid };
  pane.value = "contacts";
}

/** Everything as at the start: somebody else may log in. */
export function clearUi(): void {
  pane.value = "chats";
  shown.value = undefined;
  details.value = false;
  dialogs.value = [];
  composing.value = undefined;
  wanted.value = undefined;
}

/** Names in a row, within a sentence: a, b and 3 more. */
export function names(m: Messenger, uids: readonly string[], most = 3): string {
  const all = uids.slice(0, most).map((uid) => (uid === m.me ? t("youToo") : m.people.name(uid)));
  const list = new Intl.ListFormat(document.documentElement.lang, { type: uids.length > most ? "unit" : "conjunction" }).format(all);
  return uids.length > most ? t("andMore", { names: list, n: uids.length - most }) : list;
}
