import { defineConfig } from "vite";

const here = (path: string) => new URL(path, import.meta.url).pathname;

export default defineConfig({
  root: "app",
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  resolve: {
    alias: {
      "@halley-im/sdk/call": here("./sdk/src/call/index.ts"),
      "@halley-im/sdk": here("./sdk/src/index.ts"),
      // The virtual list is written for React.
      "react/jsx-runtime": "preact/jsx-runtime",
      "react-dom": "preact/compat",
      react: "preact/compat",
    },
  },
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    // light-dark() and nesting as they are; browsers from spring 2024 on.
    target: ["chrome123", "edge123", "firefox121", "safari17.5"],
    // The pages' policy allows no inline anything, and data: for images only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // fake.html is for development: the messenger on a world that it makes up.
    rolldownOptions: {
      input: ["index", "playground", "admin"].map((page) => here(`./app/${page}.html`)),
      // "use client" is for servers that render, which there are none of.
      checks: { moduleLevelDirective: false },
    },
  },
  // `npm run dev` against a Halley that runs here.
  server: { proxy: { "/v1": "http://127.0.0.1:3111" } },
});
