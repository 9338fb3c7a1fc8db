// Writes the digest of the sources into the built page, and the licences of what is built into it;
// tests/server/test_page_routes.py computes the same digest.
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

const bundled = Object.keys(JSON.parse(readFileSync("package.json", "utf8")).dependencies).sort();
const licences = bundled.map((name) => `${name}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`);
writeFileSync(join(root, "../src/sphinx_nvs/server/page/third-party.txt"), licences.join("\n\n"));
