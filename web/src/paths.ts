/** Camera paths: keyframes in time, and the cameras between them. */

import { Quaternion, Matrix4 } from "three";
import {
  add,
  centre,
  cross,
  distance,
  forward,
  intrinsics,
  flipAxes,
  lookAt,
  normalized,
  right,
  type Camera,
  type Focus,
  type Lens,
  type Matrix,
  type Vec3,
} from "./cameras";

export interface Keyframe extends Camera {
  /** Seconds until the next keyframe (of the last one: until the first, if the path is a loop). */
  seconds: number;
}

export interface Path {
  keyframes: Keyframe[];
  isLoop: boolean;
  /** 0: straight lines and sharp turns; 1: smooth. */
  smoothness: number;
}

/** Length of a path in seconds. */
export function duration(path: Path): number {
  const count = path.isLoop && path.keyframes.length > 1 ? path.keyframes.length : path.keyframes.length - 1;
  return path.keyframes.slice(0, Math.max(0, count)).reduce((sum, key) => sum + key.seconds, 0);
}

/** When each keyframe is reached, seconds. */
export function times(path: Path): number[] {
  let at = 0;
  return path.keyframes.map((key) => {
    const now = at;
    at += key.seconds;
    return now;
  });
}

/** The camera at a time, which is clamped to the path, or wraps in a loop. */
export function cameraAt(path: Path, seconds: number): Camera {
  const keys = path.keyframes;
  const count = keys.length;
  if (count === 1) return keys[0];
  const length = duration(path);
  const at = path.isLoop ? ((seconds % length) + length) % length : Math.min(Math.max(seconds, 0), length);
  const starts = times(path);
  const segments = path.isLoop ? count : count - 1;
  let i = segments - 1;
  while (i > 0 && starts[i] > at) i--;
  const span = keys[i].seconds;
  const u = span > 0 ? Math.min(1, (at - starts[i]) / span) : 0;
  return between(path, i, u);
}

/** Evenly spaced cameras along a path; of a loop, the last is one step before the first. */
export function sampled(path: Path, count: number): Camera[] {
  const length = duration(path);
  const steps = path.isLoop ? count : Math.max(1, count - 1);
  return Array.from({ length: count }, (_, i) => cameraAt(path, (length * i) / steps));
}

function between(path: Path, i: number, u: number): Camera {
  const keys = path.keyframes;
  const count = keys.length;
  const index = (j: number): number =>
    path.isLoop ? ((j % count) + count) % count : Math.min(Math.max(j, 0), count - 1);
  const four = [i - 1, i, i + 1, i + 2].map((j) => keys[index(j)]);
  const spans = [i - 1, i, i + 1].map((j) => Math.max(1e-6, keys[index(j)].seconds));
  if (!path.isLoop && i === 0) spans[0] = spans[1];
  if (!path.isLoop && i + 2 > count - 1) spans[2] = spans[1];
  const curve = (values: number[]): number =>
    values[1] + (values[2] - values[1]) * u + path.smoothness * (hermite(values, spans, u) - (values[1] + (values[2] - values[1]) * u));
  const position = [0, 1, 2].map((axis) => curve(four.map((key) => key.c2w[axis][3]))) as Vec3;
  const rotation = turned(four.map((key) => quaternionOf(key.c2w)), spans, u, path.smoothness);
  const lens: Lens = {
    fov: 2 * Math.atan(Math.exp(curve(four.map((key) => Math.log(Math.tan(key.lens.fov / 2)))))),
    shift: [0, 1].map((axis) => curve(four.map((key) => key.lens.shift[axis]))) as [number, number],
  };
  return { c2w: poseOf(rotation, position), lens };
}

/** Cubic Hermite spline between the middle two of four values, with the tangents of unevenly spaced Catmull-Rom. */
function hermite(values: number[], spans: number[], u: number): number {
  const m1 = ((values[2] - values[0]) / (spans[0] + spans[1])) * spans[1];
  const m2 = ((values[3] - values[1]) / (spans[1] + spans[2])) * spans[1];
  const u2 = u * u;
  const u3 = u2 * u;
  return (2 * u3 - 3 * u2 + 1) * values[1] + (u3 - 2 * u2 + u) * m1 + (3 * u2 - 2 * u3) * values[2] + (u3 - u2) * m2;
}

