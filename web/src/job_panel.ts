/** The video tab: a job's frames as they are made, and what can be done with them. */

import { createJob, deleteJob, follow, getBlob, getJob, getScene, Problem, request, type Job } from "./api";
import { announce, byId, h, reportError, save } from "./dom";
import { forget, remember, remembered } from "./history";
import { initialState, isFinal, percent, progressOf, reduce, seconds, sentence, type JobState } from "./job_state";
import { Player } from "./player";

/** More thumbnails than this are not told apart. */
const MOST_THUMBS = 96;

export class JobPanel {
  readonly player: Player;
  onChange: () => void = () => {};
  job: Job | null = null;
  #state: JobState | null = null;
  #abort = new AbortController();
  #thumbs: { button: HTMLButtonElement; canvas: HTMLCanvasElement; from: number; to: number }[] = [];
  #last = "";

  constructor(
    private readonly goTo: (job: Job) => void,
    private readonly leave: () => void,
  ) {
    this.player = new Player({
      final: byId<HTMLCanvasElement>("final"),
      compare: byId<HTMLCanvasElement>("compare"),
      onFrame: (index) => this.#mark(index),
      onLoaded: (index, level, image) => this.#loaded(index, level, image),
      onPlaying: (isPlaying) => {
        byId("play").textContent = isPlaying ? "❚❚" : "▶";
        byId("play").setAttribute("aria-label", isPlaying ? "Pause" : "Play");
      },
    });
    byId("play").addEventListener("click", () => this.player.play(!this.player.isPlaying));
    byId("show-wipe").addEventListener("click", () => this.compare(!this.player.isComparing));
    byId("show-plan").addEventListener("click", () => this.showPlan(!this.player.showsPlan));
    byId<HTMLInputElement>("wipe").addEventListener("input", () => this.#wipe());
  }

  /** Opens a job: one that has just been created, or one of the history. */
  async open(id: string): Promise<void> {
    if (this.job?.id === id) return;
    this.close();
    const { signal } = this.#abort;
    let job: Job;
    try {
      job = await getJob(id);
    } catch (error) {
      if (error instanceof Problem && error.status === 404) {
        forget(id);
        announce("This video is not on the server any more.", "error");
        this.leave();
        return;
      }
      throw error;
    }
    if (signal.aborted) return;
    this.job = job;
    this.#state = initialState(job);
    const screen = byId("screen");
    screen.style.setProperty("--aspect", String(job.width / job.height));
    this.player.open(job, remembered().find((each) => each.id === id)?.isLoop ?? false);
    this.compare(false);
    this.showPlan(false);
    this.#layFilm(job);
    this.#show();
    try {
      await follow(`/v1/jobs/${id}/events`, {
        signal,
        onEvent: (event) => this.#onEvent(event.event, event.data),
        onLost: () => this.#setLost(true),
        onOpen: () => this.#setLost(false),
        isLast: (event) => isFinal(event.event),
      });
    } catch (error) {
      reportError(error);
    }
  }

  close(): void {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.player.play(false);
    this.job = null;
    this.#state = null;
  }

  compare(on: boolean): void {
    this.player.isComparing = on && this.job !== null;
    if (on) this.showPlan(false);
    byId("show-wipe").setAttribute("aria-pressed", String(this.player.isComparing));
    for (const id of ["wipe", "tag-left", "tag-right"]) byId(id).hidden = !this.player.isComparing;
    byId("compare").hidden = !this.player.isComparing;
    if (this.player.isComparing) {
      for (const index of this.#state?.previews ?? []) this.#load(index, "preview");
    }
    this.#wipe();
    void this.player.draw();
  }

  showPlan(on: boolean): void {
    if (on) this.compare(false);
    this.player.showsPlan = on;
    byId("show-plan").setAttribute("aria-pressed", String(on));
    byId("legend").hidden = !on;
    if (on) this.player.play(false);
    void this.player.draw();
  }

  #wipe(): void {
    byId("screen").style.setProperty("--wipe", `${byId<HTMLInputElement>("wipe").value}%`);
  }

  #onEvent(kind: string, text: string): void {
    if (!this.#state) return;
    const data = JSON.parse(text) as { index?: number };
    const before = this.#state;
    this.#state = reduce(before, kind, data);
    if (kind === "preview_frame" && data.index !== undefined) this.#load(data.index, "preview");
    if (kind === "frame_refined" && data.index !== undefined) this.#load(data.index, "final");
    if (this.#state.degraded && !before.degraded) {
      announce(`Quality lowered from ${percent(this.#state.degraded.from)} to ${percent(this.#state.degraded.to)}: ${this.#state.degraded.reason}`);
    }
    this.#show();
    if (isFinal(kind)) this.onChange();
  }

  #setLost(isLost: boolean): void {
    if (!this.#state || this.#state.isLost === isLost) return;
    this.#state = { ...this.#state, isLost };
    this.#show();
  }

  #load(index: number, level: "preview" | "final"): void {
    const { signal } = this.#abort;
    this.player.load(index, level).catch((error: unknown) => {
      if (!signal.aborted) reportError(error);
    });
  }

