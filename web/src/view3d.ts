/** The scene in 3D: the photos with their frusta, the path, and the camera that flies. */

import {
  AmbientLight,
  BufferAttribute,
  BufferGeometry,
  Color,
  DoubleSide,
  GridHelper,
  Group,
  Line,
  LineBasicMaterial,
  LineSegments,
  Mesh,
  MeshBasicMaterial,
  PerspectiveCamera,
  Quaternion,
  Scene,
  SphereGeometry,
  SRGBColorSpace,
  Texture,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import {
  add,
  centre,
  cross,
  distance,
  dot,
  flipAxes,
  focusOf,
  forward,
  intrinsics,
  mean,
  median,
  normalized,
  right,
  type Camera,
  type Focus,
  type Lens,
  type Matrix,
  type Photo,
  type Vec3,
} from "./cameras";

export type ViewMode = "fly" | "overview";

export interface Gate {
  left: number;
  top: number;
  width: number;
  height: number;
}

const ACCENT = 0xf2b84b;

/** The largest rectangle of an aspect within a stage, with a margin. */
export function gateIn(width: number, height: number, aspect: number, margin: number): Gate {
  const w = Math.min(width - 2 * margin, (height - 2 * margin) * aspect);
  const h = w / aspect;
  return { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h };
}

/** Corners of an image at a depth in front of its camera, in the world: top left, top right, bottom right, bottom left. */
export function corners(c2w: Matrix, K: Matrix, width: number, height: number, depth: number): Vec3[] {
  return [
    [0, 0],
    [width, 0],
    [width, height],
    [0, height],
  ].map(([u, v]) => {
    const x = ((u - K[0][2]) / K[0][0]) * depth;
    const y = ((v - K[1][2]) / K[1][1]) * depth;
    return [0, 1, 2].map((i) => c2w[i][0] * x + c2w[i][1] * y + c2w[i][2] * depth + c2w[i][3]) as Vec3;
  });
}

export class View3D {
  readonly canvas: HTMLCanvasElement;
  focus: Focus = { point: [0, 0, 1], distance: 1, up: [0, -1, 0] };
  photos: Photo[] = [];
  #renderer: WebGLRenderer;
  #world = new Scene();
  #fly = new PerspectiveCamera();
  #over = new PerspectiveCamera(45, 1, 0.01, 100);
  #flyControls: OrbitControls;
  #overControls: OrbitControls;
  #lens: Lens = { fov: 0.8, shift: [0, 0] };
  #aspect = 1.5;
  #mode: ViewMode = "fly";
  #planes: Mesh<BufferGeometry, MeshBasicMaterial>[] = [];
  #frusta = new Group();
  #path = new Group();
  #eye = new Group();
  #grid = new Group();
  #isDirty = true;
  #keys = new Set<string>();
  #last = 0;
  #tween: { from: Camera; to: Camera; start: number } | null = null;

  constructor(
    private readonly host: HTMLElement,
    private readonly onMove: () => void,
  ) {
    this.#renderer = new WebGLRenderer({ antialias: true, alpha: true, powerPreference: "low-power" });
    this.#renderer.setClearAlpha(0);
    this.canvas = this.#renderer.domElement;
    this.canvas.setAttribute("aria-hidden", "true");
    host.prepend(this.canvas);
    this.#world.add(new AmbientLight(), this.#grid, this.#frusta, this.#path, this.#eye);
    // The principal point need not be the centre, and the picture is a part of the canvas.
    this.#fly.updateProjectionMatrix = () => this.#project();
    this.#flyControls = this.#controls(this.#fly);
    this.#overControls = this.#controls(this.#over);
    new ResizeObserver(() => this.resize()).observe(host);
    this.resize();
    this.#bindKeys();
    requestAnimationFrame((now) => this.#tick(now));
  }

  get mode(): ViewMode {
    return this.#mode;
  }

  set mode(mode: ViewMode) {
    this.#mode = mode;
    this.#flyControls.enabled = mode === "fly";
    this.#overControls.enabled = mode === "overview";
    this.#updateVisibility();
    this.draw();
  }

  set aspect(aspect: number) {
    this.#aspect = aspect;
    this.#project();
    this.draw();
  }

  get aspect(): number {
    return this.#aspect;
  }

  /** Shows a scene; textures follow. */
  setScene(photos: Photo[]): void {
    this.photos = photos;
    this.focus = focusOf(photos);
    this.#planes.forEach((plane) => {
      plane.material.map?.dispose();
      plane.material.dispose();
      plane.geometry.dispose();
      plane.removeFromParent();
    });
    this.#frusta.clear();
    const size = this.#frustumSize();
    this.#planes = photos.map((photo) => this.#plane(photo, this.focus.distance));
    this.#planes.forEach((plane) => this.#world.add(plane));
    for (const photo of photos) this.#frusta.add(frustum(photo, size, 0xaab2c0));
    for (const photo of photos) this.#frusta.add(this.#plane(photo, size));
    this.#layGrid();
    for (const controls of [this.#flyControls, this.#overControls]) this.#turnUp(controls);
    this.setPose(photos[Math.floor((photos.length - 1) / 2)]);
    this.#placeOverview();
  }

  setPhoto(index: number, image: ImageBitmap): void {
    const texture = new Texture(image);
    texture.colorSpace = SRGBColorSpace;
    texture.flipY = false;
    texture.needsUpdate = true;
    const small = this.#frusta.children[this.photos.length + index] as Mesh<BufferGeometry, MeshBasicMaterial>;
    for (const mesh of [this.#planes[index], small]) {
      if (!mesh) continue;
      mesh.material.map = texture;
      mesh.material.color.set(0xffffff);
      mesh.material.needsUpdate = true;
    }
    this.#updateVisibility();
    this.draw();
  }

  /** Draws a path through these cameras, with the keyframes on it. */
  setPath(cameras: Camera[], keyframes: Camera[], selected: number): void {
    this.#path.traverse((child) => child instanceof Line && child.geometry.dispose());
    this.#path.clear();
    if (cameras.length > 1) {
      const points = cameras.map((camera) => new Vector3(...centre(camera.c2w)));
      this.#path.add(new Line(new BufferGeometry().setFromPoints(points), new LineBasicMaterial({ color: ACCENT })));
    }
    const ball = new SphereGeometry(0.05 * this.#frustumSize(), 16, 12);
    keyframes.forEach((key, i) => {
      const dot_ = new Mesh(ball, new MeshBasicMaterial({ color: i === selected ? 0xffffff : ACCENT }));
      dot_.position.set(...centre(key.c2w));
      if (i === selected) dot_.scale.setScalar(1.6);
      this.#path.add(dot_);
    });
    this.#updateVisibility();
    this.draw();
  }

  get pose(): Camera {
    this.#fly.updateMatrixWorld();
    const e = this.#fly.matrixWorld.elements;
    const rows = [0, 1, 2].map((i) => [e[i], e[4 + i], e[8 + i], e[12 + i]]);
    return { c2w: flipAxes(rows), lens: this.#lens };
  }

  /** Puts the flying camera somewhere; it then turns around a point ahead of it. */
  setPose(camera: Camera): void {
    const pose = flipAxes(camera.c2w);
    this.#lens = camera.lens;
    this.#fly.position.set(pose[0][3], pose[1][3], pose[2][3]);
    const ahead = Math.max(dot(add(this.focus.point, centre(camera.c2w), -1), forward(camera.c2w)), 0.3 * this.focus.distance);
    const target = add(centre(camera.c2w), forward(camera.c2w), ahead);
    this.#flyControls.target.set(...target);
    // Straight from the matrix, which may be rolled; controls keep the horizon only once they are used.
    this.#fly.quaternion.setFromRotationMatrix(this.#fly.matrix.clone().set(
      pose[0][0], pose[0][1], pose[0][2], 0, pose[1][0], pose[1][1], pose[1][2], 0, pose[2][0], pose[2][1], pose[2][2], 0, 0, 0, 0, 1));
    this.#project();
    this.#moved();
  }

  /** Flies to a camera. */
  flyTo(camera: Camera): void {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return this.setPose(camera);
    this.#tween = { from: this.pose, to: camera, start: performance.now() };
  }

  set fov(fov: number) {
    this.#lens = { ...this.#lens, fov };
    this.#project();
    this.#moved();
  }

  get gate(): Gate {
    const margin = this.host.clientWidth < 600 ? 0 : 20;
    return gateIn(this.host.clientWidth, this.host.clientHeight, this.#aspect, margin);
  }

  /** Has the next animation frame drawn. */
  draw(): void {
    this.#isDirty = true;
  }

  resize(): void {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (!width || !height) return;
    this.#renderer.setPixelRatio(Math.min(2, devicePixelRatio));
    this.#renderer.setSize(width, height, false);
    this.#over.aspect = width / height;
    this.#over.updateProjectionMatrix();
    this.#project();
    this.draw();
    this.onMove();
  }

  #controls(camera: PerspectiveCamera): OrbitControls {
    const controls = new OrbitControls(camera, this.canvas);
    controls.enableDamping = false;
    controls.zoomSpeed = 0.6;
    controls.rotateSpeed = 0.5;
    controls.addEventListener("change", () => this.#moved());
    controls.addEventListener("start", () => (this.#tween = null));
    return controls;
  }

  /** Makes the scene's vertical the axis that controls turn around. */
  #turnUp(controls: OrbitControls): void {
    controls.object.up.set(...this.focus.up);
    // OrbitControls reads the axis only in its constructor.
    const own = controls as unknown as { _quat: Quaternion; _quatInverse: Quaternion };
    own._quat.setFromUnitVectors(controls.object.up, new Vector3(0, 1, 0));
    own._quatInverse.copy(own._quat).invert();
    controls.minDistance = 0.05 * this.focus.distance;
    controls.maxDistance = 8 * this.focus.distance;
  }

  #project(): void {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (!width || !height) return;
    const gate = this.gate;
    const K = intrinsics(this.#lens, gate.width, gate.height);
    const cx = gate.left + K[0][2];
    const cy = gate.top + K[1][2];
    const near = 0.01 * this.focus.distance;
    const scale = near / K[0][0];
    const [l, r, t, b] = [-cx * scale, (width - cx) * scale, cy * scale, -(height - cy) * scale];
    this.#fly.fov = (this.#lens.fov * 180) / Math.PI;
    this.#fly.projectionMatrix.makePerspective(l, r, t, b, near, 100 * this.focus.distance);
    this.#fly.projectionMatrixInverse.copy(this.#fly.projectionMatrix).invert();
  }

  #frustumSize(): number {
    const centres = this.photos.map((photo) => centre(photo.c2w));
    const gaps = centres.map((a, i) => Math.min(...centres.filter((_, j) => j !== i).map((b) => distance(a, b))));
    const gap = median(gaps.filter((each) => Number.isFinite(each) && each > 0)) || this.focus.distance;
    return Math.min(Math.max(0.8 * gap, 0.05 * this.focus.distance), 0.3 * this.focus.distance);
  }

  #plane(photo: Photo, depth: number): Mesh<BufferGeometry, MeshBasicMaterial> {
    const geometry = new BufferGeometry();
    const points = corners(photo.c2w, photo.K, photo.width, photo.height, depth).flat();
    geometry.setAttribute("position", new BufferAttribute(new Float32Array(points), 3));
    geometry.setAttribute("uv", new BufferAttribute(new Float32Array([0, 0, 1, 0, 1, 1, 0, 1]), 2));
    geometry.setIndex([0, 2, 1, 0, 3, 2]);
    const material = new MeshBasicMaterial({ color: 0x2a3040, side: DoubleSide, toneMapped: false });
    return new Mesh(geometry, material);
  }

  #layGrid(): void {
    this.#grid.clear();
    const grid = new GridHelper(6 * this.focus.distance, 24, new Color(0x59606e), new Color(0x59606e));
    grid.material.transparent = true;
    grid.material.opacity = 0.22;
    grid.material.depthWrite = false;
    const lens = this.photos[0].lens;
    const below = Math.tan(lens.fov / 2) * this.focus.distance;
    const floor = add(this.focus.point, this.focus.up, -below);
    grid.position.set(...floor);
    grid.quaternion.setFromUnitVectors(new Vector3(0, 1, 0), new Vector3(...this.focus.up));
    this.#grid.add(grid);
  }

  #placeOverview(): void {
    const middle = mean(this.photos.map((photo) => centre(photo.c2w)));
    const towards = normalized(add(this.focus.point, middle, -1));
    const side = normalized(cross(towards, this.focus.up));
    const d = this.focus.distance;
    const target = add(middle, towards, 0.5 * d);
    const all = [...this.photos.map((photo) => centre(photo.c2w)), add(middle, towards, d)];
    const radius = Math.max(...all.map((point) => distance(point, target))) + 0.6 * this.#frustumSize();
    const from = normalized(add(add(add([0, 0, 0], towards, -0.66), this.focus.up, 0.46), side, 0.6));
    const eye = add(target, from, (0.92 * radius) / Math.sin((this.#over.fov * Math.PI) / 360));
    this.#over.position.set(...eye);
    this.#over.near = 0.01 * d;
    this.#over.far = 100 * d;
    this.#over.updateProjectionMatrix();
    this.#overControls.target.set(...target);
    this.#overControls.update();
  }

  #moved(): void {
    this.#updateVisibility();
    this.draw();
    this.onMove();
  }

  /** Of the photos, the flying camera sees the nearest one, on a plane where the scene is. */
  #updateVisibility(): void {
    const isFly = this.#mode === "fly";
    this.#frusta.visible = this.#grid.visible = this.#path.visible = this.#eye.visible = !isFly;
    const pose = this.pose;
    const nearest = this.nearest(pose);
    this.#planes.forEach((plane, i) => {
      plane.visible = i === nearest && plane.material.map !== null;
      plane.material.transparent = !isFly;
      plane.material.opacity = isFly ? 1 : 0.6;
      plane.material.depthWrite = isFly;
    });
    this.#eye.traverse((child) => child instanceof LineSegments && child.geometry.dispose());
    this.#eye.clear();
    if (!isFly) {
      const K = intrinsics(pose.lens, this.#aspect, 1);
      this.#eye.add(frustum({ ...pose, K, width: this.#aspect, height: 1 }, 0.7 * this.#frustumSize(), ACCENT));
    }
  }

  /** The photo that was taken nearest to a pose. */
  nearest(pose: Camera): number {
    const cost = (photo: Photo): number =>
      distance(centre(photo.c2w), centre(pose.c2w)) / this.focus.distance + 1 - dot(forward(photo.c2w), forward(pose.c2w));
    let best = 0;
    this.photos.forEach((photo, i) => {
      if (cost(photo) < cost(this.photos[best])) best = i;
    });
    return best;
  }

  #bindKeys(): void {
    const known = ["w", "a", "s", "d", "q", "e", "arrowup", "arrowdown", "arrowleft", "arrowright"];
    this.host.addEventListener("keydown", (event) => {
      const key = event.key.toLowerCase();
      if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.host || !known.includes(key)) return;
      event.preventDefault();
      this.#tween = null;
      this.#keys.add(key);
    });
    this.host.addEventListener("keyup", (event) => this.#keys.delete(event.key.toLowerCase()));
    this.host.addEventListener("blur", () => this.#keys.clear());
  }

  #step(seconds: number): void {
    const has = (...names: string[]): number => (names.some((name) => this.#keys.has(name)) ? 1 : 0);
    const pose = this.pose.c2w;
    const speed = 0.4 * this.focus.distance * seconds;
    let step: Vec3 = [0, 0, 0];
    step = add(step, forward(pose), has("w", "arrowup") - has("s", "arrowdown"));
    step = add(step, right(pose), has("d", "arrowright") - has("a", "arrowleft"));
    step = add(step, this.focus.up, has("e") - has("q"));
    const controls = this.#mode === "fly" ? this.#flyControls : this.#overControls;
    const move = new Vector3(...step).multiplyScalar(speed);
    controls.object.position.add(move);
    controls.target.add(move);
    this.#moved();
  }

  #tick(now: number): void {
    requestAnimationFrame((later) => this.#tick(later));
    const seconds = Math.min(0.1, (now - this.#last) / 1000);
    this.#last = now;
    if (this.#keys.size) this.#step(seconds);
    if (this.#tween) this.#fly_(now);
    if (!this.#isDirty || document.hidden || !this.host.clientWidth) return;
    this.#isDirty = false;
    this.#renderer.render(this.#world, this.#mode === "fly" ? this.#fly : this.#over);
  }

  #fly_(now: number): void {
    const { from, to, start } = this.#tween as { from: Camera; to: Camera; start: number };
    const t = Math.min(1, (now - start) / 500);
    const u = t * t * (3 - 2 * t);
    this.setPose(mixed(from, to, u));
    if (t === 1) this.#tween = null;
  }
}

function mixed(from: Camera, to: Camera, u: number): Camera {
  const c2w = from.c2w.map((row, i) => row.map((value, j) => value + u * (to.c2w[i][j] - value)));
  const z = normalized([c2w[0][2], c2w[1][2], c2w[2][2]]);
  const y0: Vec3 = [c2w[0][1], c2w[1][1], c2w[2][1]];
  const x = normalized(cross(y0, z));
  const y = cross(z, x);
  const mix = (a: number, b: number): number => a + u * (b - a);
  return {
    c2w: [0, 1, 2].map((i) => [x[i], y[i], z[i], c2w[i][3]]).concat([[0, 0, 0, 1]]),
    lens: {
      fov: mix(from.lens.fov, to.lens.fov),
      shift: [mix(from.lens.shift[0], to.lens.shift[0]), mix(from.lens.shift[1], to.lens.shift[1])],
    },
  };
}

function frustum(photo: Photo, depth: number, color: number): LineSegments {
  const eye = centre(photo.c2w);
  const far = corners(photo.c2w, photo.K, photo.width, photo.height, depth);
  const lines = far.flatMap((corner, i) => [eye, corner, corner, far[(i + 1) % 4]]).flat();
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(lines), 3));
  return new LineSegments(geometry, new LineBasicMaterial({ color }));
}
