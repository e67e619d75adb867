import { defineConfig } from "vitest/config";

const alias = { "@halley-im/sdk": new URL("./sdk/src/index.ts", import.meta.url).pathname };

export default defineConfig({
  test: {
    projects: [
      {
        resolve: { alias },
        test: { name: "unit", include: ["sdk/test/**/*.test.ts", "app/test/**/*.test.ts"], sequence: { shuffle: true }, restoreMocks: true },
      },
      {
        // One real Chromium after the other: two cores are few.
        test: { name: "browser", include: ["test/browser/**/*.test.ts"], testTimeout: 60_000, hookTimeout: 60_000, fileParallelism: false },
      },
    ],
  },
});
