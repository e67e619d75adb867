// The conversation in view stands in the page's address, behind the #: a reload shows it again, and the way back, which on a phone is a
// button of its own, leads to the list.
import { effect, untracked } from "@preact/signals";
import type { Messenger } from "../model/messenger.ts";
import { details, openChat } from "./ui.ts";

/** The conversation that the address names, if it can be one of that user's; empty: none. */
function namedOf(me: string): string {
  try {
    const id = decodeURIComponent(location.hash.slice(1));
    const [type, ...rest] = id.split("/");
    return type === "g" || ((type === "d" || type === "i") && rest.includes(me)) ? id : "";
  } catch {
    return "";
  }
}

/** # and an id, readable: its slashes stay. */
function hashOf(id: string): string {
  return `#${encodeURIComponent(id).replaceAll("%2F", "/")}`;
}

/** Keeps the address and the conversation in view together until what it returns is called. */
export function followAddress(m: Messenger): () => void {
  const named = () => namedOf(m.me);
  let first = named();
  /** On the way back by what the page did itself: it takes a moment, in which something else may have been opened. */
  let leaving = false;
  const stop = effect(() => {
    const id = m.open.value?.id ?? "";
    if (first && !id) {
      // As soon as this device or the server has told what it is.
      if (!m.conversations.value.has(first) && m.connection.value.name !== "online") return;
      untracked(() => openChat(m, first));
    }
    first = "";
    if ((m.open.peek()?.id ?? "") === named()) return;
    const inside = (history.state as { inside?: boolean } | null)?.inside === true;
    if (id === "") {
      // What was gone into is gone out of; where the page began with it there is nothing before.
      if (inside) {
        leaving = true;
        history.back();
      } else history.replaceState(null, "", location.pathname + location.search);
    } else if (named() === "") history.pushState({ inside: true }, "", hashOf(id));
    else history.replaceState(history.state, "", hashOf(id));
  });

  const onPop = () => {
    const id = named();
    const shown = m.open.peek()?.id ?? "";
    if (id === shown) return void (leaving = false);
    if (leaving) {
      leaving = false;
      if (shown) history.pushState({ inside: true }, "", hashOf(shown));
      return;
    }
    if (id) openChat(m, id);
    else {
      details.value = false;
      m.leaveOpen();
    }
  };
  addEventListener("popstate", onPop);
  return () => {
    stop();
    removeEventListener("popstate", onPop);
    history.replaceState(null, "", location.pathname + location.search);
  };
}
