import { defineConfig } from "vite";

export default defineConfig({
  root: "app",
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  resolve: { alias: { "@halley-im/sdk": new URL("./sdk/src/index.ts", import.meta.url).pathname } },
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    // light-dark() and nesting as they are; browsers from spring 2024 on.
    target: ["chrome123", "edge123", "firefox121", "safari17.5"],
    // The one page's policy allows no inline anything, and data: for images only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `npm run dev` against a Halley that runs here.
  server: { proxy: { "/v1": "http://127.0.0.1:3111" } },
});
