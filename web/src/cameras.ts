/** Cameras as the API has them: OpenCV axes (+x right, +y down, +z forward), matrices by rows, intrinsics in pixels. */

export type Vec3 = [number, number, number];
export type Matrix = number[][];

/** A lens, independent of the size of frames. */
export interface Lens {
  /** Vertical angle between the borders of an image whose principal point is its centre, radians. */
  fov: number;
  /** Principal point relative to the centre, in widths and heights. */
  shift: [number, number];
}

export interface Camera {
  c2w: Matrix;
  lens: Lens;
}

/** A photo's camera with its size in pixels. */
export interface Photo extends Camera {
  width: number;
  height: number;
  K: Matrix;
}

/** A frame of a transforms.json. */
interface TransformsFrame {
  transform_matrix: Matrix;
  w?: number;
  h?: number;
  fl_x?: number;
  fl_y?: number;
  cx?: number;
  cy?: number;
}

export interface Transforms extends Omit<TransformsFrame, "transform_matrix"> {
  frames: TransformsFrame[];
}

/** Converts a pose between OpenCV's and OpenGL's (three.js, nerfstudio) camera axes; its own inverse. */
export function flipAxes(pose: Matrix): Matrix {
  const rows = pose.slice(0, 3).map((row) => [row[0], -row[1], -row[2], row[3]]);
  return [...rows, [0, 0, 0, 1]];
}

/** Reads the photos' cameras of `GET /v1/scenes/{id}/cameras`. */
export function photosOf(file: Transforms): Photo[] {
  return file.frames.map((frame) => {
    const width = frame.w ?? file.w ?? 1;
    const height = frame.h ?? file.h ?? 1;
    const fx = frame.fl_x ?? file.fl_x ?? height;
    const fy = frame.fl_y ?? file.fl_y ?? fx;
    const cx = frame.cx ?? file.cx ?? width / 2;
    const cy = frame.cy ?? file.cy ?? height / 2;
    const lens: Lens = { fov: 2 * Math.atan(height / 2 / fy), shift: [cx / width - 0.5, cy / height - 0.5] };
    const K = [
      [fx, 0, cx],
      [0, fy, cy],
      [0, 0, 1],
    ];
    return { c2w: flipAxes(frame.transform_matrix), lens, width, height, K };
  });
}

/** A photo's camera for frames of another aspect, zoomed so that they show nothing beside the photo. */
export function within(photo: Photo, aspect: number): Camera {
  const across = photo.width / 2 / photo.K[0][0];
  const fov = 2 * Math.atan(Math.min(Math.tan(photo.lens.fov / 2), across / aspect));
  return { c2w: photo.c2w, lens: { ...photo.lens, fov } };
}

/** The intrinsics of a lens for frames of a size, with square pixels. */
export function intrinsics(lens: Lens, width: number, height: number): Matrix {
  const focal = height / 2 / Math.tan(lens.fov / 2);
  return [
    [focal, 0, (0.5 + lens.shift[0]) * width],
    [0, focal, (0.5 + lens.shift[1]) * height],
    [0, 0, 1],
  ];
}

export const centre = (pose: Matrix): Vec3 => [pose[0][3], pose[1][3], pose[2][3]];
const column = (pose: Matrix, i: number): Vec3 => normalized([pose[0][i], pose[1][i], pose[2][i]]);
export const forward = (pose: Matrix): Vec3 => column(pose, 2);
export const right = (pose: Matrix): Vec3 => column(pose, 0);
export const down = (pose: Matrix): Vec3 => column(pose, 1);

export const add = (a: Vec3, b: Vec3, scale = 1): Vec3 => [a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2]];
export const dot = (a: Vec3, b: Vec3): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const cross = (a: Vec3, b: Vec3): Vec3 => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
export const norm = (a: Vec3): number => Math.hypot(a[0], a[1], a[2]);
export const distance = (a: Vec3, b: Vec3): number => norm(add(a, b, -1));

export function normalized(a: Vec3): Vec3 {
  const length = norm(a) || 1;
  return [a[0] / length, a[1] / length, a[2] / length];
}

export function mean(points: Vec3[]): Vec3 {
  const sum = points.reduce<Vec3>((total, point) => add(total, point), [0, 0, 0]);
  return [sum[0] / points.length, sum[1] / points.length, sum[2] / points.length];
}

