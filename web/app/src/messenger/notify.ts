// Notifications of the browser, the page's title and the announcements for screen readers.
import { effect, signal } from "@preact/signals";
import { t } from "../i18n/index.ts";
import type { Messenger, News } from "../model/messenger.ts";
import { peerOf } from "../model/types.ts";
import { preview } from "./preview.ts";
import { openChat, said } from "./ui.ts";

const key = "halley.notify";
const possible = "Notification" in globalThis;

export const notificationState = signal<NotificationPermission>(possible ? Notification.permission : "denied");
/** Whether the person wants them and the browser lets us. */
export const notifying = signal(possible && Notification.permission === "granted" && localStorage.getItem(key) !== "off");

export async function allowNotifications(on: boolean): Promise<void> {
  if (!possible) return;
  if (on && Notification.permission === "default") await Notification.requestPermission();
  notificationState.value = Notification.permission;
  notifying.value = on && Notification.permission === "granted";
  localStorage.setItem(key, on ? "on" : "off");
}

/** Tells of what comes: in the title, to screen readers, and, where nobody looks, by a notification. Returns the end of it. */
export function tellNews(m: Messenger): () => void {
  const title = document.title;
  const stop = effect(() => {
    const n = m.unread.value;
    document.title = n > 0 ? `(${n > 99 ? "99+" : n}) ${title}` : title;
  });
  m.onNews = (news) => {
    const mentioned = news.entry.mentionAll || news.entry.mentions.includes(m.me);
    const looking = document.visibilityState === "visible" && document.hasFocus() && m.open.peek()?.id === news.conversation.id;
    if (looking) said.value = preview(m, undefined, news.entry);
    if (looking || (news.settings.mute && !mentioned)) return;
    if (!looking && document.visibilityState === "visible") said.value = t("newMessageFrom", { a: m.title(news.conversation) });
    if (notifying.peek() && !(document.visibilityState === "visible" && document.hasFocus())) show(m, news);
  };
  return () => {
    stop();
    document.title = title;
    m.onNews = () => {};
  };
}

function show(m: Messenger, { conversation: c, entry }: News): void {
  const icon = m.people.avatar(peerOf(c.id, m.me)) || new URL("./icon.svg", document.baseURI).href;
  try {
    // One for each conversation: the newest takes the place of the one before.
    const note = new Notification(m.title(c), { body: preview(m, c, entry), tag: c.id, icon });
    note.onclick = () => {
      focus();
      openChat(m, c.id);
      note.close();
    };
  } catch {
    // Some phones have the constructor and let only service workers use it.
  }
}
