import { t } from "../i18n/index.ts";
import { when } from "../i18n/time.ts";
import { contentOf, type Quote } from "../model/body.ts";
import type { Messenger } from "../model/messenger.ts";
import type { Conversation, Entry } from "../model/types.ts";
import { recordText } from "./calls/words.ts";
import { names } from "./ui.ts";

/** A message in one line, for the list, notifications and quotations. */
export function preview(m: Messenger, c: Conversation | undefined, entry: Entry | undefined): string {
  if (!entry) return t("noMessages");
  if (entry.recalled) return t("recalledPreview");
  const content = contentOf(entry.body);
  if (content.call) return recordText(content.call, entry.from === m.me);
  const text = content.strange ? t("strangePreview") : content.text.replaceAll(/\s+/g, " ");
  return c?.type === "group" && entry.from !== "" ? `${entry.from === m.me ? t("you") : m.people.name(entry.from)}: ${text}` : text;
}

/** What stands above an answer: not what was recalled since, though the answer has a copy of it. */
export function quoteText(m: Messenger, id: string, quote: Quote): string {
  const open = m.open.value;
  return open?.id === id && open.window.isRecalled(quote.seq) ? t("recalledPreview") : quote.text;
}

/** What a change says in the conversation. by: who recalled a message. */
export function changeText(m: Messenger, e: Entry, by = e.from): string {
  const a = e.from === m.me ? t("you") : e.from === "" ? "Halley" : m.people.name(e.from);
  const b = names(m, e.members);
  switch (e.kind) {
    case "message":
      if (by !== e.from) {
        const who = by ? m.people.name(by) : "Halley";
        return by === m.me ? t("eRecalledYouOf", { b: a }) : e.from === m.me ? t("eRecalledYours", { a: who }) : t("eRecalledOf", { a: who, b: a });
      }
      return e.from === m.me ? t("eRecalledYou") : t("eRecalled", { a });
    case "created":
      return t("eCreated", { a, title: e.info?.title ?? "" });
    case "joined":
      return e.members.length === 1 && e.members[0] === e.from ? t("eJoinedSelf", { a }) : t("eJoined", { a, b });
    case "left":
      return t("eLeft", { a });
    case "removed":
      return t("eRemoved", { a, b });
    case "role":
      return t(e.role === "owner" ? "eOwner" : e.role === "admin" ? "eAdmin" : "eMember", { a, b });
    case "muted":
      return e.mutedUntil > 0 ? t("eMuted", { a, b, t: when(e.mutedUntil) }) : t("eUnmuted", { a, b });
    case "dissolved":
      return t("eDissolved", { a });
    case "pin":
      return t("ePin", { a });
    case "info":
      if (e.info?.title !== undefined) return t("eTitle", { a, title: e.info.title });
      if (e.info?.announcement !== undefined) return t(e.info.announcement === "" ? "eNoAnnouncement" : "eAnnouncement", { a });
      if (e.info?.mute_all !== undefined) return t(e.info.mute_all ? "eMuteAll" : "eUnmuteAll", { a });
      if (e.info?.join_policy !== undefined) return t("ePolicy", { a });
      if (e.info?.history_open !== undefined) return t("eHistory", { a });
      return t("eOther");
    default:
      return t("eOther");
  }
}
