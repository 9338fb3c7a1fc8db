/** A dial: an arc that is turned with the pointer, over a range input that keyboards and screen readers use. */

import { h } from "./dom";

const SVG = "http://www.w3.org/2000/svg";
const SWEEP = 220;

function shape(name: string, attributes: Record<string, string | number>): SVGElement {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

const polar = (share: number, radius: number): [number, number] => {
  const angle = ((-90 - SWEEP / 2 + SWEEP * share) * Math.PI) / 180;
  return [100 + radius * Math.cos(angle), 96 + radius * Math.sin(angle)];
};

function arc(from: number, to: number, radius: number): string {
  const [x0, y0] = polar(from, radius);
  const [x1, y1] = polar(to, radius);
  return `M${x0} ${y0}A${radius} ${radius} 0 ${(to - from) * SWEEP > 180 ? 1 : 0} 1 ${x1} ${y1}`;
}

export class Dial {
  readonly input: HTMLInputElement;
  #active = shape("path", { class: "dial-active" });
  #knob = shape("circle", { class: "dial-knob", r: 10 });
  #value: HTMLElement;
  #text: (share: number) => string = (share) => String(share);

  /** Fills `host`; `onTurn` gets the share of the way from the left end, 0..1. */
  constructor(host: HTMLElement, onTurn: (share: number) => void) {
    const svg = shape("svg", { viewBox: "0 0 200 150", "aria-hidden": "true" });
    svg.append(shape("path", { class: "dial-track", d: arc(0, 1, 78) }));
    for (let i = 0; i <= 10; i++) {
      const [x0, y0] = polar(i / 10, 62);
      const [x1, y1] = polar(i / 10, i % 5 ? 58 : 55);
      svg.append(shape("line", { class: "dial-tick", x1: x0, y1: y0, x2: x1, y2: y1 }));
    }
    svg.append(this.#active, this.#knob);
    this.input = h("input", { type: "range", min: 0, max: 100, step: 1, "aria-labelledby": "dial-title" });
    this.#value = h("output", { class: "dial-value" });
    host.append(svg, this.input, this.#value, h("span", { class: "dial-end" }, "Fast"), h("span", { class: "dial-end last" }, "Faithful"));
    this.input.addEventListener("input", () => {
      this.#draw();
      onTurn(this.share);
    });
    const turn = (event: PointerEvent): void => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * 200 - 100;
      const y = ((event.clientY - box.top) / box.height) * 150 - 96;
      const angle = ((Math.atan2(y, x) * 180) / Math.PI + 90 + 540) % 360 - 180;
      this.share = Math.min(1, Math.max(0, (angle + SWEEP / 2) / SWEEP));
      onTurn(this.share);
    };
    host.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      this.input.focus({ preventScroll: true });
      host.setPointerCapture(event.pointerId);
      turn(event);
    });
    host.addEventListener("pointermove", (event) => host.hasPointerCapture(event.pointerId) && turn(event));
    this.#draw();
  }

  get share(): number {
    return Number(this.input.value) / 100;
  }

  set share(share: number) {
    this.input.value = String(Math.round(100 * share));
    this.#draw();
  }

  /** What the dial says of a position. */
  set text(text: (share: number) => string) {
    this.#text = text;
    this.#draw();
  }

  #draw(): void {
    const share = this.share;
    this.#active.setAttribute("d", arc(0, Math.max(0.0001, share), 78));
    const [x, y] = polar(share, 78);
    this.#knob.setAttribute("cx", String(x));
    this.#knob.setAttribute("cy", String(y));
    const text = this.#text(share);
    this.#value.textContent = text;
    this.input.setAttribute("aria-valuetext", text);
  }
}
