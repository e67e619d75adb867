// Holds docs/sdk.md: what it shows of files is what stands there, what it shows of the SDK is right by its types, and the
// program in it runs; and what docs/calls.md shows of calls, which test/calls runs.
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

/** Fails where TypeScript finds something wrong with these files. */
function check(files: string[]): void {
  const dir = mkdtempSync(join(web, "sdk", ".docs-"));
  try {
    files.forEach((text, i) => writeFileSync(join(dir, `block${i}.ts`), text));
    const config = { extends: "../../tsconfig.base.json", compilerOptions: { noUnusedLocals: false, skipLibCheck: true }, include: ["*.ts"] };
    writeFileSync(join(dir, "tsconfig.json"), JSON.stringify(config));
    execFileSync(join(web, "node_modules/.bin/tsc"), ["-p", dir], { encoding: "utf8" });
  } catch (error) {
    throw new Error((error as { stdout?: string }).stdout || String(error));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

it("shows a call in one's own page, in 30 lines", { timeout: 180_000 }, () => {
  const calls = readFileSync(new URL("../docs/calls.md", `file://${web}`), "utf8");
  const blocks = [...calls.matchAll(/```ts\n([^]*?)```/g)].map((m) => m[1] ?? "");
  expect(blocks).toHaveLength(2);
  expect(blocks[0]?.split("\n").filter((line) => line.trim() !== "").length).toBeLessThanOrEqual(30);
  const here = (text: string) => text.replaceAll("@halley-im/sdk/call", "../src/call/index.ts").replaceAll('"@halley-im/sdk"', '"../src/index.ts"');
  check([
    `declare function fetchToken(): Promise<string>; ${here(blocks[0] ?? "")}`,
    `import type { Chat } from "../src/index.ts"; declare const chat: Chat; ${here(blocks[1] ?? "")} export { problem, results };`,
  ]);
});

it("shows calls that there are", { timeout: 180_000 }, () => {
  const blocks = [...page.matchAll(/```ts\n([^]*?)```/g)].map((m) => m[1]);
  expect(blocks.length).toBeGreaterThan(5);
  check(
    blocks.map((block) => {
      const declared = `${block?.includes("const chat") ? "" : "declare const chat: Chat;"} ${block?.includes("const timeline") ? "" : "declare const timeline: Timeline;"}`;
      return `import { Chat, Client, directId, type Entry, peerOf, Timeline } from "../src/index.ts";
         declare const open: string; declare function draw(entries: readonly Entry[]): void; declare function fetchToken(): Promise<string>;
         ${declared}
         ${block}
         export { Chat, Client, directId, peerOf, Timeline, chat, timeline, open, draw, fetchToken };`;
    }),
  );
});

it("shows a program that runs", { timeout: 180_000 }, async () => {
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
