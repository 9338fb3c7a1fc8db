/** A job as its events tell it. */

import type { Job, Quote } from "./api";

export interface JobState {
  status: string;
  total: number;
  /** Unfinished jobs before this one. */
  position: number;
  quote: Quote | null;
  previews: ReadonlySet<number>;
  finals: ReadonlySet<number>;
  planned: ReadonlySet<number>;
  /** Of full diffusion's compute, as in quotes. */
  computeShare: number | null;
  quality: number | null;
  done: number;
  etaS: number | null;
  degraded: { from: number; to: number; reason: string } | null;
  level: string;
  latencyS: number | null;
  reason: string;
  isLost: boolean;
}

export const FINAL = ["completed", "failed", "cancelled", "expired"];
export const isFinal = (status: string): boolean => FINAL.includes(status);

export function initialState(job: Pick<Job, "status" | "num_frames" | "quote" | "quality" | "level" | "reason">): JobState {
  return {
    status: isFinal(job.status) ? job.status : "queued",
    total: job.num_frames,
    position: 0,
    quote: job.quote,
    previews: new Set(),
    finals: new Set(),
    planned: new Set(),
    computeShare: null,
    quality: job.quality,
    done: 0,
    etaS: null,
    degraded: null,
    level: job.level,
    latencyS: null,
    reason: job.reason,
    isLost: false,
  };
}

interface EventData {
  position?: number;
  quote?: Quote;
  index?: number;
  targets?: number[];
  quality?: number;
  compute_share?: number;
  unit?: string | number;
  done?: number;
  total?: number;
  eta_s?: number | null;
  from?: number;
  to?: number;
  reason?: string;
  level?: string;
  latency_s?: number;
}

const plus = (set: ReadonlySet<number>, more: number[]): ReadonlySet<number> => new Set([...set, ...more]);

/** The state after one event; unknown events change nothing. */
export function reduce(state: JobState, event: string, data: EventData): JobState {
  switch (event) {
    case "queued":
      return { ...state, status: "queued", position: data.position ?? 0, quote: data.quote ?? state.quote };
    case "preview_frame":
      return {
        ...state,
        status: isFinal(state.status) ? state.status : "previewing",
        position: 0,
        previews: data.index === undefined ? state.previews : plus(state.previews, [data.index]),
      };
    case "plan":
      return {
        ...state,
        status: isFinal(state.status) ? state.status : "refining",
        planned: plus(state.planned, data.targets ?? []),
        computeShare: data.compute_share ?? state.computeShare,
        quality: data.quality ?? state.quality,
      };
    case "degraded":
      return { ...state, degraded: { from: data.from ?? 0, to: data.to ?? 0, reason: data.reason ?? "" } };
    case "progress":
      return {
        ...state,
        status: isFinal(state.status) ? state.status : "refining",
        position: 0,
        done: data.total ? (data.done ?? 0) / data.total : state.done,
        etaS: data.eta_s ?? null,
      };
    case "frame_refined":
      return {
        ...state,
        status: isFinal(state.status) ? state.status : "refining",
        finals: data.index === undefined ? state.finals : plus(state.finals, [data.index]),
      };
    case "completed":
    case "failed":
    case "cancelled":
    case "expired":
      return {
        ...state,
        status: event,
        etaS: null,
        level: data.level ?? state.level,
        quality: data.quality ?? state.quality,
        latencyS: data.latency_s ?? null,
        reason: data.reason ?? "",
        isLost: false,
      };
    default:
      return state;
  }
}

/** How much is done, 0..1; the preview counts a tenth, as on the server. */
export function progressOf(state: JobState): number {
  if (state.status === "completed") return 1;
  const previewed = state.total ? state.previews.size / state.total : 0;
  const refined = state.total ? state.finals.size / state.total : 0;
  return Math.min(1, 0.1 * previewed + 0.9 * Math.max(refined, isFinal(state.status) ? 0 : 0.98 * state.done));
}

export function seconds(value: number): string {
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export const percent = (share: number): string => `${share > 0 && share < 0.095 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;

/** The state in one sentence. */
export function sentence(state: JobState): string {
  if (state.isLost) return "Connection lost. Trying again; the job goes on.";
  const left = state.etaS === null ? "" : `, about ${seconds(state.etaS)} left`;
  switch (state.status) {
    case "queued":
      if (state.position > 0) return `Waiting, ${state.position} ${state.position === 1 ? "job" : "jobs"} ahead`;
      return "Waiting for the device";
    case "previewing":
      return `Preview: ${state.previews.size} of ${state.total} frames`;
    case "refining":
      return `Refining: ${state.finals.size} of ${state.total} frames${left}`;
    case "completed": {
      const what = state.level === "preview" ? "Done, as a preview" : "Done";
      const time = state.latencyS === null ? "" : ` in ${seconds(state.latencyS)}`;
      const quality = state.quality === null || state.level === "preview" ? "" : ` at quality ${percent(state.quality)}`;
      return `${what}${time}${quality}${state.level === "preview" && state.reason ? `: ${state.reason}` : ""}`;
    }
    case "cancelled":
      return state.reason ? `Cancelled: ${state.reason}` : "Cancelled";
    case "expired":
      return state.reason ? `Expired: ${state.reason}` : "Expired before it was done";
    default:
      return state.reason ? `Failed: ${state.reason}` : "Failed";
  }
}
