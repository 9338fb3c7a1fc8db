/** The studio: a scene, the camera that flies through it, its path, and the way to a video. */

import {
  createJob,
  getBlob,
  getCameras,
  getModel,
  getQuote,
  getScene,
  Problem,
  type Job,
  type JobBody,
  type Model,
  type Scene,
} from "./api";
import { focusOf, intrinsics, photosOf, sizeFor, within, type Camera, type Photo } from "./cameras";
import { Dial } from "./dial";
import { announce, byId, debounced, h, reportError, save } from "./dom";
import { remember } from "./history";
import { percent, seconds } from "./job_state";
import { LiveSession, type LiveFrame, type LiveStatus } from "./live";
import { PathEditor } from "./path_editor";
import { cameraAt, cameraFile, duration, nerfstudioPath, pathFrom, preset, PRESETS, sampled, type Path, type Preset } from "./paths";
import { Timeline } from "./timeline";
import { View3D, type ViewMode } from "./view3d";

const LIVE_SIDE = 320;
const LENGTHS = [1, 2, 3, 4, 6, 10];
const RATES = [8, 12, 24, 30];
const FLOORS = [0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98];
const DEADLINES = [5, 7, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900, 1800, 3600];

export class Studio {
  view: View3D | null = null;
  scene: Scene | null = null;
  readonly editor: PathEditor;
  #photos: Photo[] = [];
  #model: Model | null = null;
  #timeline: Timeline;
  #dial: Dial;
  #live: LiveSession | null = null;
  #isShown = true;
  #preset: Preset | "" = "photos";
  #presetPath: Path | null = null;
  #byDeadline = false;
  #quality = 1;
  #deadline = 5;
  #quoteAbort = new AbortController();
  #isPlayingPath = false;
  #requote = debounced(250, () => void this.#quote());
  #sendSoon = false;