function turned(four: Quaternion[], spans: number[], u: number, smoothness: number): Quaternion {
  for (let i = 1; i < 4; i++) if (four[i].dot(four[i - 1]) < 0) four[i].set(-four[i].x, -four[i].y, -four[i].z, -four[i].w);
  const straight = four[1].clone().slerp(four[2], u);
  const parts = four.map((q) => [q.x, q.y, q.z, q.w]);
  const [x, y, z, w] = [0, 1, 2, 3].map((k) => hermite(parts.map((part) => part[k]), spans, u));
  return straight.slerp(new Quaternion(x, y, z, w).normalize(), smoothness);
}

function quaternionOf(c2w: Matrix): Quaternion {
  return new Quaternion().setFromRotationMatrix(new Matrix4().set(
    c2w[0][0], c2w[0][1], c2w[0][2], 0, c2w[1][0], c2w[1][1], c2w[1][2], 0, c2w[2][0], c2w[2][1], c2w[2][2], 0, 0, 0, 0, 1));
}

function poseOf(rotation: Quaternion, position: Vec3): Matrix {
  const e = new Matrix4().makeRotationFromQuaternion(rotation).elements;
  return [0, 1, 2].map((i) => [e[i], e[4 + i], e[8 + i], position[i]]).concat([[0, 0, 0, 1]]);
}

export const PRESETS = {
  photos: "Through the photos",
  orbit: "Orbit",
  sway: "Sway",
  eight: "Figure eight",
  in: "Push in",
  out: "Pull back",
  rise: "Rise",
  zoom: "Dolly zoom",
} as const;
export type Preset = keyof typeof PRESETS;

/** A path by name, as keyframes that can be edited.
 *
 * Movements start from the given camera and are sized by the distance to the scene and the spread of its photos.
 */
export function preset(name: Preset, photos: Camera[], focus: Focus, from: Camera, seconds = 2): Path {
  if (name === "photos" && photos.length > 1) {
    return throughAll(inOrder(photos), seconds);
  }
  const eye = centre(from.c2w);
  const z = forward(from.c2w);
  const x = right(from.c2w);
  const y = normalized(cross(x, z));
  const reach = Math.min(0.16 * focus.distance, Math.max(spread(photos), 0.06 * focus.distance));
  const target = add(eye, z, focus.distance);
  const move = (dx: number, dy: number, dz: number): Vec3 =>
    add(add(add(eye, x, dx * reach), y, dy * reach), z, dz * reach);
  const looking = (at: Vec3): Camera => ({ c2w: lookAt(at, target, y), lens: from.lens });
  const path = (cameras: Camera[], isLoop: boolean): Path => ({
    keyframes: cameras.map((camera) => ({ ...camera, seconds: seconds / (isLoop ? cameras.length : cameras.length - 1) })),
    isLoop,
    smoothness: 1,
  });
  const round = (count: number, at: (angle: number) => Vec3): Path =>
    path(Array.from({ length: count }, (_, i) => looking(at((2 * Math.PI * i) / count))), true);
  switch (name) {
    case "orbit":
      return round(8, (a) => move(Math.sin(a), 0.4 * (Math.cos(a) - 1), 0));
    case "eight":
      return round(8, (a) => move(Math.sin(a), 0.3 * Math.sin(2 * a), 0));
    case "in":
      return path([0, 0.5, 1].map((t) => ({ c2w: moved(from.c2w, move(0, 0, 1.6 * t)), lens: from.lens })), false);
    case "out":
      return path([0, 0.5, 1].map((t) => ({ c2w: moved(from.c2w, move(0, 0, -1.6 * t)), lens: from.lens })), false);
    case "rise":
      return path([-0.2, 0.2, 0.6].map((t) => looking(move(0, t, 0))), false);
    case "zoom":
      return path(
        [0, 0.5, 1].map((t) => {
          const ahead = 1.8 * t * reach;
          const tan = (Math.tan(from.lens.fov / 2) * focus.distance) / (focus.distance - ahead);
          const lens: Lens = { fov: 2 * Math.atan(tan), shift: from.lens.shift };
          return { c2w: moved(from.c2w, add(eye, z, ahead)), lens };
        }),
        false,
      );
    default:
      return path([-1, 0, 1].map((t) => looking(move(t, 0, 0))), false);
  }
}

