/** The path that is being edited, with undo. */

import type { Camera } from "./cameras";
import { duration, times, type Keyframe, type Path } from "./paths";

const MOST_STEPS = 100;
const LEAST_S = 0.1;

export class PathEditor {
  selected = -1;
  #path: Path = { keyframes: [], isLoop: false, smoothness: 1 };
  #past: Path[] = [];

  constructor(private readonly onChange: () => void) {}

  get path(): Path {
    return this.#path;
  }

  get canUndo(): boolean {
    return this.#past.length > 0;
  }

  /** Replaces the path; `isNew` forgets what was before, as for another scene. */
  set(path: Path, isNew = false): void {
    if (isNew) this.#past = [];
    else this.#remember();
    this.#path = path;
    this.selected = -1;
    this.onChange();
  }

  undo(): void {
    const last = this.#past.pop();
    if (!last) return;
    this.#path = last;
    this.selected = Math.min(this.selected, last.keyframes.length - 1);
    this.onChange();
  }

  select(index: number): void {
    this.selected = index;
    this.onChange();
  }

  /** Adds a keyframe after the selected one, or at the end. */
  add(camera: Camera): void {
    const { keyframes } = this.#path;
    const at = this.selected < 0 ? keyframes.length : this.selected + 1;
    const seconds = keyframes[Math.max(0, at - 1)]?.seconds ?? 1;
    this.#edit({ keyframes: keyframes.toSpliced(at, 0, { ...camera, seconds: seconds || 1 }) });
    this.select(at);
  }

  remove(index: number): void {
    if (this.#path.keyframes.length < 2) return;
    this.#edit({ keyframes: this.#path.keyframes.toSpliced(index, 1) });
    this.select(-1);
  }

  /** Changes a keyframe. */
  change(index: number, change: Partial<Keyframe>, remembers = true): void {
    this.#edit({ keyframes: this.#path.keyframes.map((key, i) => (i === index ? { ...key, ...change } : key)) }, remembers);
    this.onChange();
  }

  /** Moves a keyframe in time, between its neighbours. */
  move(index: number, to: number, remembers: boolean): void {
    const starts = times(this.#path);
    const keys = this.#path.keyframes;
    if (index <= 0 || index >= keys.length) return;
    const isLast = index === keys.length - 1 && !this.#path.isLoop;
    const latest = isLast ? starts[index - 1] + 60 : starts[index] + keys[index].seconds - LEAST_S;
    const at = Math.min(Math.max(to, starts[index - 1] + LEAST_S), latest);
    const change = at - starts[index];
    this.#edit(
      {
        keyframes: keys.map((key, i) => {
          if (i === index - 1) return { ...key, seconds: key.seconds + change };
          if (i === index && !isLast) return { ...key, seconds: key.seconds - change };
          return key;
        }),
      },
      remembers,
    );
    this.onChange();
  }

  /** Stretches the whole path. */
  setDuration(seconds: number): void {
    const factor = seconds / (duration(this.#path) || 1);
    this.#edit({ keyframes: this.#path.keyframes.map((key) => ({ ...key, seconds: key.seconds * factor })) });
    this.onChange();
  }

  setLoop(isLoop: boolean): void {
    this.#edit({ isLoop });
    this.onChange();
  }

  setSmoothness(smoothness: number, remembers: boolean): void {
    this.#edit({ smoothness }, remembers);
    this.onChange();
  }

  #edit(change: Partial<Path>, remembers = true): void {
    if (remembers) this.#remember();
    this.#path = { ...this.#path, ...change };
  }

  #remember(): void {
    if (this.#path.keyframes.length) this.#past.push(this.#path);
    if (this.#past.length > MOST_STEPS) this.#past.shift();
  }
}
