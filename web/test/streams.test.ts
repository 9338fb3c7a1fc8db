import { expect, test } from "vitest";
import { partsOf } from "../src/upload";
import { EventParser } from "../src/sse";
import { initialState, progressOf, reduce, sentence, type JobState } from "../src/job_state";
import { cameraMessage, parseFrame, parseText } from "../src/live";
import { meanOf, parseMetrics } from "../src/operations";

const STREAM = ': ping\nid: 7\nevent: preview_frame\ndata: {"index": 0,\ndata: "a": 1}\n\nid: 8\nevent: plan\ndata: {}\n\ndata: x\n\n';

test("events are the same however the stream is cut", () => {
  for (const text of [STREAM, STREAM.replaceAll("\n", "\r\n"), STREAM.replaceAll("\n", "\r")]) {
    for (let size = 1; size < 12; size++) {
      const parser = new EventParser();
      const events = [];
      for (let i = 0; i < text.length; i += size) events.push(...parser.push(text.slice(i, i + size)));
      events.push(...parser.push("\n"));
      expect(events).toEqual([
        { id: "7", event: "preview_frame", data: '{"index": 0,\n"a": 1}' },
        { id: "8", event: "plan", data: "{}" },
        { id: "8", event: "message", data: "x" },
      ]);
    }
  }
});

const fresh = (): JobState => initialState({ status: "queued", num_frames: 2, quote: null, quality: null, level: "none", reason: "" });

test("a job goes from the queue to its end, and says so in words", () => {
  let state = reduce(fresh(), "queued", { position: 2 });
  expect(sentence(state)).toBe("Waiting, 2 jobs ahead");
  state = reduce(state, "preview_frame", { index: 0 });
  state = reduce(state, "preview_frame", { index: 1 });
  expect(progressOf(state)).toBeCloseTo(0.1);
  state = reduce(state, "plan", { targets: [0, 1], compute_share: 0.05, quality: 0.9 });
  state = reduce(state, "degraded", { from: 0.9, to: 0.8, reason: "load" });
  state = reduce(state, "progress", { done: 1, total: 4, eta_s: 3 });
  expect(sentence(state)).toBe("Refining: 0 of 2 frames, about 3.0 s left");
  const before = progressOf(state);
  state = reduce(state, "frame_refined", { index: 1 });
  expect(progressOf(state)).toBeGreaterThan(before);
  state = reduce(state, "completed", { level: "final", quality: 0.88, latency_s: 12.3 });
  expect(sentence(state)).toBe("Done in 12 s at quality 88 %");
  expect([progressOf(state), [...state.finals], state.degraded?.to]).toEqual([1, [1], 0.8]);
  expect(reduce(state, "progress", { done: 1, total: 2 }).status).toBe("completed");
  expect(reduce(state, "news of a later version", {})).toBe(state);
});

test("a job that failed says why", () => {
  expect(sentence(reduce(fresh(), "failed", { reason: "the device is out of memory" }))).toBe("Failed: the device is out of memory");
  expect(sentence(reduce(fresh(), "cancelled", {}))).toBe("Cancelled");
  expect(sentence({ ...fresh(), isLost: true })).toContain("Trying again");
});

test("a live frame is a header and a JPEG", async () => {
  const header = new TextEncoder().encode(JSON.stringify({ type: "frame", id: 17, level: "refined", seconds: 0.1, width: 4, height: 2 }));
  const message = new Uint8Array(4 + header.length + 3);
  new DataView(message.buffer).setUint32(0, header.length, true);
  message.set(header, 4);
  message.set([0xff, 0xd8, 0xff], 4 + header.length);
  const frame = parseFrame(message.buffer);
  expect(frame.header).toMatchObject({ id: 17, level: "refined" });
  expect([...new Uint8Array(await frame.jpeg.arrayBuffer())]).toEqual([0xff, 0xd8, 0xff]);
  expect(() => parseFrame(message.buffer.slice(0, 20))).toThrow("shorter than its header");
  expect(() => parseFrame(new ArrayBuffer(2))).toThrow("shorter than its length");
});

test("live messages of other kinds are left alone", () => {
  expect(parseText('{"type": "waiting", "detail": "busy"}')).toEqual({ type: "waiting", detail: "busy" });
  expect(parseText('{"type": "later"}')).toBeNull();
});

test("a camera is sent with intrinsics in pixels of the frame", () => {
  const pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
  const sent = JSON.parse(cameraMessage(3, { c2w: pose, lens: { fov: Math.PI / 2, shift: [0.1, 0] } }, 256, 192));
  expect(sent).toMatchObject({ type: "camera", id: 3, c2w: pose, width: 256, height: 192 });
  expect(sent.K[0][0]).toBeCloseTo(96);
  expect(sent.K[0][2]).toBeCloseTo(0.6 * 256);
});

test("dropped files become the fields of an upload", () => {
  const named = (...names: string[]) => names.map((name) => ({ name, file: new File([], name) }));
  expect(partsOf(named("a/1.jpg", "a/transforms.json", "a/.DS_Store")).map(({ field, file }) => [field, file.name])).toEqual([
    ["images", "a/1.jpg"],
    ["images", "a/transforms.json"],
  ]);
  expect(partsOf(named("walk.MOV"))[0].field).toBe("video");
  expect(partsOf(named("trip.zip"))[0].field).toBe("archive");
  expect(() => partsOf(named("trip.zip", "1.jpg"))).toThrow("comes with other files");
  expect(() => partsOf([])).toThrow("no files");
});

test("metrics are read, and their means", () => {
  const metrics = parseMetrics('# HELP a b\na_sum 6.0\na_count 3.0\nd{met="yes"} 2.0\nd{met="no"} 1.0\n');
  expect(meanOf(metrics, "a")).toBe(2);
  expect(meanOf(metrics, "none")).toBeNull();
  expect([metrics.get('d{met="no"}'), metrics.get("d")]).toEqual([1, 3]);
});
