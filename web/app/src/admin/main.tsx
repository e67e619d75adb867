import { signal, useSignal } from "@preact/signals";
import { type ComponentChildren, render } from "preact";
import { useEffect } from "preact/hooks";
import { t, why } from "../i18n/index.ts";
import { Horn, Leave, Moon, People, Person, Pulse, Sun } from "../parts/icons.tsx";
import { theme, toggleTheme } from "../theme.ts";
import { AdminApi, type Cluster } from "./api.ts";
import { GroupView } from "./groups.tsx";
import { PeopleView } from "./people.tsx";
import { ask, group, note, question, run, type Tab, tab } from "./state.ts";
import { a } from "./texts.ts";

// The key stays in this tab, and is gone with it.
const kept = "halley.admin";
const api = signal<AdminApi | undefined>(undefined);
const cluster = signal<Cluster | undefined>(undefined);

const lookEvery = 5000;

function Door() {
  const key = useSignal("");
  const error = useSignal("");
  async function submit(event: Event) {
    event.preventDefault();
    const tried = new AdminApi(key.value.trim());
    try {
      cluster.value = await tried.cluster();
      sessionStorage.setItem(kept, key.value.trim());
      api.value = tried;
    } catch (reason) {
      error.value = t("error", { why: why(reason) });
    }
  }
  return (
    <main class="door">
      <form onSubmit={(e) => void submit(e)}>
        <img src="./icon.svg" alt="" width="48" height="48" />
        <h1>{a("title")}</h1>
        <p class="muted">{a("lead")}</p>
        <label class="field">
          <span>
            {a("key")} <small>{a("keyHint")}</small>
          </span>
          <input type="password" required autocomplete="off" spellcheck={false} value={key} onInput={(e) => (key.value = e.currentTarget.value)} />
        </label>
        <p class="form-error" role="alert">
          {error}
        </p>
        <button type="submit" class="primary">
          {a("enter")}
        </button>
      </form>
    </main>
  );
}

function Console({ api }: { api: AdminApi }) {
  useEffect(() => {
    const look = () =>
      api.cluster().then(
        (c) => (cluster.value = c),
        () => {
          // The figures stay as they were; what is asked for next says why.
        },
      );
    void look();
    const timer = setInterval(() => document.visibilityState === "visible" && void look(), lookEvery);
    return () => clearInterval(timer);
  }, [api]);
  const c = cluster.value;
  const tabs: [Tab, ComponentChildren][] = [
    ["people", <Person />],
    ["groups", <People />],
    ["broadcast", <Horn />],
    ["cluster", <Pulse />],
  ];
  return (
    <div class="console">
      <header class="bar">
        <img src="./icon.svg" alt="" width="28" height="28" />
        <strong>{a("title")}</strong>
        {c && (
          <span class="muted figures">
            {a("connections", { n: c.comets.reduce((n, comet) => n + comet.connections, 0) })} · {a("comets", { n: c.comets.length })}
          </span>
        )}
        <span class="grow" />
        <button type="button" class="icon-button" aria-label={t(theme.value === "dark" ? "themeLight" : "themeDark")} onClick={toggleTheme}>
          {theme.value === "dark" ? <Sun /> : <Moon />}
        </button>
        <button
          type="button"
          class="icon-button"
          aria-label={a("leave")}
          title={a("leave")}
          onClick={() => {
            sessionStorage.removeItem(kept);
            location.reload();
          }}
        >
          <Leave />
        </button>
      </header>
      <nav class="views" aria-label={a("title")}>
        {tabs.map(([name, icon]) => (
          <button type="button" key={name} aria-current={tab.value === name ? "page" : undefined} onClick={() => (tab.value = name)}>
            {icon}
            {a(name)}
          </button>
        ))}
      </nav>
      <main class="view">
        {note.value && (
          <p class={note.value.bad ? "note bad" : "note"} role="status">
            <span class="grow">{note.value.text}</span>
            <button type="button" class="plain" onClick={() => (note.value = undefined)}>
              {t("close")}
            </button>
          </p>
        )}
        {tab.value === "people" ? <PeopleView api={api} /> : tab.value === "groups" ? <GroupView key={group.value} api={api} /> : tab.value === "broadcast" ? <Broadcast api={api} /> : <ClusterView />}
      </main>
      {question.value && <Question key={question.value.text} />}
    </div>
  );
}