  constructor(private readonly onJob: (job: Job) => void) {
    this.editor = new PathEditor(() => this.#pathChanged());
    try {
      this.view = new View3D(byId("view"), () => this.#moved());
    } catch {
      this.#note("This browser has no WebGL, so that the scene cannot be shown in 3D. Videos can be made all the same.");
    }
    this.#timeline = new Timeline(byId("timeline"), this.editor, (at) => this.#scrub(at), (index) => this.#openKey(index));
    this.#dial = new Dial(byId("dial"), (share) => this.#turn(share));
    this.#bind();
    this.#showGoal();
  }

  /** Shows a scene that is ready. */
  async open(id: string): Promise<void> {
    const [scene, cameras] = await Promise.all([getScene(id), getCameras(id)]);
    if (!this.#model) {
      this.#model = await getModel();
      this.#quality = this.#model.default_quality;
      this.#showGoal();
    }
    this.scene = scene;
    this.#photos = photosOf(cameras);
    const { width, height } = this.#photos[0];
    this.#fillSizes(width / height);
    if (this.view) {
      this.view.aspect = this.#aspect();
      this.view.setScene(this.#photos);
      this.view.setPose(this.#home());
      this.#loadPhotos(id);
    }
    this.#choosePreset(this.#photos.length > 1 ? "photos" : "orbit", true);
    this.#connect();
  }

  set mode(mode: ViewMode | "hidden") {
    this.#isShown = mode !== "hidden";
    if (this.view && mode !== "hidden") this.view.mode = mode;
    byId("gate").hidden = byId("live").hidden = mode !== "fly";
    this.#placeGate();
    if (!this.#isShown) this.#stopPath();
    this.#connect();
  }

  /** Starts the live session anew, e.g. with another key. */
  reconnect(): void {
    this.#live?.close();
    this.#live = null;
    this.#connect();
  }

  #connect(): void {
    const wanted = this.#isShown && this.view?.mode === "fly" && this.scene ? this.scene.id : "";
    if (this.#live?.scene === wanted) return;
    this.#live?.close();
    this.#live = null;
    byId("live").classList.remove("on");
    this.#status("off", "");
    if (!wanted) return;
    this.#live = new LiveSession(wanted, {
      onFrame: (frame) => void this.#showFrame(frame),
      onStatus: (status, detail) => this.#status(status, detail),
    });
    this.#moved();
  }

  #status(status: LiveStatus, detail: string): void {
    const badge = byId("badge");
    badge.dataset.status = status;
    const isFly = this.view?.mode === "fly" && this.#isShown;
    const texts: Record<LiveStatus, string> = {
      connecting: "Connecting",
      ready: "Live",
      waiting: detail || "The scene is being prepared",
      off: detail || "Nearest photo",
    };
    badge.textContent = isFly ? texts[status] : "";
    if (status === "off") byId("live").classList.remove("on");
  }

  async #showFrame({ header, jpeg }: LiveFrame): Promise<void> {
    const image = await createImageBitmap(jpeg);
    const canvas = byId<HTMLCanvasElement>("live");
    [canvas.width, canvas.height] = [header.width, header.height];
    canvas.getContext("2d")?.drawImage(image, 0, 0);
    image.close();
    canvas.classList.add("on");
    const badge = byId("badge");
    badge.dataset.status = header.level;
    badge.textContent = header.level === "refined" ? "Refined" : "Live";
  }

  /** The flying camera moved: at most one message for each frame of the screen. */
  #moved(): void {
    this.#placeGate();
    if (!this.#live || this.#sendSoon) return;
    this.#sendSoon = true;
    requestAnimationFrame(() => {
      this.#sendSoon = false;
      if (!this.#live || !this.view) return;
      const { width, height } = this.#liveSize();
      this.#live.send(this.view.pose, width, height);
    });
  }

  #liveSize(): { width: number; height: number } {
    const aspect = this.view?.aspect ?? 1.5;
    const multiple = this.#model?.size_multiple ?? 32;
    return sizeFor(aspect, LIVE_SIDE / Math.max(aspect, 1 / aspect), multiple);
  }

  #placeGate(): void {
    if (!this.view) return;
    const gate = this.view.gate;
    for (const id of ["gate", "live"]) {
      const { style } = byId(id);
      style.left = `${gate.left}px`;
      style.top = `${gate.top}px`;
      style.width = `${gate.width}px`;
      style.height = `${gate.height}px`;
    }
  }

