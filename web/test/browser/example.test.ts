// The smallest client, as it stands in example/: two people talk.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Browser, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Tiny } from "../tiny.ts";
import { startBrowser } from "./stack.ts";

let browser: Browser;
let http: Server;
let tiny: Tiny;
let url = "";

beforeAll(async () => {
  const root = new URL("../../example", import.meta.url).pathname;
  const built = (await build({ root, logLevel: "error", configFile: `${root}/vite.config.ts`, build: { write: false } })) as {
    output: { fileName: string; code?: string; source?: string | Uint8Array }[];
  };
  const files = new Map(built.output.map((f) => [`/${f.fileName}`, f.code ?? f.source ?? ""]));
  http = createServer(async (request, response) => {
    if (request.url === "/v1/demo/login") {
      let body = "";
      for await (const chunk of request) body += chunk;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ token: JSON.parse(body).name, endpoints: [{ ws: `${url.replace("http", "ws")}/sub` }] }));
      return;
    }
    const path = request.url?.split("?")[0] ?? "";
    response.setHeader("content-type", path.endsWith(".js") ? "text/javascript" : "text/html");
    response.end(files.get(path) ?? files.get("/index.html"));
  });
  tiny = new Tiny(http);
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  browser = await startBrowser();
}, 60_000);
afterAll(async () => {
  await browser?.close();
  for (const socket of tiny.sockets.keys()) socket.terminate();
  await new Promise((resolve) => http.close(resolve));
});

it("lets two people talk, and shows text as text", async () => {
  const complaints: string[] = [];
  const open = async (me: string, to: string): Promise<Page> => {
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(10_000);
    page.on("pageerror", (error) => complaints.push(error.message));
    await page.goto(`${url}/?me=${me}&to=${to}`);
    await page.getByText(`${me} is online`).waitFor();
    return page;
  };
  const [ann, bob] = [await open("ann", "bob"), await open("bob", "ann")];
  const say = async (page: Page, text: string) => {
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.keyboard.press("Enter");
  };
  await say(ann, "hello <b>bob</b>");
  await bob.getByText("ann: hello <b>bob</b>").waitFor();
  await say(bob, "hello ann");
  await ann.getByText("bob: hello ann").waitFor();
  await ann.reload();
  await ann.getByText("bob: hello ann").waitFor();
  expect(await ann.locator("ol li").count()).toBe(2);
  expect(complaints).toEqual([]);
});
