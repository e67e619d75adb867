// The messenger on its made-up world, built as it is shipped and served under the policy under which logic serves it.
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { build } from "vite";

const types: Record<string, string> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json" };

/** The policy in logic's own words. */
function policy(): string {
  const source = readFileSync(new URL("../../../logic/internal/httpapi/web.go", import.meta.url), "utf8");
  const text = /const webPolicy = ([\s\S]*?)\n\n/.exec(source)?.[1] ?? "";
  return [...text.matchAll(/"([^"]*)"/g)].map((m) => m[1]).join("");
}

export interface FakeSite {
  url: string;
  stop(): Promise<void>;
}

export async function startFakeSite(): Promise<FakeSite> {
  const dir = mkdtempSync(join(tmpdir(), "halley-fake-"));
  const root = new URL("../..", import.meta.url).pathname;
  await build({ configFile: join(root, "vite.config.ts"), root: join(root, "app"), mode: "fake", logLevel: "warn", build: { outDir: dir } });
  const csp = policy();
  if (!csp.includes("default-src 'none'")) throw new Error("logic's policy was not found");
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url ?? "/", "http://x").pathname);
    const name = path === "/" ? "index.html" : /^\/\w+$/.test(path) ? `${path}.html` : path;
    try {
      const body = readFileSync(join(dir, name));
      const tag = `"${createHash("sha256").update(body).digest("hex").slice(0, 24)}"`;
      response.writeHead(200, {
        ETag: tag,
        "Content-Type": types[extname(name)] ?? "application/octet-stream",
        "Content-Security-Policy": csp,
        "X-Content-Type-Options": "nosniff",
      });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(dir, { recursive: true });
    },
  };
}
