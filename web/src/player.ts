/** Plays a job's frames, at the best level that is there, while they are still being made. */

import { getBlob } from "./api";

type Level = "preview" | "final";

/** Decoded frames are kept up to this many pixels. */
const MOST_PIXELS = 60e6;

export interface PlayerOptions {
  final: HTMLCanvasElement;
  compare: HTMLCanvasElement;
  onFrame: (index: number) => void;
  onLoaded: (index: number, level: Level, image: ImageBitmap) => void;
  onPlaying: (isPlaying: boolean) => void;
}

export class Player {
  index = 0;
  isComparing = false;
  showsPlan = false;
  #job = "";
  #count = 0;
  #fps = 24;
  #isLoop = false;
  #files = new Map<string, Blob>();
  #images = new Map<string, ImageBitmap>();
  #plans = new Map<number, ImageBitmap>();
  #abort = new AbortController();
  #isPlaying = false;
  #isPlanning = false;
  #started = 0;
  #from = 0;

  constructor(private readonly options: PlayerOptions) {}

  get isPlaying(): boolean {
    return this.#isPlaying;
  }

  get jobId(): string {
    return this.#job;
  }

  /** Starts anew with another job. */
  open(job: { id: string; num_frames: number; width: number; height: number; fps: number }, isLoop: boolean): void {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#images.forEach((image) => image.close());
    this.#plans.forEach((image) => image.close());
    this.#files.clear();
    this.#images.clear();
    this.#plans.clear();
    [this.#job, this.#count, this.#fps, this.#isLoop] = [job.id, job.num_frames, job.fps, isLoop];
    this.index = 0;
    for (const canvas of [this.options.final, this.options.compare]) {
      canvas.width = job.width;
      canvas.height = job.height;
    }
    this.play(false);
  }

  /** Fetches a frame that has become available. */
  async load(index: number, level: Level): Promise<void> {
    const key = `${index}.${level}`;
    const { signal } = this.#abort;
    if (this.#files.has(key)) return;
    if (level === "preview" && this.#files.has(`${index}.final`) && !this.isComparing) return;
    const blob = await getBlob(`/v1/jobs/${this.#job}/frames/${index}?level=${level}`, signal);
    const image = await createImageBitmap(blob);
    if (signal.aborted) return;
    this.#files.set(key, blob);
    this.#keep(key, image);
    this.options.onLoaded(index, level, image);
    if (index === this.index && !this.#isPlaying) void this.draw();
  }

  has(index: number, level: Level): boolean {
    return this.#files.has(`${index}.${level}`);
  }

  file(index: number, level: Level): Blob | undefined {
    return this.#files.get(`${index}.${level}`);
  }

  seek(index: number): void {
    this.play(false);
    this.index = index;
    this.options.onFrame(index);
    void this.draw();
  }

  play(on: boolean): void {
    if (on === this.#isPlaying) return;
    this.#isPlaying = on;
    this.options.onPlaying(on);
    if (!on) return;
    this.#started = performance.now();
    this.#from = this.index;
    requestAnimationFrame((now) => this.#tick(now));
  }

  /** Draws the present frame. */
  async draw(): Promise<void> {
    const index = this.index;
    const best = (await this.#image(index, "final")) ?? (await this.#image(index, "preview"));
    if (index !== this.index) return;
    paint(this.options.final, best);
    const plan = this.showsPlan ? await this.#plan(index) : null;
    if (plan && this.showsPlan && index === this.index) paintPlan(this.options.final, plan);
    if (this.isComparing) paint(this.options.compare, (await this.#image(index, "preview")) ?? best);
  }

  #tick(now: number): void {
    if (!this.#isPlaying) return;
    const step = Math.floor(((now - this.#started) / 1000) * this.#fps) + this.#from;
    // A path that does not close is played to and fro: a jump back would hide how smooth it is.
    const period = this.#isLoop ? this.#count : Math.max(1, 2 * this.#count - 2);
    const at = step % period;
    const index = at < this.#count ? at : period - at;
    if (index !== this.index) {
      this.index = index;
      this.options.onFrame(index);
      void this.draw();
    }
    requestAnimationFrame((later) => this.#tick(later));
  }

  async #image(index: number, level: Level): Promise<ImageBitmap | null> {
    const key = `${index}.${level}`;
    const known = this.#images.get(key);
    if (known) return known;
    const file = this.#files.get(key);
    if (!file) return null;
    const image = await createImageBitmap(file);
    this.#keep(key, image);
    return image;
  }

  #keep(key: string, image: ImageBitmap): void {
    this.#images.set(key, image);
    const most = Math.max(8, Math.floor(MOST_PIXELS / (image.width * image.height)));
    for (const [old, each] of this.#images) {
      if (this.#images.size <= most) break;
      each.close();
      this.#images.delete(old);
    }
  }

  async #plan(index: number): Promise<ImageBitmap | null> {
    const known = this.#plans.get(index);
    if (known) return known;
    // The server draws each of them: while the video plays, one at a time.
    if (this.#isPlaying && this.#isPlanning) return null;
    const { signal } = this.#abort;
    this.#isPlanning = true;
    try {
      const image = await createImageBitmap(await getBlob(`/v1/jobs/${this.#job}/plan.png?frame=${index}`, signal));
      if (!signal.aborted) this.#plans.set(index, image);
      return image;
    } catch {
      return null; // The frame is not planned, or not yet.
    } finally {
      this.#isPlanning = false;
    }
  }
}

function paint(canvas: HTMLCanvasElement, image: ImageBitmap | null): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  if (image) context.drawImage(image, 0, 0, canvas.width, canvas.height);
  else context.clearRect(0, 0, canvas.width, canvas.height);
}

/** Draws a plan's picture without its legend, which is a column beside the enlarged frame. */
function paintPlan(canvas: HTMLCanvasElement, image: ImageBitmap): void {
  const zoom = Math.max(1, Math.min(Math.floor(image.width / canvas.width), Math.floor(image.height / canvas.height)));
  const [width, height] = [zoom * canvas.width, zoom * canvas.height];
  canvas.getContext("2d")?.drawImage(image, 0, 0, width, height, 0, 0, canvas.width, canvas.height);
}
