// What the browser tests run against: a Halley, a Chromium, and a way to cut the line between them.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, connect, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

export interface Halley {
  url: string;
  /** Stops it as an operator would, and starts it again; undefined if it isn't ours. */
  restart?(): Promise<void>;
  /** An API key with the scope admin; of a Halley that isn't ours HALLEY_API_KEY. */
  apiKey(): string;
  stop(): Promise<void>;
}

/** The Halley at HALLEY_URL, else one of our own: `halley all` on free ports, from HALLEY_BIN or built now. With settings, one of our own; undefined is a setting's default. */
export async function startHalley(settings?: Record<string, string | undefined>): Promise<Halley> {
  const given = settings ? undefined : process.env.HALLEY_URL;
  if (given) return { url: given.replace(/\/$/, ""), apiKey: () => process.env.HALLEY_API_KEY ?? "", stop: async () => {} };
  const dir = mkdtempSync(join(tmpdir(), "halley-browser-"));
  let binary = process.env.HALLEY_BIN;
  if (!binary) {
    binary = join(dir, "halley");
    execFileSync("go", ["build", "-o", binary, "."], { cwd: new URL("../../../halley", import.meta.url), stdio: "inherit" });
  }
  const [http, ws, tcp] = await Promise.all([freePort(), freePort(), freePort()]);
  const url = `http://127.0.0.1:${http}`;
  const start = async () => {
    const server = spawn(binary, ["all"], {
      env: {
        ...process.env,
        HALLEY_DATA_DIR: join(dir, "data"),
        // Who comes and goes is told sooner than people need it.
        HALLEY_ROUTER_SETTLE_DELAY: "1s",
        // The page for operators looks at what it changed when it is told of the outcome: on a machine that stands still that may take longer.
        HALLEY_LOGIC_CHAT_OUTCOME_WAIT: "10s",
        HALLEY_JOB_OUTCOME_TIMEOUT: "2s",
        HALLEY_LOGIC_HTTP_ADDR: `127.0.0.1:${http}`,
        HALLEY_COMET_WS_ADDR: `127.0.0.1:${ws}`,
        HALLEY_COMET_TCP_ADDR: `127.0.0.1:${tcp}`,
        HALLEY_ALL_TURN_ADDR: "127.0.0.1:0",
        ...settings,
      },
      stdio: ["ignore", "ignore", "pipe"],
    });
    let log = "";
    server.stderr?.on("data", (b: Buffer) => (log += b.toString()));
    try {
      await until(async () => {
        if (server.exitCode !== null) throw new Error(`halley ended with ${server.exitCode}:\n${log}`);
        const { endpoints } = await fetch(`${url}/v1/endpoints`).then((r) => r.json() as Promise<{ endpoints: unknown[] }>);
        return endpoints.length > 0;
      });
    } catch (error) {
      await stop(server);
      throw error;
    }
    return server;
  };
  let server = await start();
  return {
    url,
    apiKey: () => readFileSync(join(dir, "data", "api-key"), "utf8").trim(),
    restart: async () => {
      await stop(server);
      server = await start();
    },
    stop: async () => {
      await stop(server);
      rmSync(dir, { recursive: true });
    },
  };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), 20_000);
  await ended;
  clearTimeout(late);
}

const given = new Set<number>();

