/** The path as keyframes on a line of time, with a playhead. */

import { h } from "./dom";
import type { PathEditor } from "./path_editor";
import { duration, times } from "./paths";

export class Timeline {
  readonly scrubber = h("input", { type: "range", min: 0, max: 1000, value: 0, class: "scrub", "aria-label": "Time on the path" });
  #marks = h("div", { class: "marks" });
  #ruler = h("div", { class: "ruler", "aria-hidden": "true" });
  #dragged = -1;

  constructor(
    host: HTMLElement,
    private readonly editor: PathEditor,
    onScrub: (seconds: number) => void,
    private readonly onOpen: (index: number) => void,
  ) {
    host.append(this.#ruler, this.scrubber, this.#marks);
    this.scrubber.addEventListener("input", () => onScrub(this.seconds));
  }

  get seconds(): number {
    return (Number(this.scrubber.value) / 1000) * duration(this.editor.path);
  }

  set seconds(seconds: number) {
    const length = duration(this.editor.path) || 1;
    this.scrubber.value = String(Math.round((1000 * seconds) / length));
    this.scrubber.setAttribute("aria-valuetext", `${seconds.toFixed(2)} seconds`);
  }

  /** Draws the path anew. */
  show(): void {
    const { path, selected } = this.editor;
    const length = duration(path) || 1;
    const step = [0.25, 0.5, 1, 2, 5, 10, 30].find((each) => length / each <= 12) ?? 60;
    const ticks = Array.from({ length: Math.floor(length / step + 1e-6) + 1 }, (_, i) => i * step);
    this.#ruler.replaceChildren(
      ...ticks.map((at) => {
        const tick = h("span", {}, `${Number(at.toFixed(2))} s`);
        tick.style.left = `${(100 * at) / length}%`;
        return tick;
      }),
    );
    if (this.#dragged >= 0) return this.#place();
    this.#marks.replaceChildren(...path.keyframes.map((_, i) => this.#mark(i, i === selected)));
    this.#place();
  }

  #place(): void {
    const length = duration(this.editor.path) || 1;
    times(this.editor.path).forEach((at, i) => {
      (this.#marks.children[i] as HTMLElement).style.left = `${Math.min(100, (100 * at) / length)}%`;
    });
  }

  #mark(index: number, isSelected: boolean): HTMLElement {
    const mark = h("button", {
      class: "mark",
      type: "button",
      "aria-label": `Keyframe ${index + 1}`,
      "aria-pressed": isSelected ? "true" : "false",
      title: `Keyframe ${index + 1}: drag to move it in time`,
    });
    let start = 0;
    let isMoved = false;
    let perPixel = 0;
    let from = 0;
    mark.addEventListener("pointerdown", (event) => {
      [start, isMoved, from] = [event.clientX, false, times(this.editor.path)[index]];
      perPixel = (duration(this.editor.path) || 1) / this.#marks.clientWidth;
      mark.setPointerCapture(event.pointerId);
    });
    mark.addEventListener("pointermove", (event) => {
      if (!mark.hasPointerCapture(event.pointerId) || (!isMoved && Math.abs(event.clientX - start) < 4)) return;
      this.#dragged = index;
      this.editor.move(index, from + (event.clientX - start) * perPixel, !isMoved);
      isMoved = true;
    });
    mark.addEventListener("lostpointercapture", () => {
      this.#dragged = -1;
      if (isMoved) this.show();
    });
    mark.addEventListener("click", () => !isMoved && this.onOpen(index));
    mark.addEventListener("keydown", (event) => {
      const by = event.key === "ArrowRight" ? 0.1 : event.key === "ArrowLeft" ? -0.1 : 0;
      if (by) {
        event.preventDefault();
        event.stopPropagation();
        this.editor.move(index, times(this.editor.path)[index] + by, true);
        (this.#marks.children[index] as HTMLElement | undefined)?.focus();
      }
      if (event.key === "Delete" || event.key === "Backspace") this.editor.remove(index);
    });
    return mark;
  }
}
