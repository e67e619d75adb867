// Measures the SDK as an application would ship it: bundled, minified, gzipped, calls in a chunk of their own that is loaded when a call begins.
// Fails when it is too large, or when who doesn't call loads something of calls.
import { gzipSync } from "node:zlib";
import { build } from "vite";

const most = { chat: 30 * 1024, call: 20 * 1024 };

const source = (path) => new URL(`../sdk/src/${path}`, import.meta.url).pathname;
const { output } = (
  await build({
    configFile: false,
    logLevel: "error",
    root: new URL("..", import.meta.url).pathname,
    build: {
      write: false,
      target: "es2022",
      minify: true,
      lib: { entry: { chat: source("index.ts"), call: source("call/index.ts") }, formats: ["es"] },
    },
  })
)[0];
const chunks = new Map(output.filter((o) => o.type === "chunk").map((c) => [c.fileName, c]));

/** A chunk with all that it loads, but for what is there already. */
function loads(name, there = new Set(), all = new Set()) {
  if (there.has(name) || all.has(name)) return all;
  const chunk = chunks.get(name);
  if (!chunk) throw new Error(`something is imported at run time: ${name}`);
  all.add(name);
  for (const other of [...chunk.imports, ...chunk.dynamicImports]) loads(other, there, all);
  return all;
}

const entry = (name) => [...chunks.values()].find((c) => c.isEntry && c.name === name).fileName;
const chat = loads(entry("chat"));
const parts = { chat, call: loads(entry("call"), chat) };
for (const [name, files] of Object.entries(parts)) {
  const code = [...files].map((file) => chunks.get(file).code).join("");
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`SDK, ${name}: ${code.length} bytes minified, ${size} gzipped (at most ${most[name]})`);
  if (size > most[name]) process.exitCode = 1;
}
const stray = [...chat].flatMap((file) => chunks.get(file).moduleIds).filter((id) => id.startsWith(source("call/")));
if (stray.length > 0) {
  console.error(`loaded by who doesn't call: ${stray.join(", ")}`);
  process.exitCode = 1;
}
