// Holds docs/sdk.md: what it shows of files is what stands there, what it shows of the SDK is right by its types, and the
// program in it runs.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, it } from "vitest";
import { Tiny } from "../../test/tiny.ts";

const web = new URL("../../", import.meta.url).pathname;
const page = readFileSync(new URL("../docs/sdk.md", `file://${web}`), "utf8");

it("shows files as they are", () => {
  const shown = [...page.matchAll(/```(?:js|ts|go)\n\/\/ ((?:web|client)\/\S+)\n\n?([^]*?)```/g)];
  expect(shown.map((m) => m[1])).toEqual(["web/example/terminal.mjs", "client/example_test.go"]);
  for (const [, name, text] of shown) expect(readFileSync(join(web, "..", name ?? ""), "utf8")).toContain((text ?? "").trim());
});

it("shows calls that there are", { timeout: 60_000 }, () => {
  const blocks = [...page.matchAll(/```ts\n([^]*?)```/g)].map((m) => m[1]);
  expect(blocks.length).toBeGreaterThan(5);
  const dir = mkdtempSync(join(web, "sdk", ".docs-"));
  try {
    blocks.forEach((block, i) => {
      const declared = `${block?.includes("const chat") ? "" : "declare const chat: Chat;"} ${block?.includes("const timeline") ? "" : "declare const timeline: Timeline;"}`;
      writeFileSync(
        join(dir, `block${i}.ts`),
        `import { Chat, Client, directId, type Entry, peerOf, Timeline } from "../src/index.ts";
         declare const open: string; declare function draw(entries: readonly Entry[]): void; declare function fetchToken(): Promise<string>;
         ${declared}
         ${block}
         export { Chat, Client, directId, peerOf, Timeline, chat, timeline, open, draw, fetchToken };`,
      );
    });
    const config = { extends: "../../tsconfig.base.json", compilerOptions: { noUnusedLocals: false, skipLibCheck: true }, include: ["*.ts"] };
    writeFileSync(join(dir, "tsconfig.json"), JSON.stringify(config));
    execFileSync(join(web, "node_modules/.bin/tsc"), ["-p", dir], { encoding: "utf8" });
  } catch (error) {
    throw new Error((error as { stdout?: string }).stdout || String(error));
  } finally {
    rmSync(dir, { recursive: true });
  }
});

it("shows a program that runs", { timeout: 60_000 }, async () => {
  execFileSync("npm", ["run", "--silent", "build:sdk"], { cwd: web, stdio: "pipe" });
  const http = createServer();
  const tiny = new Tiny(http);
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const url = `ws://127.0.0.1:${(http.address() as AddressInfo).port}/sub`;
  const people = [["ann", "bob"], ["bob", "ann"]].map(([me, to]) => {
    const child = spawn(process.execPath, ["example/terminal.mjs", url, me ?? "", me ?? "", to ?? ""], { cwd: web, stdio: ["pipe", "pipe", "inherit"] });
    let out = "";
    const told = (text: string) =>
      new Promise<void>((resolve, reject) => {
        const look = () => out.includes(text) && resolve();
        child.stdout.on("data", (b: Buffer) => {
          out += b.toString();
          look();
        });
        child.on("exit", () => reject(new Error(`it ended after: ${out}`)));
        look();
      });
    return { child, told };
  });
  const [ann, bob] = people as [(typeof people)[0], (typeof people)[0]];
  try {
    await Promise.all([ann.told("-- online"), bob.told("-- online")]);
    ann.child.stdin.write("hello bob\n");
    await bob.told("ann: hello bob");
    await ann.told('-- "hello bob" is stored');
    bob.child.stdin.write("hello ann\n");
    await ann.told("bob: hello ann");
  } finally {
    for (const { child } of people) child.kill();
    for (const socket of tiny.sockets.keys()) socket.terminate();
    await new Promise((resolve) => http.close(resolve));
  }
});