/** All cameras, at about even speed. */
function throughAll(photos: Camera[], seconds: number): Path {
  const gaps = photos.slice(1).map((photo, i) => distance(centre(photo.c2w), centre(photos[i].c2w)));
  const least = (0.25 * gaps.reduce((sum, gap) => sum + gap, 0)) / gaps.length || 1;
  const shares = gaps.map((gap) => Math.max(gap, least));
  const whole = shares.reduce((sum, share) => sum + share, 0);
  return {
    keyframes: photos.map(({ c2w, lens }, i) => ({ c2w, lens, seconds: (seconds * (shares[i] ?? least)) / whole })),
    isLoop: false,
    smoothness: 1,
  };
}

/** Photos in their own order, or along a short tour if that turns back and forth. */
export function inOrder(photos: Camera[]): Camera[] {
  const gap = (a: Camera, b: Camera): number => distance(centre(a.c2w), centre(b.c2w));
  const length = (tour: Camera[]): number => tour.slice(1).reduce((sum, each, i) => sum + gap(tour[i], each), 0);
  const tours = photos.map((start) => {
    const left = new Set(photos);
    const tour = [start];
    left.delete(start);
    while (left.size) {
      const nearest = [...left].reduce((a, b) => (gap(tour[tour.length - 1], b) < gap(tour[tour.length - 1], a) ? b : a));
      tour.push(nearest);
      left.delete(nearest);
    }
    return shortened(tour, length);
  });
  const best = tours.reduce((a, b) => (length(b) < length(a) ? b : a));
  if (length(best) > 0.8 * length(photos)) return photos;
  // In the direction of the photos' own order.
  return photos.indexOf(best[0]) <= photos.indexOf(best[best.length - 1]) ? best : best.reverse();
}

/** Reverses parts of a tour while that shortens it (2-opt). */
function shortened(tour: Camera[], length: (tour: Camera[]) => number): Camera[] {
  for (let isBetter = true; isBetter; ) {
    isBetter = false;
    for (let i = 0; i < tour.length - 1; i++)
      for (let j = i + 2; j <= tour.length; j++) {
        const other = [...tour.slice(0, i), ...tour.slice(i, j).reverse(), ...tour.slice(j)];
        if (length(other) < length(tour) - 1e-9) {
          tour = other;
          isBetter = true;
        }
      }
  }
  return tour;
}

function spread(photos: Camera[]): number {
  const points = photos.map((photo) => centre(photo.c2w));
  let most = 0;
  for (const a of points) for (const b of points) most = Math.max(most, Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]));
  return 0.5 * most;
}

const moved = (c2w: Matrix, to: Vec3): Matrix => c2w.map((row, i) => (i < 3 ? [row[0], row[1], row[2], to[i]] : row));

/** Writes cameras as this package's camera file. */
export function cameraFile(cameras: Camera[], width: number, height: number): object {
  return {
    format: "sphinx-nvs cameras",
    version: 1,
    height,
    width,
    cameras: cameras.map((camera, i) => ({
      name: String(i).padStart(4, "0"),
      c2w: camera.c2w,
      K: intrinsics(camera.lens, width, height),
    })),
  };
}

