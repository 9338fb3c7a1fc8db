/** The page: which part is shown, dialogs, scenes and the history. */

import { apiKey, deleteScene, getScene, getScenes, Problem, setApiKey, setOnUnauthorized, type Job, type Scene } from "./api";
import { announce, byId, h, reportError } from "./dom";
import { remembered, type Remembered } from "./history";
import { JobPanel } from "./job_panel";
import { percent, seconds } from "./job_state";
import { Operations } from "./operations";
import { Studio } from "./studio";
import { droppedFiles, followPosing, partsOf, sendScene, type NamedFile } from "./upload";

type Tab = "fly" | "overview" | "watch";

const panel = new JobPanel(
  (job) => openJob(job.id),
  () => (location.hash = "#/"),
);
const studio = new Studio((job: Job) => openJob(job.id));
const operations = new Operations(byId("operations"));
let posing = new AbortController();
let tab: Tab = "fly";

function openJob(id: string): void {
  window.scrollTo({ top: 0 });
  location.hash = `#/job/${id}`;
}

function showTab(next: Tab): void {
  tab = next;
  for (const name of ["fly", "overview", "watch"]) {
    const button = byId(`tab-${name}`);
    button.setAttribute("aria-selected", String(name === tab));
    button.tabIndex = name === tab ? 0 : -1;
  }
  const isWatch = tab === "watch";
  byId("watch").hidden = byId("watch-tools").hidden = byId("job-tray").hidden = !isWatch;
  byId("view").hidden = byId("fly-tools").hidden = byId("path-tray").hidden = isWatch;
  studio.mode = tab === "watch" ? "hidden" : tab;
  if (!isWatch) panel.player.play(false);
}

/** Shows what the address names. */
async function route(): Promise<void> {
  const [, kind = "", id = ""] = location.hash.split("/");
  const isOperations = kind === "operations";
  byId("operations").hidden = !isOperations;
  byId("studio").hidden = isOperations;
  byId("nav-operations").toggleAttribute("aria-current", isOperations);
  byId("nav-studio").toggleAttribute("aria-current", !isOperations);
  if (isOperations) {
    studio.mode = "hidden";
    panel.player.play(false);
    return operations.open();
  }
  operations.close();
  if (kind === "job") {
    showTab("watch");
    void panel.open(id).then(showHistory).catch(reportError);
    const job = remembered().find((each) => each.id === id);
    if (!studio.scene) await openScene(job?.scene ?? "demo");
    showHistory();
    return;
  }
  if (kind === "scene" && id !== studio.scene?.id) await openScene(id);
  else if (!studio.scene) await openScene("demo");
  if (tab === "watch" || kind === "scene") showTab("fly");
  else showTab(tab);
}

async function openScene(id: string): Promise<void> {
  try {
    const scene = await getScene(id);
    if (scene.status === "posing") {
      byId<HTMLSelectElement>("scene").value = id;
      void watchPosing(scene);
      if (!studio.scene) await studio.open("demo");
      return;
    }
    if (scene.status === "failed") return showPosing(scene);
    await studio.open(id);
    showNotes(scene);
  } catch (error) {
    if (error instanceof Problem && error.status === 404 && id !== "demo") {
      announce("This scene is not on the server any more.", "error");
      location.hash = "#/";
      return;
    }
    reportError(error);
    if (error instanceof Problem && (error.status === 0 || error.status === 503)) setTimeout(() => void route(), 3000);
  } finally {
    void fillScenes();
  }
}

/** What the server found in a scene that may lower the quality of frames. */
function showNotes({ warnings }: Scene): void {
  const notes = byId<HTMLDetailsElement>("notes");
  notes.hidden = warnings.length === 0;
  notes.open = false;
  (notes.querySelector("summary") as HTMLElement).textContent = warnings.length === 1 ? "A note on this scene" : `${warnings.length} notes on this scene`;
  notes.querySelector("ul")?.replaceChildren(...warnings.map((text) => h("li", {}, text)));
}

