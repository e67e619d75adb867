// Tells whether dist is what the sources build to: it is committed, so that `go build` needs no Node, and must not
// be older than they are.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "vite";

const root = new URL("..", import.meta.url).pathname;
const fresh = mkdtempSync(join(tmpdir(), "halley-dist-"));

function files(dir) {
  const names = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((e) => e.isFile());
  return new Map(names.map((e) => [join(e.parentPath, e.name).slice(dir.length + 1), readFileSync(join(e.parentPath, e.name))]).sort());
}

try {
  await build({ configFile: join(root, "vite.config.ts"), root: join(root, "app"), logLevel: "warn", build: { outDir: fresh } });
  const [want, got] = [files(fresh), files(join(root, "dist"))];
  const stale = [...new Set([...want.keys(), ...got.keys()])].filter((name) => !got.get(name)?.equals(want.get(name) ?? Buffer.alloc(0)));
  if (stale.length > 0) {
    console.error(`web/dist is stale (npm run build, and commit it): ${stale.join(", ")}`);
    process.exitCode = 1;
  }
} finally {
  rmSync(fresh, { recursive: true });
}
