import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { useMessenger } from "./ui.ts";

const askAfter = 250;

/** Whom the server finds by the beginning of a name or id; undefined: it hasn't answered yet. */
export function useFoundUsers(query: string): string[] | undefined {
  const m = useMessenger();
  const found = useSignal<string[] | undefined>(undefined);
  const q = query.trim();
  useEffect(() => {
    found.value = undefined;
    if (q === "") return;
    let late = false;
    const timer = setTimeout(() => {
      m.port.searchUsers(q).then(
        (users) => {
          if (late) return;
          m.people.put(users);
          found.value = users.map((user) => user.uid).filter((uid) => uid !== m.me);
        },
        () => {
          if (!late) found.value = [];
        },
      );
    }, askAfter);
    return () => {
      late = true;
      clearTimeout(timer);
    };
  }, [q]);
  return found.value;
}
