import { expect, test } from "vitest";
import { Matrix4, PerspectiveCamera, Vector3 } from "three";
import { centre, dot, flipAxes, focusOf, forward, intrinsics, lookAt, photosOf, sizeFor, within, type Camera } from "../src/cameras";
import { corners, gateIn } from "../src/view3d";

const camera = (eye: [number, number, number], at: [number, number, number]): Camera => ({
  c2w: lookAt(eye, at, [0, -1, 0]),
  lens: { fov: 0.8, shift: [0, 0] },
});

test("a pose looks along +z with +y down", () => {
  const pose = lookAt([0, 0, -2], [0, 0, 0], [0, -1, 0]);
  expect(forward(pose)[2]).toBe(1);
  expect(pose[1][1]).toBe(1);
  expect(centre(pose)).toEqual([0, 0, -2]);
});

test("three.js projects a point where OpenCV's intrinsics do", () => {
  const { c2w, lens } = camera([0.3, -0.2, -2], [0.1, 0, 0.5]);
  const three = new PerspectiveCamera((lens.fov * 180) / Math.PI, 1.5, 0.1, 100);
  three.applyMatrix4(new Matrix4().fromArray(flipAxes(c2w).flat()).transpose());
  three.updateMatrixWorld();
  const point: [number, number, number] = [0.4, 0.3, 1.1];
  const ndc = new Vector3(...point).project(three);
  const K = intrinsics(lens, 300, 200);
  const relative = point.map((value, i) => value - c2w[i][3]);
  const [x, y, z] = [0, 1, 2].map((axis) => relative.reduce((sum, value, i) => sum + value * c2w[i][axis], 0));
  expect(((ndc.x + 1) / 2) * 300).toBeCloseTo((K[0][0] * x) / z + K[0][2], 3);
  expect(((1 - ndc.y) / 2) * 200).toBeCloseTo((K[1][1] * y) / z + K[1][2], 3);
});

test("axes are flipped back by flipping again", () => {
  const { c2w } = camera([1, 2, 3], [0, 0, 0]);
  expect(flipAxes(flipAxes(c2w))).toEqual(c2w);
});

test("a transforms.json becomes OpenCV cameras with their own intrinsics", () => {
  const [photo] = photosOf({
    frames: [
      { transform_matrix: [[1, 0, 0, 5], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]], w: 741, h: 500, fl_x: 995, fl_y: 995, cx: 311.3, cy: 255 },
    ],
  });
  expect(forward(photo.c2w)[2]).toBe(1);
  expect(photo.K).toEqual([[995, 0, 311.3], [0, 995, 255], [0, 0, 1]]);
  const K = intrinsics(photo.lens, 741, 500);
  expect(K[0][0]).toBeCloseTo(995);
  expect(K[0][2]).toBeCloseTo(311.3);
});

test("frames of another aspect stay within the photo", () => {
  const [photo] = photosOf({ w: 600, h: 400, fl_x: 500, frames: [{ transform_matrix: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]] }] });
  for (const aspect of [0.5, 1, 1.5, 2, 3]) {
    const K = intrinsics(within(photo, aspect).lens, 200 * aspect, 200);
    expect(200 / 2 / K[1][1]).toBeLessThanOrEqual(400 / 2 / 500 + 1e-9);
    expect((200 * aspect) / 2 / K[0][0]).toBeLessThanOrEqual(600 / 2 / 500 + 1e-9);
  }
});

test("cameras that look at a point have it as focus, parallel ones five gaps ahead", () => {
  const round = [camera([1, 0, -3], [0, 0, 0]), camera([-1, 0, -3], [0, 0, 0]), camera([0, 1, -3], [0, 0, 0])];
  const focus = focusOf(round);
  focus.point.forEach((value) => expect(value).toBeCloseTo(0, 6));
  expect(focus.distance).toBeCloseTo(Math.hypot(1, 3), 6);
  const parallel = focusOf([camera([0, 0, 0], [0, 0, 1]), camera([0.2, 0, 0], [0.2, 0, 1])]);
  expect(parallel.distance).toBeCloseTo(1);
  expect(parallel.point[2]).toBeCloseTo(1);
  expect(focusOf([camera([0, 0, 0], [0, 0, 1])]).distance).toBe(10);
  expect(dot(focus.up, [0, -1, 0])).toBeGreaterThan(0.9);
});

test("sizes are multiples of the model's and keep the aspect", () => {
  expect(sizeFor(741 / 500, 256, 32)).toEqual({ width: 384, height: 256 });
  expect(sizeFor(0.75, 192, 32)).toEqual({ width: 192, height: 256 });
});

test("corners of a photo lie at their depth, and the gate keeps its aspect", () => {
  const { c2w, lens } = camera([0, 0, 0], [0, 0, 1]);
  const found = corners(c2w, intrinsics(lens, 300, 200), 300, 200, 2);
  expect(found.map((corner) => corner[2])).toEqual([2, 2, 2, 2]);
  expect(found[0][0]).toBeLessThan(0);
  expect(found[0][1]).toBeLessThan(0);
  expect(gateIn(900, 500, 1.5, 20)).toEqual({ left: 105, top: 20, width: 690, height: 460 });
});
