// The page in a real browser, against a real server with the embedded pair. Run by tests/server/test_page_browser.py.
//
//   SPHINX_PYTHON=.venv/bin/python CHROMIUM=/usr/bin/chromium node --test web/browser/page.test.mjs
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const AXE = readFileSync(fileURLToPath(import.meta.resolve("axe-core/axe.min.js")), "utf8");
const WAIT_MS = 90_000;
const folder = mkdtempSync(join(tmpdir(), "sphinx-page-"));
let server, url, port, browser, page;
const complaints = [];

/** Starts a server; the same folder and port make it the same server after a restart. */
async function serve() {
  const words = ["-m", "sphinx_nvs.cli", "serve", "--folder", join(folder, "server"), "--port", String(port ?? 0)];
  server = spawn(process.env.SPHINX_PYTHON, [...words, "--drain-s", "0", "--log-level", "error"], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  for await (const piece of server.stdout) {
    said += piece;
    const match = /at (http:\/\/127\.0\.0\.1:(\d+)) /.exec(said);
    if (!match) continue;
    [url, port] = [match[1], Number(match[2])];
    return;
  }
  throw new Error(`The server did not start: ${said}`);
}

async function stop() {
  const ended = new Promise((done) => server.once("exit", done));
  server.kill("SIGTERM");
  await ended;
}

before(async () => {
  await serve();
  const args = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  const context = await browser.newContext({ viewport: { width: 1000, height: 640 }, acceptDownloads: true, reducedMotion: "reduce" });
  page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => /Content Security Policy/i.test(message.text()) && complaints.push(message.text()));
  await page.goto(url);
  await page.waitForFunction(() => document.querySelector("#quote-time").textContent !== "–");
});

after(async () => {
  await browser?.close();
  if (server?.exitCode === null) await stop();
  rmSync(folder, { recursive: true, force: true });
});

/** A video that takes little: the smallest size, few frames. */
async function small(length = "1", fps = "8") {
  await page.click("#tab-fly");
  await page.selectOption("#length", length);
  await page.selectOption("#fps", fps);
  await page.selectOption("#size", { index: 0 });
}

/** Presses “Make a video”; returns the job's id once the page shows it. */
async function make() {
  const before = page.url();
  await page.click("#make");
  await page.waitForURL((now) => now.hash.startsWith("#/job/") && String(now) !== before);
  return page.url().split("/").at(-1);
}

async function seriousProblems() {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ["violations"] }));
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(", ")}`);
}

test("the demo becomes a video that can be saved", async () => {
  await small();
  await make();
  await page.waitForSelector("#download");
  assert.match(await page.textContent("#job-sentence"), /^Done in .* at quality \d+ %$/);
  assert.equal(await page.locator(".thumb").count(), 8);
  await page.waitForFunction(() => document.querySelectorAll(".thumb[data-level=final]").length === 8);
  const [saved] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  assert.equal(readFileSync(await saved.path()).subarray(4, 8).toString(), "ftyp");
  await page.click("#job-actions summary");
  await page.click("#share");
  const told = await page.waitForSelector(".toast:has-text('/shared/')");
  const link = /http\S+\/shared\/[\w-]+/.exec(await told.textContent())[0];
  const shared = await page.context().newPage();
  await shared.goto(link);
  await shared.waitForSelector("video");
  assert.equal((await shared.request.get(`${link}/video.mp4`)).headers()["content-type"], "video/mp4");
  await shared.close();
  await page.click(".thumb >> nth=4");
  const picture = () => page.evaluate(() => document.querySelector("#final").toDataURL());
  const before = await picture();
  await page.click("#show-plan");
  await page.waitForFunction((old) => document.querySelector("#final").toDataURL() !== old, before);
  await page.click("#show-wipe");
  assert.equal(await page.locator("#wipe").isVisible(), true);
});

test("nothing serious hinders people with disabilities", async () => {
  assert.deepEqual(await seriousProblems(), []);
  await page.click("#tab-overview");
  await page.click("#add");
  assert.deepEqual(await seriousProblems(), []);
  await page.click("#upload-close");
  await page.click("#nav-operations");
  await page.waitForSelector(".card .figure");
  assert.deepEqual(await seriousProblems(), []);
  await page.click("#nav-studio");
});

test("the dial moves the quote, by keyboard, too", async () => {
  await page.click("#tab-fly");
  const quoted = () => page.textContent("#quote-quality");
  const before = await quoted();
  const { data } = await page.evaluate(async () => (await fetch("/v1/models")).json());
  assert.equal(await page.textContent(".dial-value"), `${100 * data[0].default_quality} %`);
  await page.focus("#dial input");
  await page.keyboard.press("Home");
  await page.waitForFunction((old) => document.querySelector("#quote-quality").textContent !== old, before);
  assert.equal(await quoted(), "0 %");
  assert.equal(await page.textContent(".dial-value"), "0 %");
  await page.click("#by-deadline");
  await page.focus("#dial input");
  await page.keyboard.press("End");
  await page.waitForFunction(() => document.querySelector("#quote-quality").textContent !== "0 %");
  await page.click("#by-quality");
});

test("keyframes are added, moved and taken back", async () => {
  await page.click("#tab-overview");
  await page.click("[data-preset=photos]");
  assert.equal(await page.locator(".mark").count(), 2);
  await page.click("#add-key");
  assert.equal(await page.locator(".mark").count(), 3);
  await page.focus(".mark >> nth=1");
  const place = () => page.locator(".mark >> nth=1").evaluate((mark) => mark.style.left);
  const before = await place();
  await page.keyboard.press("ArrowLeft");
  assert.notEqual(await place(), before);
  await page.click("#undo");
  assert.equal(await place(), before);
  await page.click("#undo");
  assert.equal(await page.locator(".mark").count(), 2);
});

test("the live view moves and is refined", async (context) => {
  await page.click("#tab-fly");
  const isThere = await page.evaluate(
    () =>
      new Promise((done) => {
        const socket = new WebSocket(`ws://${location.host}/v1/scenes/demo/live`, ["sphinx-live.v1"]);
        socket.onopen = () => (socket.close(), done(true));
        socket.onerror = () => done(false);
      }),
  );
  if (!isThere) return context.skip("this server has no live session");
  await page.waitForSelector("#badge[data-status=refined]");
  const picture = () => page.evaluate(() => document.querySelector("#live").toDataURL());
  const before = await picture();
  await page.focus("#view");
  await page.keyboard.down("d");
  await page.waitForFunction((old) => document.querySelector("#live").toDataURL() !== old, before);
  await page.keyboard.up("d");
  await page.waitForSelector("#badge[data-status=refined]");
});

