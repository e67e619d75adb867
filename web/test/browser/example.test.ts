// The smallest client, as it stands in example/: two people talk over a Halley.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Browser, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Halley, startBrowser, startHalley, until } from "./stack.ts";

let browser: Browser;
let http: Server;
let halley: Halley;
let url = "";

beforeAll(async () => {
  const root = new URL("../../example", import.meta.url).pathname;
  const built = (await build({ root, logLevel: "error", configFile: `${root}/vite.config.ts`, build: { write: false } })) as {
    output: { fileName: string; code?: string; source?: string | Uint8Array }[];
  };
  const files = new Map(built.output.map((f) => [`/${f.fileName}`, f.code ?? f.source ?? ""]));
  http = createServer(async (request, response) => {
    if (request.url?.startsWith("/v1/")) {
      let body = "";
      for await (const chunk of request) body += chunk;
      const answer = await fetch(halley.url + request.url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
      response.statusCode = answer.status;
      response.end(await answer.text());
      return;
    }
    const path = request.url?.split("?")[0] ?? "";
    response.setHeader("content-type", path.endsWith(".js") ? "text/javascript" : "text/html");
    response.end(files.get(path) ?? files.get("/index.html"));
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  [halley, browser] = await Promise.all([startHalley(), startBrowser()]);
}, 180_000);
afterAll(async () => {
  await browser?.close();
  await halley?.stop();
  http.closeAllConnections();
  await new Promise((resolve) => http.close(resolve));
});

it("lets two people talk, and shows text as text", async () => {
  const complaints: string[] = [];
  const open = async (me: string, to: string): Promise<Page> => {
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(30_000);
    page.on("pageerror", (error) => complaints.push(error.message));
    await page.goto(`${url}/?me=${me}&to=${to}`);
    await page.getByText(`${me} is online`).waitFor();
    return page;
  };
  // Names of this run's own: the Halley may be one that others use.
  const run = Date.now().toString(36);
  const [a, b] = [`ann-${run}`, `bob-${run}`];
  const [ann, bob] = [await open(a, b), await open(b, a)];
  const say = async (page: Page, text: string) => {
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.getByLabel("Message", { exact: true }).press("Enter");
  };
  await say(ann, "hello <b>bob</b>");
  await bob.getByText(`${a}: hello <b>bob</b>`).waitFor();
  await say(bob, "hello ann");
  await ann.getByText(`${b}: hello ann`).waitFor();
  await ann.reload();
  await ann.getByText(`${b}: hello ann`).waitFor();
  await until(async () => (await ann.locator("ol li").count()) === 2);
  expect(complaints).toEqual([]);
});
