import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { globals: true, include: ["tests/*.test.js"], maxWorkers: 1, testTimeout: 60000, hookTimeout: 60000 },
});
