/** The live session: cameras out, frames in; the newest camera wins. */

import { apiKey } from "./api";
import { intrinsics, type Camera, type Matrix } from "./cameras";

export interface FrameHeader {
  type: "frame";
  id: number;
  level: "regression" | "refined";
  seconds: number;
  width: number;
  height: number;
}

export interface LiveFrame {
  header: FrameHeader;
  jpeg: Blob;
}

export type LiveMessage =
  | { type: "ready"; scene: string; max_side: number }
  | { type: "waiting"; detail: string }
  | { type: "error"; detail: string; status: number };

/** Splits a binary message: a little-endian length, a JSON header of that length, a JPEG. */
export function parseFrame(message: ArrayBuffer): LiveFrame {
  if (message.byteLength < 4) throw new Error("A frame is shorter than its length field.");
  const length = new DataView(message).getUint32(0, true);
  if (4 + length > message.byteLength) throw new Error("A frame is shorter than its header.");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length))) as FrameHeader;
  if (header.type !== "frame") throw new Error(`A binary message is a ${String(header.type)}.`);
  return { header, jpeg: new Blob([new Uint8Array(message, 4 + length)], { type: "image/jpeg" }) };
}

/** Reads a text message; null if this page does not know it. */
export function parseText(text: string): LiveMessage | null {
  const message = JSON.parse(text) as LiveMessage;
  return ["ready", "waiting", "error"].includes(message.type) ? message : null;
}

export function cameraMessage(id: number, camera: Camera, width: number, height: number): string {
  const K: Matrix = intrinsics(camera.lens, width, height);
  return JSON.stringify({ type: "camera", id, c2w: camera.c2w, K, width, height });
}

export type LiveStatus = "connecting" | "ready" | "waiting" | "off";

export interface LiveOptions {
  onFrame: (frame: LiveFrame) => void;
  onStatus: (status: LiveStatus, detail: string) => void;
}

const RETRY_MS = [2000, 10_000, 30_000];

/** One scene's session, reconnected while it is open. */
export class LiveSession {
  #socket: WebSocket | null = null;
  #id = 0;
  #newest = "";
  #isSent = true;
  #attempt = 0;
  #timer = 0;
  #isClosed = false;

  constructor(
    readonly scene: string,
    private readonly options: LiveOptions,
  ) {
    this.#connect();
  }

  get newestId(): number {
    return this.#id;
  }

  /** Sends a camera, or keeps the newest one until the socket takes it. */
  send(camera: Camera, width: number, height: number): void {
    this.#newest = cameraMessage(++this.#id, camera, width, height);
    this.#isSent = false;
    this.#flush();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }

  #connect(): void {
    this.options.onStatus("connecting", "");
    const protocols = ["sphinx-live.v1"];
    if (apiKey()) protocols.push(`bearer.${apiKey()}`);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    let detail = "";
    const socket = new WebSocket(`${scheme}://${location.host}/v1/scenes/${this.scene}/live`, protocols);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      // What was sent before a lost connection is sent again.
      this.#isSent = this.#newest === "";
      this.#flush();
    };
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => {
      if (typeof event.data !== "string") {
        this.#attempt = 0;
        this.options.onFrame(parseFrame(event.data));
        this.#flush();
        return;
      }
      const message = parseText(event.data);
      if (message?.type === "ready") this.options.onStatus("ready", "");
      if (message?.type === "waiting") this.options.onStatus("waiting", message.detail);
      if (message?.type === "error") detail = message.detail;
    };
    socket.onclose = () => {
      if (this.#isClosed) return;
      this.options.onStatus("off", detail);
      const wait = RETRY_MS[Math.min(this.#attempt++, RETRY_MS.length - 1)];
      this.#timer = window.setTimeout(() => this.#connect(), wait);
    };
  }

  #flush(): void {
    if (this.#isSent || this.#socket?.readyState !== WebSocket.OPEN || this.#socket.bufferedAmount > 16_384) return;
    this.#socket.send(this.#newest);
    this.#isSent = true;
  }
}