  #loaded(index: number, level: "preview" | "final", image: ImageBitmap): void {
    const thumb = this.#thumbs.find(({ from, to }) => index >= from && index < to);
    if (!thumb || thumb.from !== index) return;
    if (level === "preview" && this.player.has(index, "final")) return;
    thumb.canvas.getContext("2d")?.drawImage(image, 0, 0, thumb.canvas.width, thumb.canvas.height);
    thumb.button.dataset.level = level;
    thumb.button.setAttribute("aria-label", `Frame ${index + 1}, ${level === "final" ? "refined" : "preview"}`);
    // The first preview: something to watch while the rest is made.
    if (this.#state && this.player.index === 0 && this.#state.previews.size === this.#state.total && !this.player.isPlaying && index === this.#state.total - 1) {
      this.player.play(true);
    }
  }

  #layFilm(job: Job): void {
    const count = Math.min(MOST_THUMBS, job.num_frames);
    const at = (i: number): number => Math.round((i * job.num_frames) / count);
    const height = 54;
    const width = Math.round((height * job.width) / job.height);
    this.#thumbs = Array.from({ length: count }, (_, i) => {
      const canvas = h("canvas", { width: 2 * width, height: 2 * height });
      canvas.style.aspectRatio = `${width} / ${height}`;
      const button = h("button", { type: "button", class: "thumb", "aria-label": `Frame ${at(i) + 1}` }, canvas);
      button.addEventListener("click", () => this.player.seek(at(i)));
      return { button, canvas, from: at(i), to: at(i + 1) };
    });
    byId("film").replaceChildren(...this.#thumbs.map(({ button }) => button));
    this.#mark(0);
  }

  #mark(index: number): void {
    for (const { button, from, to } of this.#thumbs) {
      const isNow = index >= from && index < to;
      if (isNow === (button.getAttribute("aria-current") === "true")) continue;
      if (isNow) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      if (isNow) this.#reveal(button);
    }
    byId("final").setAttribute("aria-label", `Frame ${index + 1} of the video`);
  }

  /** Scrolls the film, and nothing else. */
  #reveal(button: HTMLElement): void {
    const film = byId("film");
    const [left, end] = [button.offsetLeft - film.offsetLeft, button.offsetLeft - film.offsetLeft + button.offsetWidth];
    if (left < film.scrollLeft) film.scrollLeft = left - 8;
    else if (end > film.scrollLeft + film.clientWidth) film.scrollLeft = end - film.clientWidth + 8;
  }

  #show(): void {
    const [job, state] = [this.job, this.#state];
    if (!job || !state) return;
    const text = sentence(state);
    if (text !== this.#last) byId("job-sentence").textContent = this.#last = text;
    const facts = [`${job.num_frames} frames, ${job.width} × ${job.height}`];
    if (state.computeShare !== null) facts.push(`${percent(state.computeShare)} of full compute`);
    if (state.degraded) facts.push(`quality lowered to ${percent(state.degraded.to)}: ${state.degraded.reason}`);
    else if (state.quote && !isFinal(state.status)) facts.push(`quoted ${seconds(state.quote.latency_s.p50)}`);
    byId("job-info").textContent = facts.join(" · ");
    const bar = byId<HTMLProgressElement>("job-progress");
    bar.value = progressOf(state);
    bar.dataset.status = state.status;
    for (const id of ["show-wipe", "show-plan"]) byId<HTMLButtonElement>(id).disabled = state.planned.size === 0;
    this.#showActions(job, state);
  }

  #showActions(job: Job, state: JobState): void {
    const host = byId("job-actions");
    const kind = `${job.id} ${isFinal(state.status) ? state.status : "running"} ${state.previews.size === state.total}`;
    if (host.dataset.kind === kind) return;
    host.dataset.kind = kind;
    host.replaceChildren();
    if (!isFinal(state.status)) {
      host.append(h("button", { type: "button", class: "quiet", id: "cancel", click: () => void this.#cancel(job) }, "Cancel"));
      return;
    }
    if (state.status !== "completed") {
      host.append(h("button", { type: "button", class: "quiet", id: "retry", click: () => void this.#retry(job) }, "Try again"));
    }
    if (state.status === "completed") {
      const points = h("button", { type: "button", id: "download-points", hidden: true }, "Points (PLY)");
      void this.#offerPoints(job, points);
      host.append(
        h("button", { type: "button", class: "primary small", id: "download", click: () => void this.#download(job) }, "Download video"),
        h(
          "details",
          { class: "menu up" },
          h("summary", { class: "quiet" }, "More"),
          h(
            "div",
            {},
            h("button", { type: "button", id: "download-frames", click: () => void this.#downloadFrames(job, state) }, "Frames as zip"),
            h("button", { type: "button", click: () => void this.#downloadCameras(job) }, "Cameras (transforms.json)"),
            points,
            h("button", { type: "button", id: "share", click: () => void this.#share(job) }, "Link to share"),
            h("button", { type: "button", click: () => void this.#unshare(job) }, "End the link"),
            h("button", { type: "button", click: () => void this.#retry(job) }, "Render again"),
            h("button", { type: "button", click: () => void this.#remove(job) }, "Delete"),
          ),
        ),
      );
    }
  }

  async #cancel(job: Job): Promise<void> {
    try {
      await deleteJob(job.id);
    } catch (error) {
      reportError(error);
    }
  }

  async #retry(job: Job): Promise<void> {
    const before = remembered().find((each) => each.id === job.id);
    if (!before?.body) return announce("This browser does not have the request any more; make a new video.", "error");
    try {
      const again = await createJob(before.body);
      remember({ ...before, id: again.id, created: Date.now() });
      this.goTo(again);
    } catch (error) {
      reportError(error);
    }
  }

  async #remove(job: Job): Promise<void> {
    try {
      await deleteJob(job.id);
      forget(job.id);
      this.close();
      this.leave();
      this.onChange();
    } catch (error) {
      reportError(error);
    }
  }

  async #download(job: Job): Promise<void> {
    try {
      save(await getBlob(`/v1/jobs/${job.id}/content`), `${job.scene}-${job.id.slice(-6)}.mp4`);
    } catch (error) {
      reportError(error);
    }
  }

  /** Makes a link that shows the video to anyone who has it; an earlier one ends. */
  async #share(job: Job): Promise<void> {
    try {
      const { url } = (await (await request(`/v1/jobs/${job.id}/share`, { method: "POST" })).json()) as { url: string };
      const link = new URL(url, location.href).href;
      // Browsers keep the clipboard from pages without encryption, but for those of this machine.
      const isCopied = await navigator.clipboard?.writeText(link).then(
        () => true,
        () => false,
      );
      announce(isCopied ? `Copied: ${link}` : `Anyone with this link sees the video: ${link}`);
    } catch (error) {
      reportError(error);
    }
  }

  async #unshare(job: Job): Promise<void> {
    try {
      await request(`/v1/jobs/${job.id}/share`, { method: "DELETE" });
      announce("The link to this video has ended.");
    } catch (error) {
      reportError(error);
    }
  }

  /** Scenes that came with cameras have no points. */
  async #offerPoints(job: Job, button: HTMLButtonElement): Promise<void> {
    const points = (await getScene(job.scene).catch(() => null))?.links.points;
    if (!points) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      getBlob(points)
        .then((blob) => save(blob, `${job.scene}-points.ply`))
        .catch(reportError);
    });
  }

  async #downloadCameras(job: Job): Promise<void> {
    try {
      save(await (await request(`/v1/jobs/${job.id}/cameras`)).blob(), "transforms.json");
    } catch (error) {
      reportError(error);
    }
  }

  async #downloadFrames(job: Job, state: JobState): Promise<void> {
    try {
      const { zipSync } = await import("fflate");
      const level = state.level === "final" ? "final" : "preview";
      const files: Record<string, Uint8Array> = {};
      await Promise.all(
        Array.from({ length: job.num_frames }, async (_, i) => {
          const blob = this.player.file(i, level) ?? (await getBlob(`/v1/jobs/${job.id}/frames/${i}?level=${level}`));
          files[`frames/${String(i).padStart(4, "0")}.png`] = new Uint8Array(await blob.arrayBuffer());
        }),
      );
      const zip = zipSync(files, { level: 0 }) as Uint8Array<ArrayBuffer>;
      save(new Blob([zip], { type: "application/zip" }), `${job.scene}-${job.id.slice(-6)}-frames.zip`);
    } catch (error) {
      reportError(error);
    }
  }
}
