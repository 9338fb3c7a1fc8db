/** The server's public API: requests, problem documents, the API key, images, and event streams that resume. */

import { EventParser, type ServerEvent } from "./sse";
import type { Matrix, Transforms } from "./cameras";

const KEY = "sphinx-nvs.key";

export interface Scene {
  id: string;
  status: "ready" | "posing" | "failed";
  posing: { stage: string; progress: number; left_s: number | null } | null;
  reason: string;
  advice: { photo: string; found: string; hint: string }[];
  num_views: number;
  width: number;
  height: number;
  warnings: string[];
  links: { points?: string };
}

export interface Quote {
  latency_s: { p50: number; p95: number };
  wait_s: number;
  quality: number;
  active_share: number;
  reason: string;
}

export interface Job {
  id: string;
  status: string;
  level: "none" | "preview" | "final";
  progress: number | null;
  scene: string;
  num_frames: number;
  width: number;
  height: number;
  fps: number;
  quality: number | null;
  quote: Quote | null;
  reason: string;
  warnings: string[];
  created_at: string;
  requested: { quality: number | null; deadline_s: number | null; min_quality: number };
}

export interface JobBody {
  scene: string;
  cameras: { w: number; h: number; frames: { c2w: Matrix; K: Matrix }[] };
  size: { width: number; height: number };
  quality?: number;
  deadline_s?: number;
  min_quality: number;
  fps: number;
}

export interface Capacity {
  devices: {
    index: number;
    name: string;
    is_ready: boolean;
    is_busy: boolean;
    resident_units: number;
    remaining_s: number;
  }[];
  queued: number;
  running: number;
  max_queue: number;
  wait_s: number;
  backlog_s: number;
  pressure: number;
  slo_attainment: number;
  streams: number;
}

export interface Model {
  id: string;
  size_multiple: number;
  window: number;
  default_quality: number;
  networks: { name: string; description: string; role: string; licence: string }[];
}

/** An error of the server in words. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    detail: string,
    readonly retryAfter = 0,
  ) {
    super(detail);
  }
}

/** Set by the page: called when the server wants an API key. */
export let onUnauthorized: () => void = () => {};
export const setOnUnauthorized = (call: () => void): void => {
  onUnauthorized = call;
};

export const apiKey = (): string => sessionStorage.getItem(KEY) ?? "";
export const setApiKey = (key: string): void => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

export const authorization = (): Record<string, string> => (apiKey() ? { Authorization: `Bearer ${apiKey()}` } : {});

/** The sentence of a problem document, or the best one there is. */
export async function problemOf(response: Response): Promise<Problem> {
  const retry = Number(response.headers.get("Retry-After")) || 0;
  try {
    const document = (await response.json()) as { detail?: unknown };
    if (typeof document.detail === "string") return new Problem(response.status, document.detail, retry);
  } catch {
    // Not from this server, e.g. a proxy's page.
  }
  return new Problem(response.status, `The server answered with status ${response.status}.`, retry);
}

/** Sends a request; raises `Problem` for errors. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers: { ...authorization(), ...(init.headers as object) } });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Problem(0, "The server cannot be reached; it may be restarting.");
  }
  if (response.ok) return response;
  if (response.status === 401) onUnauthorized();
  throw await problemOf(response);
}

async function json<T>(path: string, init: RequestInit = {}): Promise<T> {
  return (await (await request(path, init)).json()) as T;
}

const post = (body: unknown, headers: Record<string, string> = {}): RequestInit => ({
  method: "POST",
  body: JSON.stringify(body),
  headers: { "Content-Type": "application/json", ...headers },
});

export const getScene = (id: string): Promise<Scene> => json(`/v1/scenes/${id}`);
export const getScenes = async (): Promise<Scene[]> => (await json<{ data: Scene[] }>("/v1/scenes?limit=50")).data;
export const getCameras = (id: string): Promise<Transforms> => json(`/v1/scenes/${id}/cameras`);
export const deleteScene = (id: string): Promise<Response> => request(`/v1/scenes/${id}`, { method: "DELETE" });
export const getJob = (id: string): Promise<Job> => json(`/v1/jobs/${id}`);
export const deleteJob = (id: string): Promise<Job> => json(`/v1/jobs/${id}`, { method: "DELETE" });
export const getModel = async (): Promise<Model> => (await json<{ data: Model[] }>("/v1/models")).data[0];
export const getCapacity = (): Promise<Capacity> => json("/v1/capacity");
export const getMetrics = async (): Promise<string> => (await request("/metrics")).text();
export const getQuote = (body: JobBody, signal: AbortSignal): Promise<Quote> =>
  json("/v1/jobs:quote", { ...post(body), signal });

/** Creates a job; safe to repeat after a lost connection, which it does itself once. */
export async function createJob(body: JobBody): Promise<Job> {
  const init = post(body, { "Idempotency-Key": randomName() });
  try {
    return await json("/v1/jobs", init);
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 0) throw error;
    return json("/v1/jobs", init);
  }
}

function randomName(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const MOST_AT_ONCE = 6;
let atWork = 0;
const waiting: (() => void)[] = [];

/** Fetches a file, few at a time; waits where the server says so. */
export async function getBlob(path: string, signal?: AbortSignal): Promise<Blob> {
  if (atWork >= MOST_AT_ONCE) await new Promise<void>((go) => waiting.push(go));
  atWork++;
  try {
    for (let attempt = 0; ; attempt++) {
      try {
        return await (await request(path, { signal })).blob();
      } catch (error) {
        const busy = error instanceof Problem && (error.status === 429 || error.status === 503 || error.status === 0);
        if (!busy || attempt >= 4 || signal?.aborted) throw error;
        await sleep(1000 * Math.max(error.retryAfter, 0.5 * 2 ** attempt));
      }
    }
  } finally {
    atWork--;
    waiting.shift()?.();
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

export interface StreamOptions {
  signal: AbortSignal;
  onEvent: (event: ServerEvent) => void;
  /** The connection was lost, and is tried again. */
  onLost?: () => void;
  /** Bytes arrive (again). */
  onOpen?: () => void;
  /** Whether this event is the stream's last. */
  isLast: (event: ServerEvent) => boolean;
}

/** Follows an event stream until its last event, over lost connections and restarts of the server. */
export async function follow(path: string, options: StreamOptions): Promise<void> {
  let lastId = "";
  for (let failures = 0; !options.signal.aborted; ) {
    try {
      const headers: Record<string, string> = lastId ? { "Last-Event-ID": lastId } : {};
      const response = await request(path, { headers, signal: options.signal });
      if (response.status === 204 || !response.body) return;
      options.onOpen?.();
      const parser = new EventParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const event of parser.push(value)) {
          failures = 0;
          if (event.id) lastId = event.id;
          options.onEvent(event);
          if (options.isLast(event)) return;
        }
      }
    } catch (error) {
      if (options.signal.aborted) return;
      const hopeless = error instanceof Problem && [401, 403, 404, 422].includes(error.status);
      if (hopeless) throw error;
    }
    if (options.signal.aborted) return;
    options.onLost?.();
    await sleep(Math.min(5000, 400 * 2 ** failures++));
  }
}
