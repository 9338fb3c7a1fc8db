// Writes the digest of the sources into the built page; tests/server/test_page_build.py computes the same.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const FILES = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "stamp.mjs"];
const FOLDERS = ["src", "public"];

function below(folder) {
  try {
    return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
      const path = `${folder}/${entry.name}`;
      return entry.isDirectory() ? below(path) : [path];
    });
  } catch {
    return [];
  }
}

const root = import.meta.dirname;
process.chdir(root);
const digest = createHash("sha256");
for (const path of [...FILES, ...FOLDERS.flatMap(below)].sort()) {
  digest.update(`${path}\0${createHash("sha256").update(readFileSync(path)).digest("hex")}\n`);
}
writeFileSync(join(root, "../src/sphinx_nvs/server/page/source.sha256"), `${digest.digest("hex")}\n`);
