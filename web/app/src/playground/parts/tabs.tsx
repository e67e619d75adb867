import { signal } from "@preact/signals";
import type { Playground } from "../playground.ts";
import { Chat, Hash, Pulse } from "../../parts/icons.tsx";

export type Tab = "rooms" | "talk" | "more";

/** Which of the three columns a narrow window shows. */
export const tab = signal<Tab>("talk");

const tabs: [Tab, string, () => preact.JSX.Element][] = [
  ["rooms", "Rooms", Hash],
  ["talk", "Talk", Chat],
  ["more", "Push & log", Pulse],
];

/** The bar at the bottom of a narrow window. */
export function Tabs({ playground }: { playground: Playground }) {
  const unread = [...playground.rooms.value.values()].reduce((n, room) => n + room.unread, playground.unreadPushes.value);
  return (
    <nav class="tabs" aria-label="Views">
      {tabs.map(([name, label, Icon]) => (
        <button key={name} type="button" aria-current={tab.value === name ? "true" : undefined} onClick={() => (tab.value = name)}>
          <Icon />
          {label}
          {name === "rooms" && unread > 0 && (
            <span class="tab-dot">
              <span class="aside">{unread} unread</span>
            </span>
          )}
        </button>
      ))}
    </nav>
  );
}
