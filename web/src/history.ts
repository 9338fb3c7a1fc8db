/** The jobs that this browser has created. */

import type { JobBody } from "./api";

const PLACE = "sphinx-nvs.jobs";
const MOST = 40;

export interface Remembered {
  id: string;
  scene: string;
  created: number;
  isLoop: boolean;
  /** The request, so that it can be sent again; left out of old entries, whose bodies may be large. */
  body?: JobBody;
}

export function remembered(): Remembered[] {
  try {
    const list = JSON.parse(localStorage.getItem(PLACE) ?? "[]") as unknown;
    return Array.isArray(list) ? (list as Remembered[]).filter((each) => typeof each?.id === "string") : [];
  } catch {
    return [];
  }
}

function write(list: Remembered[]): void {
  try {
    localStorage.setItem(PLACE, JSON.stringify(list.map((each, i) => (i < 5 ? each : { ...each, body: undefined }))));
  } catch {
    // Storage is full or forbidden: the history then lasts as long as the page.
  }
}

export function remember(job: Remembered): void {
  write([job, ...remembered().filter((each) => each.id !== job.id)].slice(0, MOST));
}

export function forget(id: string): void {
  write(remembered().filter((each) => each.id !== id));
}
