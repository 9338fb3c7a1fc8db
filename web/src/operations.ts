/** The operations page: load, quality and devices. */

import { getCapacity, getMetrics, getModel, type Capacity, type Model } from "./api";
import { h } from "./dom";
import { percent, seconds } from "./job_state";

/** Reads Prometheus' text format: sums of samples by name, and single samples by name and labels. */
export function parseMetrics(text: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const line of text.split("\n")) {
    const match = /^([A-Za-z_:][\w:]*)(\{.*\})? (\S+)/.exec(line);
    if (!match) continue;
    const value = Number(match[3]);
    if (match[2]) values.set(match[1] + match[2], value);
    values.set(match[1], (values.get(match[1]) ?? 0) + value);
  }
  return values;
}

/** Mean of a histogram or summary, null without samples. */
export function meanOf(metrics: Map<string, number>, name: string): number | null {
  const count = metrics.get(`${name}_count`) ?? 0;
  return count > 0 ? (metrics.get(`${name}_sum`) ?? 0) / count : null;
}

export class Operations {
  #timer = 0;
  #load: number[] = [];

  constructor(private readonly host: HTMLElement) {}

  open(): void {
    this.close();
    void this.#refresh();
    this.#timer = window.setInterval(() => document.hidden || void this.#refresh(), 3000);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #refresh(): Promise<void> {
    try {
      const [capacity, model, text] = await Promise.all([getCapacity(), getModel(), getMetrics().catch(() => "")]);
      this.#load = [...this.#load.slice(-59), capacity.backlog_s];
      this.#show(capacity, model, parseMetrics(text));
    } catch (error) {
      this.host.replaceChildren(h("p", { class: "empty" }, error instanceof Error ? error.message : String(error)));
    }
  }

  #show(capacity: Capacity, model: Model, metrics: Map<string, number>): void {
    const quality = meanOf(metrics, "sphinx_delivered_quality");
    const preview = meanOf(metrics, "sphinx_time_to_preview_seconds");
    const met = metrics.get('sphinx_deadlines_total{met="yes"}') ?? 0;
    const missed = metrics.get('sphinx_deadlines_total{met="no"}') ?? 0;
    this.host.replaceChildren(
      h("h1", {}, "Operations"),
      h(
        "div",
        { class: "cards" },
        card("Running", String(capacity.running), `${capacity.queued} waiting, ${capacity.max_queue} at most`),
        card("Wait", seconds(capacity.wait_s), "until a new video's refinement starts"),
        card("Quality delivered", quality === null ? "–" : percent(quality), "mean since the start, as predicted"),
        card("Deadlines met", met + missed ? percent(capacity.slo_attainment) : "–", `${met + missed} videos with a deadline`),
        card("First preview", preview === null ? "–" : seconds(preview), "mean time from the request"),
        card("Pressure", percent(capacity.pressure), capacity.pressure > 0 ? "quality is lowered under load" : "nothing is lowered"),
      ),
      h("section", { class: "card wide" }, h("h2", {}, "Work ahead"), sparkline(this.#load), h("p", { class: "hint" }, `${seconds(capacity.backlog_s)} of device time`)),
      h(
        "section",
        { class: "card wide" },
        h("h2", {}, "Devices"),
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ...["Device", "State", "Units in memory", "Work left"].map((text) => h("th", { scope: "col" }, text)))),
          h(
            "tbody",
            {},
            ...capacity.devices.map((device) =>
              h(
                "tr",
                {},
                h("th", { scope: "row" }, `${device.index} · ${device.name}`),
                h("td", {}, h("span", { class: `dot ${device.is_busy ? "busy" : device.is_ready ? "ok" : "off"}` }), device.is_busy ? "busy" : device.is_ready ? "idle" : "starting"),
                h("td", {}, String(device.resident_units)),
                h("td", {}, seconds(device.remaining_s)),
              ),
            ),
          ),
        ),
      ),
      h(
        "section",
        { class: "card wide" },
        h("h2", {}, `Model ${model.id}`),
        ...model.networks.map((network) => h("p", {}, h("b", {}, network.name), ` ${network.description} · ${network.licence}`)),
        h("p", { class: "hint" }, `${capacity.streams} open event streams · `, h("a", { href: "/docs" }, "API reference"), " · ", h("a", { href: "/metrics" }, "metrics")),
      ),
    );
  }
}

function card(title: string, value: string, note: string): HTMLElement {
  return h("section", { class: "card" }, h("h2", {}, title), h("p", { class: "figure" }, value), h("p", { class: "hint" }, note));
}

function sparkline(values: number[]): SVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 590 60");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(1, ...values);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", values.map((value, i) => `${(60 - values.length + i) * 10},${58 - (54 * value) / most}`).join(" "));
  svg.append(line);
  return svg;
}
