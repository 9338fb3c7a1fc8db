import { defineConfig } from "vite";

// The page is served from the root of the server, next to its API; `npm run dev` sends the API to a running server.
export default defineConfig({
  build: {
    outDir: "../src/sphinx_nvs/server/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    chunkSizeWarningLimit: 1000,
  },
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8000", ws: true } } },
  test: { include: ["test/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