/** What the photos look at. */
export interface Focus {
  point: Vec3;
  /** Distance from the middle of the photos, world units. */
  distance: number;
  up: Vec3;
}

const LEAST_CONVERGENCE = Math.sin((3 * Math.PI) / 180) ** 2;

/** Where the scene is, by the server's own rule: where the optical axes meet, else five gaps between cameras ahead. */
export function focusOf(photos: Camera[]): Focus {
  const centres = photos.map((photo) => centre(photo.c2w));
  const axes = photos.map((photo) => forward(photo.c2w));
  const up = normalized(mean(photos.map((photo) => down(photo.c2w).map((v) => -v) as Vec3)));
  const middle = mean(centres);
  const point = nearestToAxes(centres, axes);
  if (point && centres.every((c, i) => dot(add(point, c, -1), axes[i]) > 0)) {
    return { point, distance: median(centres.map((c) => distance(point, c))), up };
  }
  let baseline = 0;
  for (const a of centres) for (const b of centres) baseline = Math.max(baseline, distance(a, b));
  const ahead = baseline > 0 ? baseline * Math.max(5 / (photos.length - 1), 1) : 10;
  return { point: add(middle, normalized(mean(axes)), ahead), distance: ahead, up };
}

/** The point with the least squared distance to all axes; null if they are nearly parallel. */
function nearestToAxes(centres: Vec3[], axes: Vec3[]): Vec3 | null {
  if (axes.length < 2) return null;
  const A = [
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
  ];
  const b: Vec3 = [0, 0, 0];
  axes.forEach((d, view) => {
    for (let i = 0; i < 3; i++)
      for (let j = 0; j < 3; j++) {
        const p = (i === j ? 1 : 0) - d[i] * d[j];
        A[i][j] += p / axes.length;
        b[i] += (p * centres[view][j]) / axes.length;
      }
  });
  const [c0, c1, c2] = [0, 1, 2].map((j) => [A[0][j], A[1][j], A[2][j]] as Vec3);
  const determinant = dot(c0, cross(c1, c2));
  // Least eigenvalue of a symmetric matrix with trace 2 whose other two are at most 1: at least the determinant.
  if (smallestEigenvalue(A, determinant) < LEAST_CONVERGENCE) return null;
  return [dot(b, cross(c1, c2)) / determinant, dot(c0, cross(b, c2)) / determinant, dot(c0, cross(c1, b)) / determinant];
}

/** Least eigenvalue of a symmetric 3x3 matrix, in closed form. */
function smallestEigenvalue(A: Matrix, determinant: number): number {
  const q = (A[0][0] + A[1][1] + A[2][2]) / 3;
  const off = A[0][1] ** 2 + A[0][2] ** 2 + A[1][2] ** 2;
  const p = Math.sqrt(((A[0][0] - q) ** 2 + (A[1][1] - q) ** 2 + (A[2][2] - q) ** 2 + 2 * off) / 6);
  if (p < 1e-12) return q;
  const minors =
    A[0][0] * A[1][1] - A[0][1] ** 2 + (A[0][0] * A[2][2] - A[0][2] ** 2) + (A[1][1] * A[2][2] - A[1][2] ** 2);
  const r = (determinant - q * minors + 2 * q ** 3) / (2 * p ** 3);
  return q + 2 * p * Math.cos(Math.acos(Math.min(1, Math.max(-1, r))) / 3 + (2 * Math.PI) / 3);
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}

/** A camera at `eye` that looks at `point`. */
export function lookAt(eye: Vec3, point: Vec3, up: Vec3): Matrix {
  const z = normalized(add(point, eye, -1));
  const x = normalized(cross(z, up));
  const y = cross(z, x);
  return [0, 1, 2].map((i) => [x[i], y[i], z[i], eye[i]]).concat([[0, 0, 0, 1]]);
}

/** Frames of about this aspect whose short side is at least the given one; sides are multiples. */
export function sizeFor(aspect: number, short: number, multiple: number): { width: number; height: number } {
  const round = (side: number): number => Math.max(multiple, Math.round(side / multiple) * multiple);
  return aspect >= 1
    ? { width: round(short * aspect), height: round(short) }
    : { width: round(short), height: round(short / aspect) };
}