/** A port that nobody listens on, below those that the system gives to whoever asks for any: a browser's connections take none of them meanwhile. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (given.has(port)) continue;
    given.add(port);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}

/** Waits until probe is true; what it throws meanwhile counts as not yet, but is told in the end. */
export async function until(probe: () => Promise<boolean>, limit = 60_000): Promise<void> {
  const end = Date.now() + limit;
  for (let last: unknown; ; ) {
    try {
      if (await probe()) return;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error("not in time", { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/**
 * Looks out, from now on, for what may be there for a moment only: whoever looks now and then misses it where he, or the machine, stands still
 * that long. What it returns waits until it has been seen.
 */
export async function glimpse(page: Page, selector: string, text = "", limit = 60_000): Promise<() => Promise<void>> {
  const watch = await page.evaluateHandle(
    ([selector, text, limit]) => {
      const there = () => [...document.querySelectorAll(selector)].some((e) => e.textContent?.includes(text));
      const seen = new Promise<boolean>((resolve) => {
        const end = (well: boolean) => {
          observer.disconnect();
          clearTimeout(timer);
          resolve(well);
        };
        const observer = new MutationObserver(() => there() && end(true));
        const timer = setTimeout(() => end(false), limit);
        observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
        if (there()) end(true);
      });
      return { seen };
    },
    [selector, text, limit] as const,
  );
  return async () => {
    if (!(await watch.evaluate(({ seen }) => seen))) throw new Error(`never seen: ${selector} ${text}`);
  };
}

/** Notes whatever the browser complains of in a page, but what is expected. */
export function listen(page: Page, complaints: string[], expected?: RegExp): void {
  // Virtual lists measure as they draw; what they don't get done in one frame they do in the next, and browsers say so.
  const usual = /^ResizeObserver loop/;
  page.on("pageerror", (error) => usual.test(error.message) || complaints.push(error.message));
  page.on("console", (m) => {
    if ((m.type() === "error" || m.type() === "warning") && !expected?.test(m.text()) && !usual.test(m.text())) complaints.push(m.text());
  });
}

export function startBrowser(more: string[] = []): Promise<Browser> {
  return chromium.launch({
    timeout: 120_000,
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...more,
    ],
  });
}

/** A line between a page and a comet that can be cut, and forbidden, as real networks do. */
export class Line {
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #open = true;
  port = 0;

  /** Listens on a port of its own, for a comet at host:port. */
  async start(host: string, port: number): Promise<void> {
    this.#server = createServer((near) => {
      if (!this.#open) {
        near.destroy();
        return;
      }
      const far = connect(port, host);
      for (const [from, to] of [[near, far], [far, near]] as const) {
        this.#sockets.add(from);
        from.on("error", () => {});
        from.on("close", () => {
          this.#sockets.delete(from);
          to.destroy();
        });
        from.pipe(to);
      }
    });
    await new Promise<void>((resolve) => this.#server?.listen(0, "127.0.0.1", resolve));
    this.port = (this.#server.address() as AddressInfo).port;
  }

  /** Breaks what is connected, and lets nobody through until mend(). */
  cut(): void {
    this.#open = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#open = true;
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server?.close(resolve) ?? resolve(undefined));
  }
}

/** Makes a page believe that all comets are at the line's end. */
export async function through(line: Line, context: BrowserContext, url: string): Promise<void> {
  const { endpoints } = await fetch(`${url}/v1/endpoints`).then((r) => r.json() as Promise<{ endpoints: { ws?: string }[] }>);
  const comet = new URL(endpoints.find((e) => e.ws)?.ws ?? "");
  await line.start(comet.hostname, Number(comet.port));
  comet.hostname = "127.0.0.1";
  comet.port = String(line.port);
  for (const path of ["**/v1/endpoints", "**/v1/demo/login"]) {
    await context.route(path, async (route) => {
      try {
        const response = await route.fetch();
        const body = (await response.json()) as object;
        await route.fulfill({ response, json: "endpoints" in body ? { ...body, endpoints: [{ ws: comet.href }] } : body });
      } catch {
        // A page whose line is cut asks again and again: also at the moment in which it is closed, where there is nobody to answer.
        await route.abort().catch(() => {});
      }
    });
  }
}

/** Keeps a picture, if HALLEY_SCREENSHOTS names a folder. */
export async function picture(page: Page, name: string): Promise<void> {
  const dir = process.env.HALLEY_SCREENSHOTS;
  if (!dir) return;
  mkdirSync(dir, { recursive: true });
  await page.screenshot({ animations: "disabled", path: join(dir, `${name}.png`) });
}

/** Makes a picture that stands in the docs anew, if HALLEY_DOCS_IMAGES is set. */
export async function docsPicture(page: Page, name: string): Promise<void> {
  if (!process.env.HALLEY_DOCS_IMAGES) return picture(page, name);
  await page.screenshot({ animations: "disabled", path: new URL(`../../../docs/images/${name}.png`, import.meta.url).pathname });
}
