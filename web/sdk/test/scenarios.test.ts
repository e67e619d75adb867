// Runs proto/scenarios; what the verbs mean stands in its README.
import { readdirSync, readFileSync } from "node:fs";
import { describe, it } from "vitest";
import { WebSocket } from "ws";
import { Chat, type ChatOptions, type Entries, MemoryStorage, type UserChange, type WebSocketConstructor } from "../src/index.ts";
import { Op } from "../src/frame.ts";
import { type Asked, type ScriptedConnection, ScriptedServer } from "./scripted.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Step = Record<string, any>;
interface Scenario {
  name: string;
  about: string;
  options: Record<string, number>;
  steps: Step[];
}

const folder = new URL("../../../proto/scenarios/", import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith(".json"));

describe("scenario", () => {
  for (const file of files) {
    const scenario = JSON.parse(readFileSync(new URL(file, folder), "utf8")) as Scenario;
    it.concurrent(`${file}: ${scenario.name}`, async () => {
      const run = new Run(scenario);
      try {
        await run.all();
      } finally {
        await run.close();
      }
    });
  }
});

const isEmpty = (v: unknown): boolean =>
  v === undefined || v === null || v === 0 || v === "" || v === false || (typeof v === "object" && Object.keys(v as object).length === 0);

class Run {
  readonly #scenario: Scenario;
  readonly #server = new ScriptedServer();
  readonly #storage = new MemoryStorage();
  readonly #vars = new Map<string, Json>();
  readonly #names = new Map<string, ScriptedConnection>();
  readonly #requests = new Map<string, Asked>();
  readonly #accepted = new Set<ScriptedConnection>();
  readonly #stages = new Map<string, string[]>();
  #newest: ScriptedConnection | undefined;
  #handed: Json[] = [];
  #changes: Json[] = [];
  #tokens = 0;
  #url = "";
  #chat!: Chat;

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
  }

  async all(): Promise<void> {
    this.#url = await this.#server.listen();
    this.#start();
    for (const [i, step] of this.#scenario.steps.entries()) {
      try {
        await this.#step(step);
      } catch (error) {
        throw new Error(`step ${i + 1} ${JSON.stringify(step).slice(0, 300)}: ${(error as Error).message}`);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    this.#nothing("at the end");
    if (this.#handed.length > 0) throw new Error(`handed over and never named: ${JSON.stringify(this.#handed)}`);
  }

  async close(): Promise<void> {
    await this.#chat?.close();
    await this.#server.close();
  }

  #start(): void {
    const o = this.#scenario.options;
    const options: ChatOptions = {
      url: this.#url,
      token: () => `token-${++this.#tokens}`,
      storage: this.#storage,
      tabs: false,
      webSocket: WebSocket as unknown as WebSocketConstructor,
      backoff: { base: 20, max: 40 },
      deliveredAfter: o.delivered_after_ms || Infinity,
      syncFirst: o.sync_first_ms ?? 2000,
      askEvery: o.ask_every_ms ?? 300_000,
      requestTimeout: o.request_timeout_ms ?? 10_000,
    };
    this.#chat = new Chat(options);
    this.#stages.clear();
    this.#chat.on("outgoing", ({ id, stage }) => {
      const stages = this.#stages.get(id) ?? [];
      if (stages.at(-1) !== stage) stages.push(stage);
      this.#stages.set(id, stages);
      this.#server.changed();
    });
    this.#chat.on("entries", ({ conversation, entries, reset }: Entries) => {
      entries.forEach((e, i) => this.#handed.push({ conversation, ...(snake(e) as object), reset: reset && i === 0 }));
      this.#server.changed();
    });
    this.#chat.on("change", (change: UserChange) => {
      this.#changes.push({ ...change });
      this.#server.changed();
    });
    this.#chat.on("conversations", () => this.#server.changed());
    this.#chat.on("gone", () => this.#server.changed());
    this.#chat.start();
  }

  async #step(step: Step): Promise<void> {
    if ("accept" in step) await this.#accept(step, step.accept);
    else if ("online" in step) await this.#online(step);
    else if ("expect" in step) this.#requests.set(step.as, await this.#expect(step.expect, step.op ?? Op.Request, step.on));
    else if ("reply" in step) {
      const asked = this.#requests.get(step.to);
      if (!asked) throw new Error(`no request ${step.to}`);
      asked.connection.answer(Op.Reply, asked.seq, this.#filled(step.reply));
    } else if ("event" in step) this.#on(step.on).events([this.#filled(step.event)].flat(), step.cut);
    else if ("drop" in step) this.#on(step.on).socket.terminate();
    else if ("close" in step) this.#on(step.on).socket.close(step.close);
    else if ("quiet" in step) {
      await new Promise((resolve) => setTimeout(resolve, step.quiet));
      this.#nothing(`within ${step.quiet} ms`);
    } else if ("send" in step) this.#vars.set(step.as, this.#chat.send(step.send.conversation, step.send.body).id);
    else if ("edit" in step) this.#vars.set(step.as, this.#chat.edit(step.edit.conversation, step.edit.seq, step.edit.body).id);
    else if ("change" in step) this.#vars.set(step.as, this.#chat.change(step.change.method, step.change.params).id);
    else if ("read" in step) this.#chat.read(step.read);
    else if ("open" in step) this.#chat.open(step.open);
    else if ("reload" in step) {
      await this.#chat.close();
      this.#start();
    } else if ("handed" in step) await this.#same(step.handed, () => this.#handed, true);
    else if ("changes" in step) await this.#same(step.changes, () => this.#changes, false);
    else if ("stages" in step) {
      for (const [name, want] of Object.entries(step.stages)) {
        const stages = () => this.#stages.get(this.#vars.get(name) as string) ?? [];
        await this.#server.until(
          () => (essential(stages()) === essential(want as string[]) ? true : undefined),
          () => `${name} has the stages ${JSON.stringify(stages())}, want ${JSON.stringify(want)}`,
        );
      }
    } else if ("conversation" in step) {
      const now = () => snake(this.#chat.conversation(step.conversation.id) ?? null) as Json;
      await this.#server.until(
        () => (this.#match(step.conversation, now()) ? true : undefined),
        () => `the conversation is ${JSON.stringify(now())}`,
      );
    } else if ("settings" in step) {
      for (const [kind, want] of Object.entries(step.settings)) {
        const now = () => Object.fromEntries(this.#chat.changes(kind)) as Json;
        await this.#server.until(
          () => (this.#match(want as Json, now()) ? true : undefined),
          () => `${kind} is ${JSON.stringify(now())}`,
        );
      }
    } else if ("gone" in step) {
      await this.#server.until(
        () => (this.#chat.conversation(step.gone) ? undefined : true),
        () => "it is there",
      );
    } else throw new Error("no such verb");
  }

  async #accept(step: Step, fields: Record<string, any>): Promise<ScriptedConnection> {
    const c = await this.#server.until(
      () => this.#server.connections.find((x) => x.auth && !this.#accepted.has(x)),
      () => "no connection came",
    );
    this.#accepted.add(c);
    const auth = JSON.parse(new TextDecoder().decode(c.auth?.body)) as Json;
    if (step.auth && !this.#match(step.auth, auth)) throw new Error(`the auth frame is ${JSON.stringify(auth)}`);
    const { expires_in_ms, ...rest } = fields;
    const name = step.as ?? `c${this.#accepted.size}`;
    this.#names.set(name, c);
    this.#newest = c;
    c.answer(Op.AuthReply, c.auth?.seq ?? 0, {
      tenant: "default",
      uid: "ann",
      key: name,
      connection: name,
      heartbeat: 30,
      idle_timeout: 75,
      server_time: Date.now(),
      ...(expires_in_ms ? { expires_at: Date.now() + expires_in_ms } : {}),
      ...rest,
    });
    if (rest.error) c.socket.close(4001);
    return c;
  }

  async #online(step: Step): Promise<void> {
    await this.#accept(step, step.reply_fields ?? {});
    const asked = await this.#expect({ sync: step.have ?? {} }, Op.RequestUnordered);
    asked.connection.answer(Op.Reply, asked.seq, { sync: this.#filled(step.online) });
  }

  #expect(want: Json, op: number, on?: string): Promise<Asked> {
    const of = on ? this.#on(on) : undefined;
    return this.#server.until(
      () => {
        const at = this.#server.asked.findIndex((a) => a.op === op && (!of || a.connection === of) && this.#match(want, a.json as Json));
        return at < 0 ? undefined : this.#server.asked.splice(at, 1)[0];
      },
      () => `it did not come; what came is ${JSON.stringify(this.#server.asked.map((a) => [a.op, a.json]))}`,
    );
  }

  /** Waits until as many have come as are wanted, and compares; order counts within a conversation where each is. */
  async #same(want: Record<string, Json>[], all: () => Json[], byConversation: boolean): Promise<void> {
    await this.#server.until(
      () => (all().length >= want.length ? true : undefined),
      () => `got ${JSON.stringify(all())}`,
    );
    const got = all().splice(0);
    const key = (v: Json) => (byConversation ? (v as { conversation: string }).conversation : "");
    for (const k of new Set([...want, ...got].map((v) => key(v as Json)))) {
      const [w, g] = [want.filter((v) => key(v) === k), got.filter((v) => key(v) === k)];
      if (w.length !== g.length || !w.every((v, i) => this.#match(v, g[i] as Json))) throw new Error(`got ${JSON.stringify(g)}`);
    }
  }

  #nothing(when: string): void {
    if (this.#server.asked.length > 0) {
      throw new Error(`${when} came ${JSON.stringify(this.#server.asked.map((a) => [a.op, a.json]))}`);
    }
  }

  #on(name?: string): ScriptedConnection {
    const c = name ? this.#names.get(name) : this.#newest;
    if (!c) throw new Error(`no connection ${name ?? ""}`);
    return c;
  }

  /** Puts what variables are bound to in their place. */
  #filled(v: Json): Json {
    if (typeof v === "string" && v.startsWith("$")) return this.#vars.get(v) ?? v;
    if (Array.isArray(v)) return v.map((x) => this.#filled(x));
    if (v && typeof v === "object") return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, this.#filled(x)]));
    return v;
  }

  #match(want: Json, got: Json | undefined): boolean {
    if (typeof want === "string" && want.startsWith("$")) {
      const bound = this.#vars.get(want);
      if (bound === undefined && got !== undefined) this.#vars.set(want, got);
      return bound === undefined || bound === got;
    }
    if (want === null) return isEmpty(got);
    if (Array.isArray(want)) {
      return isEmpty(want) ? isEmpty(got) : Array.isArray(got) && got.length === want.length && want.every((w, i) => this.#match(w, got[i]));
    }
    if (typeof want === "object") {
      if (isEmpty(want) && isEmpty(got)) return true;
      if (typeof got !== "object" || got === null || Array.isArray(got)) return false;
      return Object.entries(want).every(([k, w]) => this.#match(w, got[k]));
    }
    return want === got || (isEmpty(want) && isEmpty(got));
  }
}

/** The answer and the outcome may come at once: accepted need not be seen before what follows it. */
function essential(stages: string[]): string {
  return stages.filter((stage, i) => stage !== "accepted" || i === stages.length - 1).join(" ");
}

/** With the names that the wire uses. */
function snake(v: unknown): unknown {
  if (Array.isArray(v)) return v.map(snake);
  if (!v || typeof v !== "object") return v;
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), k === "body" ? x : snake(x)]));
}