/** Writes a path as nerfstudio's viewer saves one: its keyframes, and the cameras to be rendered. */
export function nerfstudioPath(path: Path, width: number, height: number, fps: number): object {
  const count = Math.max(1, Math.round(duration(path) * fps));
  const degrees = (camera: Camera): number => (camera.lens.fov * 180) / Math.PI;
  const flat = (camera: Camera): number[] => flipAxes(camera.c2w).flat();
  return {
    camera_type: "perspective",
    render_height: height,
    render_width: width,
    fps,
    seconds: duration(path),
    is_cycle: path.isLoop,
    smoothness_value: path.smoothness,
    camera_path: sampled(path, count).map((c) => ({ camera_to_world: flat(c), fov: degrees(c), aspect: width / height })),
    keyframes: path.keyframes.map((key) => ({
      matrix: flat(key),
      fov: degrees(key),
      aspect: width / height,
      override_transition_enabled: true,
      override_transition_sec: key.seconds,
    })),
  };
}

interface NerfstudioKey {
  matrix: number[] | string;
  fov: number;
  override_transition_sec?: number | null;
}
interface PathFile {
  format?: string;
  width?: number;
  height?: number;
  cameras?: { c2w: Matrix; K: Matrix }[];
  keyframes?: NerfstudioKey[];
  camera_path?: { camera_to_world: number[]; fov: number }[];
  render_height?: number;
  seconds?: number;
  is_cycle?: boolean;
  smoothness_value?: number;
}

const MOST_KEYFRAMES = 24;

/** Reads a path from either file; of a list of cameras, a few become keyframes.
 *
 * Raises an error with one sentence if the file holds no path.
 */
export function pathFrom(text: string): Path {
  let file: PathFile;
  try {
    file = JSON.parse(text) as PathFile;
  } catch {
    throw new Error("This file is not JSON; choose a camera path of nerfstudio or a cameras.json.");
  }
  if (file?.keyframes?.length) return fromKeyframes(file, file.keyframes);
  const cameras = listed(file);
  if (!cameras?.length) throw new Error("This file holds no cameras; choose a camera path of nerfstudio or a cameras.json.");
  const step = Math.max(1, (cameras.length - 1) / (MOST_KEYFRAMES - 1));
  const count = cameras.length === 1 ? 1 : Math.round((cameras.length - 1) / step) + 1;
  const chosen = Array.from({ length: count }, (_, i) => cameras[Math.min(cameras.length - 1, Math.round(i * step))]);
  const seconds = (file.seconds ?? Math.max(1, cameras.length / 24)) / Math.max(1, count - 1);
  return {
    keyframes: chosen.map((camera) => ({ ...camera, seconds })),
    isLoop: file.is_cycle ?? false,
    smoothness: file.smoothness_value ?? 1,
  };
}

function fromKeyframes(file: PathFile, keys: NerfstudioKey[]): Path {
  const each = (file.seconds ?? 2) / Math.max(1, keys.length - (file.is_cycle ? 0 : 1));
  return {
    keyframes: keys.map((key) => ({
      // Older viewers wrote the matrix as a text, by columns.
      c2w: typeof key.matrix === "string" ? transposed(JSON.parse(key.matrix) as number[]) : flipAxes(rows(key.matrix)),
      lens: { fov: (key.fov * Math.PI) / 180, shift: [0, 0] },
      seconds: key.override_transition_sec ?? each,
    })),
    isLoop: file.is_cycle ?? false,
    smoothness: file.smoothness_value ?? 1,
  };
}

function listed(file: PathFile): Camera[] | undefined {
  if (file.format === "sphinx-nvs cameras") {
    const { width = 1, height = 1 } = file;
    return file.cameras?.map(({ c2w, K }) => ({
      c2w: [...c2w.slice(0, 3), [0, 0, 0, 1]],
      lens: { fov: 2 * Math.atan(height / 2 / K[1][1]), shift: [K[0][2] / width - 0.5, K[1][2] / height - 0.5] },
    }));
  }
  return file.camera_path?.map((camera) => ({
    c2w: flipAxes(rows(camera.camera_to_world)),
    lens: { fov: (camera.fov * Math.PI) / 180, shift: [0, 0] },
  }));
}

const rows = (flat: number[]): Matrix => [0, 4, 8].map((i) => flat.slice(i, i + 4)).concat([[0, 0, 0, 1]]);
const transposed = (flat: number[]): Matrix => flipAxes([0, 1, 2].map((i) => [flat[i], flat[4 + i], flat[8 + i], flat[12 + i]]));