  #loadPhotos(id: string): void {
    this.#photos.forEach((_, i) => {
      getBlob(`/v1/scenes/${id}/photos/${i}`)
        .then((blob) => createImageBitmap(blob))
        .then((image) => this.scene?.id === id && this.view?.setPhoto(i, image))
        .catch(reportError);
    });
  }

  #note(text: string): void {
    const note = byId("stage-note");
    note.textContent = text;
    note.hidden = text === "";
  }

  // The path.

  #choosePreset(name: Preset, isNew = false): void {
    const photos = this.#photos.map((photo) => within(photo, this.#aspect()));
    const from = isNew || !this.view ? this.#home() : this.view.pose;
    const path = preset(name, photos, focusOf(photos), from, Number(byId<HTMLSelectElement>("length").value));
    [this.#preset, this.#presetPath] = [name, path];
    this.editor.set(path, isNew);
    this.#timeline.seconds = 0;
  }

  #pathChanged(): void {
    const { path, selected } = this.editor;
    const count = path.keyframes.length;
    if (!count) return;
    if (path !== this.#presetPath) this.#preset = "";
    this.#showPresets();
    this.#timeline.show();
    this.view?.setPath(sampled(path, Math.max(2, 24 * count)), path.keyframes, selected);
    byId<HTMLInputElement>("loop").checked = path.isLoop;
    byId<HTMLInputElement>("smooth").value = String(100 * path.smoothness);
    byId<HTMLButtonElement>("undo").disabled = !this.editor.canUndo;
    this.#showLength();
    this.#showKey();
    this.#requote();
  }

  #showPresets(): void {
    for (const chip of byId("presets").querySelectorAll("button")) {
      chip.setAttribute("aria-pressed", String(chip.dataset.preset === this.#preset));
    }
    const { path } = this.editor;
    byId("path-name").textContent = this.#preset ? PRESETS[this.#preset] : "Your path";
    byId("path-info").textContent = `${path.keyframes.length} keyframes · ${this.#frames()} frames`;
  }

  #showLength(): void {
    const select = byId<HTMLSelectElement>("length");
    const now = duration(this.editor.path);
    const known = [...select.options].find((option) => Math.abs(Number(option.value) - now) < 0.005);
    select.querySelector("option[data-own]")?.remove();
    if (known) select.value = known.value;
    else select.append(h("option", { value: now, "data-own": true, selected: true }, `${now.toFixed(1)} s`));
  }

  #showKey(): void {
    const host = byId("key-edit");
    const { path, selected } = this.editor;
    const key = path.keyframes[selected];
    host.hidden = !key;
    if (!key) return host.replaceChildren();
    const isLast = selected === path.keyframes.length - 1 && !path.isLoop;
    const number = (label: string, value: string, step: string, apply: (value: number) => void): HTMLElement => {
      const input = h("input", { type: "number", value, step, min: step });
      input.addEventListener("change", () => Number(input.value) > 0 && apply(Number(input.value)));
      return h("label", {}, label, input);
    };
    host.replaceChildren(
      h("b", {}, `Keyframe ${selected + 1}`),
      ...(isLast ? [] : [number("Seconds to next", key.seconds.toFixed(2), "0.05", (value) => this.editor.change(selected, { seconds: value }))]),
      number("View angle °", ((key.lens.fov * 180) / Math.PI).toFixed(1), "0.5", (value) => {
        const lens = { ...key.lens, fov: (Math.min(150, Math.max(2, value)) * Math.PI) / 180 };
        this.editor.change(selected, { lens });
        this.view?.setPose({ ...key, lens });
      }),
      h("button", { type: "button", class: "quiet", click: () => this.view && this.editor.change(selected, this.view.pose) }, "Set to view"),
      h("button", { type: "button", class: "quiet", disabled: path.keyframes.length < 2, click: () => this.editor.remove(selected) }, "Delete"),
    );
  }

  #openKey(index: number): void {
    this.#stopPath();
    this.editor.select(this.editor.selected === index ? -1 : index);
    this.view?.flyTo(this.editor.path.keyframes[index]);
  }

  #scrub(at: number): void {
    this.#stopPath();
    this.view?.setPose(cameraAt(this.editor.path, at));
  }

  #playPath(): void {
    if (this.#isPlayingPath) return this.#stopPath();
    this.#isPlayingPath = true;
    byId("play-path").textContent = "❚❚";
    byId("play-path").setAttribute("aria-label", "Stop the path");
    const length = duration(this.editor.path);
    const from = this.#timeline.seconds >= length - 0.02 ? 0 : this.#timeline.seconds;
    const start = performance.now();
    const step = (now: number): void => {
      if (!this.#isPlayingPath) return;
      const passed = from + (now - start) / 1000;
      const at = this.editor.path.isLoop ? passed % length : Math.min(length, passed);
      this.#timeline.seconds = at;
      this.view?.setPose(cameraAt(this.editor.path, at));
      if (!this.editor.path.isLoop && passed >= length) return this.#stopPath();
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  #stopPath(): void {
    this.#isPlayingPath = false;
    byId("play-path").textContent = "▶";
    byId("play-path").setAttribute("aria-label", "Play the path");
  }

  addKeyframe(): void {
    if (!this.view) return;
    this.editor.add(this.view.pose);
    announce(`Keyframe ${this.editor.selected + 1} added`);
  }

  // The video.

  #frames(): number {
    const fps = Number(byId<HTMLSelectElement>("fps").value);
    return Math.max(1, Math.round(duration(this.editor.path) * fps));
  }

  /** Half way through the photos, so that there are photos on both sides to move to. */
  #home(): Camera {
    const photos = this.#photos.map((photo) => within(photo, this.#aspect()));
    if (photos.length < 2) return photos[0];
    const path = preset("photos", photos, focusOf(photos), photos[0]);
    return cameraAt(path, duration(path) / 2);
  }

  #aspect(): number {
    const { width, height } = this.#size();
    return width / height;
  }

  #size(): { width: number; height: number } {
    const [width, height] = byId<HTMLSelectElement>("size").value.split("x").map(Number);
    return { width, height };
  }

  #fillSizes(aspect: number): void {
    const multiple = this.#model?.size_multiple ?? 32;
    const shorts = [128, 192, 256, 384, 512];
    const sizes = shorts.map((short) => sizeFor(aspect, short, multiple));
    byId("size").replaceChildren(
      ...sizes.map(({ width, height }, i) => h("option", { value: `${width}x${height}`, selected: shorts[i] === 256 }, `${width} × ${height}`)),
    );
  }

  body(): JobBody | null {
    if (!this.scene || !this.editor.path.keyframes.length) return null;
    const { width, height } = this.#size();
    const cameras: Camera[] = sampled(this.editor.path, this.#frames());
    return {
      scene: this.scene.id,
      cameras: {
        w: width,
        h: height,
        frames: cameras.map(({ c2w, lens }) => ({ c2w, K: intrinsics(lens, width, height) })),
      },
      size: { width, height },
      fps: Number(byId<HTMLSelectElement>("fps").value),
      ...(this.#byDeadline ? { deadline_s: DEADLINES[this.#deadline] } : { quality: this.#quality }),
      min_quality: this.#floor(),
    };
  }

  /** Quality that neither load nor deadline may undercut; never above the dial's. */
  #floor(): number {
    const floor = Number(byId<HTMLSelectElement>("floor").value);
    return this.#byDeadline ? floor : Math.min(floor, this.#quality);
  }

  async #make(): Promise<void> {
    const body = this.body();
    if (!body) return;
    const button = byId<HTMLButtonElement>("make");
    button.disabled = true;
    try {
      const job = await createJob(body);
      remember({ id: job.id, scene: job.scene, created: Date.now(), isLoop: this.editor.path.isLoop, body });
      this.onJob(job);
    } catch (error) {
      reportError(error);
    } finally {
      button.disabled = false;
    }
  }

  #turn(share: number): void {
    if (this.#byDeadline) this.#deadline = this.#deadlineAt(share);
    else this.#quality = Math.round(100 * share) / 100;
    this.#requote();
  }

  /** The left end is the shortest deadline. */
  #deadlineAt = (share: number): number => Math.round(share * (DEADLINES.length - 1));

  #showGoal(): void {
    byId("by-quality").setAttribute("aria-pressed", String(!this.#byDeadline));
    byId("by-deadline").setAttribute("aria-pressed", String(this.#byDeadline));
    this.#dial.text = this.#byDeadline
      ? (share) => seconds(DEADLINES[this.#deadlineAt(share)])
      : (share) => `${Math.round(100 * share)} %`;
    this.#dial.share = this.#byDeadline ? this.#deadline / (DEADLINES.length - 1) : this.#quality;
    this.#requote();
  }

  async #quote(): Promise<void> {
    const body = this.body();
    if (!body) return;
    this.#quoteAbort.abort();
    this.#quoteAbort = new AbortController();
    const { signal } = this.#quoteAbort;
    byId("quote").setAttribute("aria-busy", "true");
    try {
      const quote = await getQuote(body, signal);
      byId("quote-time").textContent = seconds(quote.latency_s.p50);
      byId("quote-quality").textContent = percent(quote.quality);
      byId("quote-share").textContent = percent(quote.active_share);
      const late = this.#byDeadline && body.deadline_s !== undefined && quote.latency_s.p50 > body.deadline_s;
      const wait = quote.wait_s >= 1 ? ` ${seconds(quote.wait_s)} of them waiting.` : "";
      byId("quote-note").textContent = late
        ? `No plan is this fast; the fastest takes about ${seconds(quote.latency_s.p50)}.`
        : `At most ${seconds(quote.latency_s.p95)} in 19 of 20 cases.${wait}`;
      byId("quote-note").classList.remove("error");
    } catch (error) {
      if (signal.aborted) return;
      for (const id of ["quote-time", "quote-quality", "quote-share"]) byId(id).textContent = "–";
      byId("quote-note").textContent = error instanceof Error ? error.message : String(error);
      byId("quote-note").classList.add("error");
      if (error instanceof Problem && (error.status === 0 || error.status === 503)) setTimeout(this.#requote, 3000);
    } finally {
      if (!signal.aborted) byId("quote").removeAttribute("aria-busy");
    }
  }

  #bind(): void {
    byId("presets").append(
      ...Object.entries(PRESETS).map(([name, title]) =>
        h("button", { type: "button", class: "chip", "data-preset": name, "aria-pressed": "false", click: () => this.#choosePreset(name as Preset) }, title),
      ),
    );
    byId("length").append(...LENGTHS.map((each) => h("option", { value: each, selected: each === 2 }, `${each} s`)));
    byId("fps").append(...RATES.map((each) => h("option", { value: each, selected: each === 12 }, `${each} a second`)));
    byId("length").addEventListener("change", () => this.editor.setDuration(Number(byId<HTMLSelectElement>("length").value)));
    byId("fps").addEventListener("change", () => {
      this.#showPresets();
      this.#requote();
    });
    byId("size").addEventListener("change", () => {
      if (this.view) this.view.aspect = this.#aspect();
      this.#moved();
      this.#requote();
    });
    byId("by-quality").addEventListener("click", () => {
      this.#byDeadline = false;
      this.#showGoal();
    });
    byId("by-deadline").addEventListener("click", () => {
      this.#byDeadline = true;
      this.#showGoal();
    });
    byId("floor").append(...FLOORS.map((each) => h("option", { value: each }, each ? percent(each) : "no limit")));
    byId("floor").addEventListener("change", this.#requote);
    byId("make").addEventListener("click", () => void this.#make());
    byId("home").addEventListener("click", () => this.view?.flyTo(this.#home()));
    byId("add-key").addEventListener("click", () => this.addKeyframe());
    byId("play-path").addEventListener("click", () => this.#playPath());
    byId("undo").addEventListener("click", () => this.editor.undo());
    byId("loop").addEventListener("change", (event) => this.editor.setLoop((event.target as HTMLInputElement).checked));
    const smooth = byId<HTMLInputElement>("smooth");
    smooth.addEventListener("pointerdown", () => this.editor.setSmoothness(this.editor.path.smoothness, true));
    smooth.addEventListener("input", () => this.editor.setSmoothness(Number(smooth.value) / 100, false));
    this.#bindFiles();
  }

  #bindFiles(): void {
    const pick = byId<HTMLInputElement>("pick-path");
    byId("import-path").addEventListener("click", () => pick.click());
    pick.addEventListener("change", () => {
      const file = pick.files?.[0];
      pick.value = "";
      file?.text().then((text) => this.editor.set(pathFrom(text))).catch(reportError);
    });
    const asFile = (value: object): Blob => new Blob([JSON.stringify(value)], { type: "application/json" });
    byId("export-ours").addEventListener("click", () => {
      const { width, height } = this.#size();
      save(asFile(cameraFile(sampled(this.editor.path, this.#frames()), width, height)), "cameras.json");
    });
    byId("export-nerfstudio").addEventListener("click", () => {
      const { width, height } = this.#size();
      save(asFile(nerfstudioPath(this.editor.path, width, height, Number(byId<HTMLSelectElement>("fps").value))), "camera_path.json");
    });
  }
}
