import { expect, test } from "vitest";
import { centre, flipAxes, forward, lookAt, type Camera, type Focus, type Vec3 } from "../src/cameras";
import { PathEditor } from "../src/path_editor";
import { cameraAt, cameraFile, duration, inOrder, nerfstudioPath, pathFrom, preset, PRESETS, sampled, times, type Path, type Preset } from "../src/paths";

const at = (eye: Vec3, fov = 0.8): Camera => ({ c2w: lookAt(eye, [0, 0, 4], [0, -1, 0]), lens: { fov, shift: [0, 0] } });
const path = (isLoop = false, smoothness = 1): Path => ({
  keyframes: [
    { ...at([0, 0, 0]), seconds: 1 },
    { ...at([1, 0, 0]), seconds: 3 },
    { ...at([1, 1, 0], 0.4), seconds: 2 },
  ],
  isLoop,
  smoothness,
});
const close = (a: number[], b: number[], digits = 6): void => a.forEach((value, i) => expect(value).toBeCloseTo(b[i], digits));

test("a path passes each keyframe at its time, smooth or straight, open or closed", () => {
  for (const isLoop of [false, true])
    for (const smoothness of [0, 0.5, 1]) {
      const one = path(isLoop, smoothness);
      times(one).forEach((seconds, i) => {
        const camera = cameraAt(one, seconds);
        close(camera.c2w.flat(), one.keyframes[i].c2w.flat());
        expect(camera.lens.fov).toBeCloseTo(one.keyframes[i].lens.fov);
      });
    }
});

test("a loop lasts one segment longer and does not repeat its first camera", () => {
  expect(duration(path())).toBe(4);
  expect(duration(path(true))).toBe(6);
  const cameras = sampled(path(true), 6);
  close(centre(cameraAt(path(true), 6).c2w), centre(cameras[0].c2w));
  expect(Math.hypot(...centre(cameras[5].c2w).map((v, i) => v - centre(cameras[0].c2w)[i]))).toBeGreaterThan(0.01);
});

test("every camera between keyframes is a rotation", () => {
  for (const { c2w } of sampled(path(), 40)) {
    for (const [i, j] of [[0, 0], [1, 1], [2, 2], [0, 1], [1, 2]]) {
      const product = [0, 1, 2].reduce((sum, row) => sum + c2w[row][i] * c2w[row][j], 0);
      expect(product).toBeCloseTo(i === j ? 1 : 0, 6);
    }
  }
});

test("without smoothness a path is straight, with it there is no kink in speed", () => {
  close(centre(cameraAt(path(false, 0), 0.5).c2w), [0.5, 0, 0]);
  const step = (t: number): number[] => {
    const [a, b] = [centre(cameraAt(path(), t - 1e-4).c2w), centre(cameraAt(path(), t).c2w)];
    return b.map((value, i) => (value - a[i]) / 1e-4);
  };
  close(step(1), step(1 + 1e-4), 2);
});

test("every preset gives finite cameras of the wanted length", () => {
  const photos = [at([-0.1, 0, 0]), at([0.1, 0, 0])];
  const focus: Focus = { point: [0, 0, 4], distance: 4, up: [0, -1, 0] };
  for (const name of Object.keys(PRESETS) as Preset[]) {
    const one = preset(name, photos, focus, photos[0], 3);
    expect(duration(one)).toBeCloseTo(3);
    for (const { c2w, lens } of sampled(one, 24)) {
      expect([...c2w.flat(), lens.fov].every(Number.isFinite)).toBe(true);
      expect(forward(c2w)[2]).toBeGreaterThan(0.8);
    }
  }
  const zoom = sampled(preset("zoom", photos, focus, photos[0]), 9);
  const reach = ({ c2w, lens }: Camera): number => (4 - c2w[2][3]) * Math.tan(lens.fov / 2);
  expect(reach(zoom[8])).toBeCloseTo(reach(zoom[0]), 1);
});

test("what is exported is imported", () => {
  const one = path(true, 0.5);
  const back = pathFrom(JSON.stringify(nerfstudioPath(one, 300, 200, 10)));
  expect(back.isLoop).toBe(true);
  expect(back.smoothness).toBe(0.5);
  back.keyframes.forEach((key, i) => {
    close(key.c2w.flat(), one.keyframes[i].c2w.flat());
    expect(key.seconds).toBe(one.keyframes[i].seconds);
    expect(key.lens.fov).toBeCloseTo(one.keyframes[i].lens.fov);
  });
  const cameras = sampled(path(), 100);
  const ours = pathFrom(JSON.stringify(cameraFile(cameras, 300, 200)));
  expect(ours.keyframes.length).toBe(24);
  close(ours.keyframes[0].c2w.flat(), cameras[0].c2w.flat());
  close(ours.keyframes[23].c2w.flat(), cameras[99].c2w.flat());
});

test("nerfstudio's file has OpenGL matrices, degrees, and one camera for each frame", () => {
  const file = nerfstudioPath(path(), 300, 200, 10) as { camera_path: { camera_to_world: number[]; fov: number; aspect: number }[] };
  expect(file.camera_path.length).toBe(40);
  close(file.camera_path[0].camera_to_world, flipAxes(path().keyframes[0].c2w).flat());
  expect(file.camera_path[0].fov).toBeCloseTo((0.8 * 180) / Math.PI);
  expect(file.camera_path[0].aspect).toBe(1.5);
});

test("a file without cameras is refused in words", () => {
  expect(() => pathFrom("{")).toThrow("not JSON");
  expect(() => pathFrom('{"a": 1}')).toThrow("holds no cameras");
});

test("keyframes move between their neighbours, and undo brings the path back", () => {
  const editor = new PathEditor(() => {});
  editor.set(path(), true);
  expect(editor.canUndo).toBe(false);
  editor.move(1, 2, true);
  expect(times(editor.path)).toEqual([0, 2, 4]);
  editor.move(1, 9, true);
  expect(times(editor.path)[1]).toBeCloseTo(3.9);
  expect(times(editor.path)[2]).toBeCloseTo(4);
  editor.undo();
  editor.undo();
  expect(times(editor.path)).toEqual([0, 1, 4]);
  editor.select(0);
  editor.add(at([5, 0, 0]));
  expect(editor.path.keyframes.map((key) => key.c2w[0][3])).toEqual([0, 5, 1, 1]);
  editor.remove(1);
  editor.undo();
  editor.undo();
  expect(editor.path).toEqual(path());
  editor.setDuration(8);
  expect(times(editor.path)).toEqual([0, 2, 8]);
});

test("photos whose order turns back and forth are passed along a short tour", () => {
  const xs = [0, 3, 1, 4, 2];
  const photos = xs.map((x) => at([x, 0, 0]));
  expect(inOrder(photos).map(({ c2w }) => c2w[0][3])).toEqual([0, 1, 2, 3, 4]);
  const sorted = [0, 1, 2, 3].map((x) => at([x, 0, 0]));
  expect(inOrder(sorted)).toEqual(sorted);
});
