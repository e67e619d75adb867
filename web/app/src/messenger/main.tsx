import { signal } from "@preact/signals";
import { render } from "preact";
import type { Endpoint } from "../api.ts";
import { t, why } from "../i18n/index.ts";
import { Messenger } from "../model/messenger.ts";
import { type Credentials, SdkPort } from "../model/sdk.ts";
import { App } from "./app.tsx";
import * as kept from "./kept.ts";
import { Login } from "./login.tsx";
import { clearUi } from "./ui.ts";

const messenger = signal<Messenger | undefined>(undefined);
const notice = signal("");

function begin(credentials: Credentials, endpoints: Endpoint[], stay = false): void {
  kept.save(credentials, stay);
  const begun = new Messenger(new SdkPort(credentials, endpoints, (token) => kept.save({ ...credentials, token })));
  start(begun);
}

function start(begun: Messenger): void {
  begun.connection.subscribe((state) => {
    // Over for good, and not by the person's own wish: back to the door, with the reason.
    if (state.name === "closed" && messenger.peek() === begun) void end(t("error", { why: why(state) }), false);
  });
  notice.value = "";
  messenger.value = begun;
  begun.start();
}

async function end(why = "", forget = true): Promise<void> {
  const ended = messenger.peek();
  if (ended) kept.clear(ended.me);
  clearUi();
  notice.value = why;
  messenger.value = undefined;
  await ended?.close(forget);
}

function Root() {
  const m = messenger.value;
  if (m) return <App messenger={m} onLeave={() => void end()} />;
  return <Login notice={notice.value} onLogin={begin} />;
}

const before = kept.load();
if (import.meta.env.MODE !== "production" && new URLSearchParams(location.search).get("demo") === "fake") {
  // A made-up world, to look at and to test: not in what is shipped.
  void import("../model/fake/page.ts").then(({ fakeMessenger }) => start(fakeMessenger()));
} else if (before) begin(before, []);
render(<Root />, document.body);

// With the page itself kept, it opens without a connection and shows what this device has, to who is logged in. Only where browsers allow it: over HTTPS, and on this machine.
if (import.meta.env.MODE === "production" && "serviceWorker" in navigator) {
  navigator.serviceWorker.register(new URL("./sw.js", document.baseURI)).catch(() => {
    // A browser that forbids it; the page works all the same.
  });
}