function Question() {
  const q = question.value;
  if (!q) return null;
  return (
    <dialog
      ref={(element) => {
        if (element && !element.open) element.showModal();
      }}
      class="ask"
      aria-label={q.text}
      onCancel={(e) => {
        e.preventDefault();
        question.value = undefined;
      }}
    >
      <p>{q.text}</p>
      <div class="buttons">
        <button type="button" class="secondary" autofocus onClick={() => (question.value = undefined)}>
          {a("no")}
        </button>
        <button
          type="button"
          class="primary danger"
          onClick={() => {
            question.value = undefined;
            void run(q.action(), q.done);
          }}
        >
          {a("yes")}
        </button>
      </div>
    </dialog>
  );
}

function Broadcast({ api }: { api: AdminApi }) {
  const all = useSignal(true);
  const uids = useSignal("");
  const text = useSignal("");
  const op = useSignal(1000);
  const speed = useSignal("");
  function submit() {
    const send = async () => {
      const { id } = all.value ? await api.broadcast(op.value, text.value, Number(speed.value) || 0) : await api.notify(uids.value.split(/[\s,，;]+/).filter(Boolean), text.value);
      text.value = "";
      note.value = { text: a("sent", { id }), bad: false };
    };
    if (all.value) ask(a("sendAsk"), send, "");
    else void send().catch((error: unknown) => (note.value = { text: t("error", { why: why(error) }), bad: true }));
  }
  return (
    <form
      class="item padded form"
      onSubmit={(e) => {
        e.preventDefault();
        submit();
      }}
    >
      <fieldset>
        <legend>{a("to")}</legend>
        <label class="check">
          <input type="radio" name="to" checked={all.value} onChange={() => (all.value = true)} />
          {a("everybody")}
        </label>
        <label class="check">
          <input type="radio" name="to" checked={!all.value} onChange={() => (all.value = false)} />
          {a("some")}
        </label>
      </fieldset>
      <p class="muted">{a(all.value ? "broadcastHint" : "inboxHint")}</p>
      {!all.value && (
        <label class="field">
          <span>{a("uids")}</span>
          <input required autocapitalize="none" spellcheck={false} value={uids} onInput={(e) => (uids.value = e.currentTarget.value)} />
        </label>
      )}
      <label class="field">
        <span>{a("text")}</span>
        <textarea rows={4} required maxLength={10_000} value={text} onInput={(e) => (text.value = e.currentTarget.value)} />
      </label>
      {all.value && (
        <div class="two">
          <label class="field">
            <span>{a("op")}</span>
            <input type="number" min={18} max={2_000_000_000} value={op} onInput={(e) => (op.value = Number(e.currentTarget.value))} />
          </label>
          <label class="field">
            <span>{a("speed")}</span>
            <input type="number" min={1} value={speed} onInput={(e) => (speed.value = e.currentTarget.value)} />
          </label>
        </div>
      )}
      <div class="buttons">
        <button type="submit" class="primary">
          {a("send")}
        </button>
      </div>
    </form>
  );
}

function ClusterView() {
  const c = cluster.value;
  if (!c) return <p class="muted hint">{t("loading")}</p>;
  return (
    <section class="item padded">
      <p class="muted">{a("version", { v: c.version })}</p>
      <div class="table-box">
        <table>
          <thead>
            <tr>
              <th>{a("name")}</th>
              <th>{a("addr")}</th>
              <th class="num">{a("conns")}</th>
              <th class="num">{a("rooms")}</th>
              <th>{a("state")}</th>
            </tr>
          </thead>
          <tbody>
            {c.comets.map((comet) => (
              <tr key={comet.name}>
                <td>{comet.name}</td>
                <td class="mono">{comet.addr}</td>
                <td class="num">
                  <meter class="load" min={0} max={comet.capacity || 1} value={comet.connections} aria-label={comet.name} /> {comet.connections.toLocaleString()}
                </td>
                <td class="num">{comet.rooms.toLocaleString()}</td>
                <td>
                  <span class={comet.draining ? "state" : "state on"}>{a(comet.draining ? "draining" : "alive")}</span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Root() {
  return api.value ? <Console api={api.value} /> : <Door />;
}

const before = sessionStorage.getItem(kept);
if (before) api.value = new AdminApi(before);
render(<Root />, document.body);
