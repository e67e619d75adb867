// Measures the SDK as an application would ship it: all of it, bundled, minified, gzipped. Fails when it is too large.
import { gzipSync } from "node:zlib";
import { build } from "vite";

const most = 30 * 1024;

const { output } = (
  await build({
    configFile: false,
    logLevel: "error",
    root: new URL("..", import.meta.url).pathname,
    build: {
      write: false,
      target: "es2022",
      minify: true,
      lib: { entry: new URL("../sdk/src/index.ts", import.meta.url).pathname, formats: ["es"] },
    },
  })
)[0];
const code = output.map((chunk) => chunk.code ?? "").join("");
const size = gzipSync(code, { level: 9 }).length;
console.log(`SDK: ${code.length} bytes minified, ${size} gzipped (at most ${most})`);
if (/\bfrom\s*["'][^"']+["']|\bimport\(/.test(code)) {
  console.error("it imports something at run time");
  process.exit(1);
}
if (size > most) process.exit(1);