async function fillScenes(): Promise<void> {
  try {
    const scenes = await getScenes();
    const title = (scene: Scene): string => {
      const what = scene.status === "ready" ? `${scene.num_views} photos` : scene.status === "posing" ? "being prepared" : "failed";
      return `Scene ${scene.id.slice(-6)} · ${what}`;
    };
    const select = byId<HTMLSelectElement>("scene");
    select.replaceChildren(
      h("option", { value: "demo" }, "Demo · motorcycle"),
      ...scenes.filter(({ id }) => id !== "demo").map((scene) => h("option", { value: scene.id }, title(scene))),
    );
    select.value = studio.scene?.id ?? "demo";
  } catch {
    // The scene itself has reported what is wrong.
  }
}

// Uploads.

async function upload(files: NamedFile[]): Promise<void> {
  byId<HTMLDialogElement>("upload-dialog").close();
  posing.abort();
  posing = new AbortController();
  const { signal } = posing;
  try {
    const parts = partsOf(files);
    progress("Sending", parts.length === 1 ? parts[0].file.name : `${parts.length} files`, 0, () => posing.abort());
    const scene = await sendScene(parts, (share) => progress("Sending", "", share, () => posing.abort()), signal);
    if (scene.status === "posing") return await watchPosing(scene);
    byId("posing").hidden = true;
    location.hash = `#/scene/${scene.id}`;
  } catch (error) {
    byId("posing").hidden = true;
    if (!signal.aborted) showRefusal(error instanceof Error ? error.message : String(error));
  }
}

async function watchPosing(scene: Scene): Promise<void> {
  posing.abort();
  posing = new AbortController();
  void fillScenes();
  let last = scene;
  showPosing(scene);
  await followPosing(scene.id, (now) => showPosing((last = now)), posing.signal);
  if (posing.signal.aborted || last.status !== "ready") return;
  byId("posing").hidden = true;
  announce(`The scene is ready: ${last.num_views} photos.`);
  if (location.hash === `#/scene/${scene.id}`) await route();
  else location.hash = `#/scene/${scene.id}`;
}

function progress(title: string, detail: string, share: number, cancel: () => void): void {
  const host = byId("posing");
  const old = host.querySelector("progress");
  if (!host.hidden && old && host.dataset.title === title) {
    old.value = share;
    if (detail) (host.querySelector(".hint") as HTMLElement).textContent = detail;
    return;
  }
  host.hidden = false;
  host.className = "";
  host.dataset.title = title;
  const bar = h("progress", { max: 1, "aria-label": title });
  bar.value = share;
  host.replaceChildren(h("h2", {}, title), bar, h("p", { class: "hint" }, detail), h("button", { type: "button", class: "quiet", click: cancel }, "Cancel"));
}

function showPosing(scene: Scene): void {
  if (scene.status === "failed") return showFailure(scene);
  if (scene.status !== "posing" || !scene.posing) return;
  const { stage, progress: share, left_s: left } = scene.posing;
  const detail = `${stage[0].toUpperCase()}${stage.slice(1)}, ${percent(share)}${left === null ? "" : `, about ${seconds(left)} left`}`;
  progress("Finding the cameras", detail, share, () => {
    posing.abort();
    byId("posing").hidden = true;
    deleteScene(scene.id).then(fillScenes).catch(reportError);
  });
}

function showFailure(scene: Scene): void {
  const host = byId("posing");
  host.hidden = false;
  host.className = "failed";
  host.dataset.title = "";
  host.replaceChildren(
    h("h2", {}, "The cameras were not found"),
    h("p", {}, scene.reason),
    h("ul", {}, ...scene.advice.map((one) => h("li", {}, h("b", {}, one.photo), `: ${one.found}; ${one.hint}`))),
    h("button", { type: "button", class: "quiet", click: () => byId("add").click() }, "Choose other photos"),
    h("button", { type: "button", class: "quiet", click: () => (host.hidden = true) }, "Dismiss"),
  );
  void fillScenes();
}

function showRefusal(text: string): void {
  const host = byId("posing");
  host.hidden = false;
  host.className = "failed";
  host.dataset.title = "";
  host.replaceChildren(
    h("h2", {}, "The upload was refused"),
    h("p", { role: "alert" }, text),
    h("button", { type: "button", class: "quiet", click: () => byId("add").click() }, "Choose again"),
    h("button", { type: "button", class: "quiet", click: () => (host.hidden = true) }, "Dismiss"),
  );
  host.scrollIntoView({ block: "nearest" });
}