test("a job is cancelled", async () => {
  await small("4", "24");
  await page.focus("#dial input");
  await page.keyboard.press("End");
  await make();
  await page.click("#cancel");
  await page.waitForSelector("#retry");
  assert.match(await page.textContent("#job-sentence"), /^Cancelled/);
});

test("a job goes on over a reload of the page and a restart of the server", async () => {
  await small("2", "12");
  await page.focus("#dial input");
  await page.keyboard.press("Home");
  const id = await make();
  await page.reload();
  assert.equal(page.url().endsWith(id), true);
  await page.waitForSelector(".thumb");
  await stop();
  await page.waitForFunction(() => /^(Connection lost|Done)/.test(document.querySelector("#job-sentence").textContent));
  await serve();
  await page.waitForSelector("#download");
  await page.waitForFunction(() => document.querySelectorAll(".thumb[data-level=final]").length === 24);
  assert.equal(await page.locator(".history a").count() >= 3, true);
});

/** Two photos from a walk through a drawn room, without cameras. */
function photos() {
  const [to, helpers] = [join(folder, "walk"), fileURLToPath(new URL("../../tests/posing", import.meta.url))];
  mkdirSync(to);
  const code = `import sys; sys.path.insert(0, sys.argv[2])
from PIL import Image
from posing_helpers import walked
for i, photo in enumerate(walked(2)):
    Image.fromarray(photo.clip(0, 255).round().astype("uint8")).save(f"{sys.argv[1]}/{i}.jpg", quality=95)`;
  execFileSync(process.env.SPHINX_PYTHON, ["-c", code, to, helpers]);
  return readdirSync(to).map((name) => join(to, name));
}

test("photos without cameras become a scene, and that a video by a deadline", async () => {
  await page.setInputFiles("#pick-photos", photos());
  await page.waitForSelector("#posing h2:text('Finding the cameras')");
  await page.waitForURL((now) => now.hash.startsWith("#/scene/"));
  const scene = page.url().split("/").at(-1);
  await page.waitForFunction((id) => document.querySelector("#scene").value === id, scene);
  await small();
  await page.click("#by-deadline");
  await page.focus("#dial input");
  await page.keyboard.press("Home");
  assert.equal(await page.textContent(".dial-value"), "5.0 s");
  await page.selectOption("#floor", "0.5");
  const id = await make();
  // The page shows the job before this one until it knows the new one.
  await page.waitForFunction(() => document.querySelectorAll(".thumb[data-level=final]").length === 8);
  await page.waitForFunction(() => /^Done in/.test(document.querySelector("#job-sentence").textContent));
  const job = await page.evaluate(async (path) => (await fetch(path)).json(), `/v1/jobs/${id}`);
  assert.deepEqual([job.scene, job.level, job.num_frames], [scene, "final", 8]);
  assert.deepEqual(job.requested, { quality: null, deadline_s: 5, min_quality: 0.5 });
  assert.match(await page.textContent("#job-info"), /\d % of full compute/);
  await page.click("#job-actions summary");
  const [saved] = await Promise.all([page.waitForEvent("download"), page.click("#download-points")]);
  assert.match(readFileSync(await saved.path(), "latin1"), /^ply\nformat binary/);
});

test("a refused upload shows the server's sentence", async () => {
  const photo = join(folder, "photo.jpg");
  writeFileSync(photo, "this is no photo");
  await page.setInputFiles("#pick-photos", photo);
  await page.waitForSelector("#posing.failed [role=alert], #posing.failed p");
  const text = await page.textContent("#posing");
  assert.match(text, /photo|images/);
  assert.match(text, /; /);
});

test("the page fits a phone", async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  for (const tab of ["#tab-watch", "#tab-overview", "#tab-fly"]) {
    await page.click(tab);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  }
});

test("nothing was blocked by the page's policy, and nothing failed unseen", () => {
  assert.deepEqual(complaints, []);
});
