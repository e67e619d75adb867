import { defineConfig } from "vitest/config";

const here = (path: string) => new URL(path, import.meta.url).pathname;
const alias = { "@halley-im/sdk/call": here("./sdk/src/call/index.ts"), "@halley-im/sdk": here("./sdk/src/index.ts") };

export default defineConfig({
  test: {
    projects: [
      {
        resolve: { alias },
        test: {
          name: "unit",
          include: ["sdk/test/**/*.test.ts", "app/test/**/*.test.ts"],
          sequence: { shuffle: true },
          restoreMocks: true,
          // They take a moment each. Only a machine on which much else runs needs more, and it may stand still for seconds.
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        // One real Chromium after the other: two cores are few.
        test: { name: "browser", include: ["test/browser/**/*.test.ts"], testTimeout: 180_000, hookTimeout: 180_000, fileParallelism: false },
      },
      {
        // Longer, and in a network of their own: scripts/calls.sh.
        test: { name: "calls", include: ["test/calls/**/*.test.ts"], testTimeout: 120_000, hookTimeout: 180_000, fileParallelism: false },
      },
    ],
  },
});
