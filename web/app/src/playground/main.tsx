import { signal } from "@preact/signals";
import { render } from "preact";
import type { Endpoint } from "../api.ts";
import { Conversation } from "./parts/room.tsx";
import { Header } from "./parts/header.tsx";
import { Login } from "./parts/login.tsx";
import { Rooms } from "./parts/rooms.tsx";
import { Side } from "./parts/side.tsx";
import { Tabs, tab } from "./parts/tabs.tsx";
import { Toasts } from "./parts/toasts.tsx";
import { type Credentials, Playground, reason } from "./playground.ts";
import * as kept from "./kept.ts";

const playground = signal<Playground | undefined>(undefined);
const notice = signal("");

function begin(credentials: Credentials, endpoints: Endpoint[], rooms: string[]): void {
  const begun = new Playground(credentials, rooms, endpoints);
  begun.rooms.subscribe((all) => kept.save(credentials, [...all.keys()]));
  begun.state.subscribe((state) => {
    // Over for good, and not by the person's own wish: back to the door, with the reason.
    if (state.name === "closed" && state.error.code !== "closed") end(`${reason(state.error)}.`);
  });
  notice.value = "";
  playground.value = begun;
  begun.connect();
}

function end(why = ""): void {
  kept.clear();
  notice.value = why;
  playground.value?.close();
  playground.value = undefined;
}

function App() {
  const p = playground.value;
  if (!p) return <Login notice={notice.value} onLogin={(credentials, endpoints) => begin(credentials, endpoints, [kept.firstRoom()])} />;
  return (
    <div class={`app tab-${tab.value}`}>
      <a class="skip" href="#conversation">
        Skip to the conversation
      </a>
      <Header playground={p} onLeave={() => end()} />
      <Rooms playground={p} onShow={() => (tab.value = "talk")} />
      <Conversation playground={p} />
      <Side playground={p} />
      <Tabs playground={p} />
      <Toasts playground={p} />
    </div>
  );
}

const before = kept.load();
if (before) begin(before.credentials, [], before.rooms);
render(<App />, document.body);
