// The page of docs/calls.md, as it stands there: two of it call each other.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, expect, it } from "vitest";
import { madeUp } from "../browser/caller.ts";
import { realHalley } from "../browser/real.ts";
import { until } from "../browser/stack.ts";

const web = new URL("../../", import.meta.url).pathname;
const real = realHalley(madeUp);
let http: Server;
let dir = "";

/** What the page leaves to whoever embeds it: elements, a token, and who one is. */
const html = `<!doctype html><title>call</title><video autoplay></video><p></p>
<button id="dial">dial</button><button id="hangup">hang up</button><button id="mute">mute</button><script type="module" src="./main.ts"></script>`;
const around = `const me = new URLSearchParams(location.search).get("me")!;
const logIn = async () => (await fetch("/v1/demo/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ name: me }) })).json();
const { endpoints: [{ ws }] } = await logIn();
const fetchToken = async () => (await logIn()).token;
`;

beforeAll(async () => {
  const [, page = ""] = /```ts\n([^]*?)```/.exec(readFileSync(join(web, "../docs/calls.md"), "utf8")) ?? [];
  const named = page.replace('"wss://im.example.org/sub"', "ws").replace('account: "ann"', "account: me").replace("chat.start();", 'chat.on("state", (s) => (document.querySelector("p")!.textContent = s.name));\nchat.start();');
  expect(named).not.toContain("im.example.org");
  dir = mkdtempSync(join(web, ".page-"));
  writeFileSync(join(dir, "index.html"), html);
  const [first = "", ...rest] = named.split("\n");
  writeFileSync(join(dir, "main.ts"), [first, around, ...rest].join("\n"));
  const alias = { "@halley-im/sdk/call": join(web, "sdk/src/call/index.ts"), "@halley-im/sdk": join(web, "sdk/src/index.ts") };
  const built = (await build({ root: dir, logLevel: "error", configFile: false, resolve: { alias }, build: { write: false, target: "es2022" } })) as {
    output: { fileName: string; code?: string; source?: string | Uint8Array }[];
  };
  const files = new Map(built.output.map((f) => [`/${f.fileName}`, f.code ?? f.source ?? ""]));
  http = createServer(async (request, response) => {
    const path = request.url?.split("?")[0] ?? "";
    if (path.startsWith("/v1/")) {
      let body = "";
      for await (const chunk of request) body += chunk;
      const answer = await fetch(real.halley().url + path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
      response.statusCode = answer.status;
      response.end(await answer.text());
      return;
    }
    response.setHeader("content-type", path.endsWith(".js") ? "text/javascript" : "text/html");
    response.end(files.get(path) ?? files.get("/index.html"));
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
});
afterAll(async () => {
  http?.closeAllConnections();
  await new Promise((resolve) => http?.close(resolve) ?? resolve(undefined));
  if (dir) rmSync(dir, { recursive: true });
});

it("a call between two pages of 30 lines: each sees the other, one hangs up", async () => {
  const open = async (me: string): Promise<Page> => {
    const page = await real.visit("/licenses.txt");
    page.on("dialog", (dialog) => void dialog.accept());
    await page.goto(`http://127.0.0.1:${(http.address() as AddressInfo).port}/?me=${me}`);
    await page.getByText("online", { exact: true }).waitFor();
    return page;
  };
  const [ann, bob] = [await open("ann"), await open("bob")];
  const pictures = (page: Page) =>
    page.evaluate(() => {
      const video = document.querySelector("video");
      return video?.srcObject && video.videoWidth > 0 ? video.getVideoPlaybackQuality().totalVideoFrames : 0;
    });
  await ann.getByRole("button", { name: "dial" }).click();
  for (const page of [ann, bob]) await until(async () => (await pictures(page)) > 10);
  console.log(`${await pictures(ann)} pictures at ann, ${await pictures(bob)} at bob`);
  await bob.getByRole("button", { name: "hang up" }).click();
  for (const page of [ann, bob]) await until(async () => page.evaluate(() => document.querySelector("video")?.srcObject === null));
});
