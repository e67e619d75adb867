import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { t } from "../i18n/index.ts";
import type { Messenger } from "../model/messenger.ts";
import { Avatar } from "../parts/avatar.tsx";
import { Chat, Close, Gear, Horn, Moon, People, Sun } from "../parts/icons.tsx";
import { theme, toggleTheme } from "../theme.ts";
import { CallLayer } from "./calls/layer.tsx";
import { Chats } from "./chats.tsx";
import { ContactPane, Contacts } from "./contacts.tsx";
import { ConversationPane } from "./conversation.tsx";
import { SettingsDialog } from "./dialogs/settings.tsx";
import { tellNews } from "./notify.ts";
import { followAddress } from "./route.ts";
import { Dialogs } from "./parts/dialog.tsx";
import { MenuHost } from "./parts/menu.tsx";
import { details, MessengerProvider, openDialog, pane, shown, toasts } from "./ui.ts";

/** The whole messenger of one person. */
export function App({ messenger: m, onLeave }: { messenger: Messenger; onLeave(): void }) {
  useEffect(() => tellNews(m), [m]);
  useEffect(() => followAddress(m), [m]);
  // On a phone one side is in view: the right one as soon as it shows something.
  const right = pane.value === "chats" ? m.open.value !== undefined : shown.value !== undefined;
  return (
    <MessengerProvider value={m}>
      <div class={`app${right ? " right" : ""}${details.value && pane.value === "chats" && m.open.value ? " with-details" : ""}`}>
        <a
          class="skip"
          href="#main"
          onClick={(e) => {
            // The address is the conversation's.
            e.preventDefault();
            document.getElementById("main")?.focus();
          }}
        >
          {t("skip")}
        </a>
        <Rail messenger={m} onLeave={onLeave} />
        <div class="left">
          <Banner messenger={m} />
          <Notice messenger={m} />
          {pane.value === "chats" ? <Chats /> : <Contacts />}
        </div>
        {pane.value === "chats" ? <ConversationPane /> : <ContactPane />}
      </div>
      <CallLayer />
      <MenuHost />
      <Dialogs />
      <Toasts />
    </MessengerProvider>
  );
}

function Rail({ messenger: m, onLeave }: { messenger: Messenger; onLeave(): void }) {
  const me = m.people.me.value;
  const name = me.name || me.uid;
  const settings = () => openDialog(() => <SettingsDialog onLeave={onLeave} />);
  const tab = (what: "chats" | "contacts", label: string, icon: preact.JSX.Element, n: number) => (
    <button type="button" class="rail-button" aria-current={pane.value === what ? "page" : undefined} title={label} onClick={() => (pane.value = what)}>
      {icon}
      <span class="rail-label">{label}</span>
      {n > 0 && (
        <span class="unread">
          <span aria-hidden="true">{n > 99 ? "99+" : n}</span>
          <span class="aside">{n}</span>
        </span>
      )}
    </button>
  );
  return (
    <nav class="rail" aria-label="Halley">
      <button type="button" class="rail-me" aria-label={`${name}, ${t("settings")}`} title={name} onClick={settings}>
        <Avatar name={name} of={me.uid} image={me.avatar} />
      </button>
      {tab("chats", t("chats"), <Chat />, m.unread.value)}
      {tab("contacts", t("contacts"), <People />, m.requests.value)}
      <span class="rail-space" />
      <button type="button" class="rail-button small" aria-label={t(theme.value === "dark" ? "themeLight" : "themeDark")} title={t("appearance")} onClick={toggleTheme}>
        {theme.value === "dark" ? <Sun /> : <Moon />}
      </button>
      <button type="button" class="rail-button" title={t("settings")} onClick={settings}>
        <Gear />
        <span class="rail-label">{t("settings")}</span>
      </button>
    </nav>
  );
}

/** That there is no connection, and when it is tried again. A moment's break isn't told. */
function Banner({ messenger: m }: { messenger: Messenger }) {
  const state = m.connection.value;
  const late = useSignal(false);
  const now = useSignal(Date.now());
  const off = state.name !== "online" && state.name !== "closed";
  useEffect(() => {
    late.value = false;
    if (!off) return;
    const timer = setTimeout(() => (late.value = true), 700);
    const clock = setInterval(() => (now.value = Date.now()), 500);
    return () => {
      clearTimeout(timer);
      clearInterval(clock);
    };
  }, [off]);
  const seconds = state.name === "waiting" ? Math.max(0, Math.ceil((state.until - now.value) / 1000)) : 0;
  return (
    <div role="status" data-state={state.name} class={off && late.value ? `banner ${state.name}` : "banner-none"}>
      {off && late.value && (
        <>
          <span class="banner-dot" />
          <span class="grow">{state.name === "connecting" ? t("connecting") : seconds > 0 ? t("offlineIn", { n: seconds }) : t("offlineNow")}</span>
          {state.name === "waiting" && (
            <button type="button" class="plain" onClick={() => m.port.retryNow()}>
              {t("tryNow")}
            </button>
          )}
        </>
      )}
    </div>
  );
}

/** What the operators tell everybody. */
function Notice({ messenger: m }: { messenger: Messenger }) {
  const text = m.notice.value;
  return (
    <div role="alert" class={text ? "banner notice" : "banner-none"}>
      {text && (
        <>
          <Horn />
          <span class="grow pre">{text}</span>
          <button type="button" class="icon-button small" aria-label={t("close")} onClick={() => (m.notice.value = "")}>
            <Close />
          </button>
        </>
      )}
    </div>
  );
}

function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, bad }) => (
        <p key={id} class={bad ? "toast bad" : "toast"}>
          {text}
        </p>
      ))}
    </div>
  );
}
