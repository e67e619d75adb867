import { defineConfig } from "vite";

// `npm run example`, with `make run` in another terminal.
export default defineConfig({
  root: import.meta.dirname,
  resolve: { alias: { "@halley-im/sdk": new URL("../sdk/src/index.ts", import.meta.url).pathname } },
  server: { port: 3110, proxy: { "/v1": process.env.HALLEY_URL ?? "http://127.0.0.1:3111" } },
});