// The history.

function showHistory(): void {
  const list = remembered();
  byId("history-section").hidden = list.length === 0;
  byId("history").replaceChildren(...list.slice(0, 8).map(historyEntry));
}

function historyEntry(job: Remembered): HTMLElement {
  const when = new Date(job.created).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  const isNow = panel.job?.id === job.id;
  const what = job.body ? `${job.body.cameras.frames.length} frames, ${job.body.size.width} × ${job.body.size.height}` : "video";
  return h("li", {}, h("a", { href: `#/job/${job.id}`, "aria-current": isNow ? "true" : false }, h("b", {}, job.scene === "demo" ? "Demo" : `Scene ${job.scene.slice(-6)}`), h("span", {}, `${what} · ${when}`)));
}

// Dialogs, drops and keys.

function bind(): void {
  for (const name of ["fly", "overview"] as const) {
    byId(`tab-${name}`).addEventListener("click", () => showTab(name));
  }
  byId("tab-watch").addEventListener("click", () => {
    const last = panel.job?.id ?? remembered()[0]?.id;
    showTab("watch");
    if (!last) byId("job-sentence").textContent = "No video yet: press “Make a video”.";
    else if (location.hash === `#/job/${last}`) showTab("watch");
    else openJob(last);
  });
  document.querySelector("[role=tablist]")?.addEventListener("keydown", (event) => {
    const order: Tab[] = ["fly", "overview", "watch"];
    const step = { ArrowRight: 1, ArrowLeft: -1 }[(event as KeyboardEvent).key] ?? 0;
    if (!step) return;
    const next = byId(`tab-${order[(order.indexOf(tab) + step + 3) % 3]}`);
    next.focus();
    next.click();
  });
  byId("scene").addEventListener("change", () => (location.hash = `#/scene/${byId<HTMLSelectElement>("scene").value}`));
  const key = byId<HTMLDialogElement>("key-dialog");
  byId("key").addEventListener("click", () => {
    byId<HTMLInputElement>("key-input").value = apiKey();
    key.showModal();
  });
  key.addEventListener("close", () => {
    if (key.returnValue !== "ok") return;
    setApiKey(byId<HTMLInputElement>("key-input").value.trim());
    studio.reconnect();
    void route();
  });
  setOnUnauthorized(() => {
    byId("key-reason").textContent = "This server needs an API key; sphinx-nvs keys create NAME makes one.";
    if (!key.open) key.showModal();
  });
  const dialog = byId<HTMLDialogElement>("upload-dialog");
  byId("add").addEventListener("click", () => dialog.showModal());
  byId("upload-close").addEventListener("click", () => dialog.close());
  for (const name of ["photos", "folder", "file"]) {
    const input = byId<HTMLInputElement>(`pick-${name}`);
    byId(`choose-${name}`).addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      const files = [...(input.files ?? [])].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
      input.value = "";
      if (files.length) void upload(files);
    });
  }
  bindDrops();
  window.addEventListener("hashchange", () => void route());
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll<HTMLDetailsElement>("details.menu[open]")) {
      if (!menu.contains(event.target as Node) || (event.target as Element).closest(".menu > div button")) menu.open = false;
    }
  });
}

function bindDrops(): void {
  let depth = 0;
  const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  const show = (on: boolean): void => {
    byId("drop").hidden = !on;
  };
  document.addEventListener("dragenter", (event) => hasFiles(event) && show(++depth > 0));
  document.addEventListener("dragleave", (event) => hasFiles(event) && --depth <= 0 && show(false));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer || !hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    droppedFiles(event.dataTransfer).then(upload).catch(reportError);
  });
}

function onKey(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  if (event.altKey || target.closest("dialog[open]") || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z") return studio.editor.undo();
  if (event.ctrlKey || event.metaKey) return;
  if (event.key === "k" && tab !== "watch") studio.addKeyframe();
  if (event.key === " " && tab === "watch" && !target.closest("button, summary, a")) {
    event.preventDefault();
    panel.player.play(!panel.player.isPlaying);
  }
}

panel.onChange = showHistory;
bind();
showHistory();
void route();
