"""Polished faces show what reflected rays hit."""

from dataclasses import replace

import pytest
import torch

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.procedural.ray_casting import ShapeKind
from sphinx_nvs.procedural.reflections import Face, polished, reflecting

SIZE = 48


def scene_with(kind_of_face, seeds):
    """A room without fog and a face of that kind of shape that its pictures see much of."""
    for seed in seeds:
        rgb, depth, cameras, world = procedural_views(seed, 3, SIZE, SIZE, "room", split="train")
        air = replace(world.stage.air, fog_density=torch.tensor(0.0))
        world = replace(world, stage=replace(world.stage, air=air))
        rgb, depth = world.render(cameras)
        faces = polish._flat_faces(world, cameras)
        of_kind = [face for face in faces if int(world.stage.primitives.kind[face.primitive]) == kind_of_face]
        if of_kind:
            return rgb, depth, cameras, world, max(of_kind, key=faces.__getitem__)
    raise AssertionError("no such face")


def normal_of(world, face):
    """Unit normal towards those who see the face."""
    shapes = world.stage.primitives
    inward = -1 if int(shapes.kind[face.primitive]) == ShapeKind.ROOM else 1
    return shapes.rotation[face.primitive, :, face.axis] * face.side * inward


@pytest.mark.parametrize("kind", [ShapeKind.ROOM, ShapeKind.BOX])
def test_a_mirror_shows_what_reflected_rays_hit(kind):
    rgb, depth, cameras, world, face = scene_with(kind, range(40))
    mirrored = reflecting(world, cameras, rgb, depth, face, 0.999)
    changed = (mirrored != rgb).any(1)
    view, row, column = changed.nonzero()[:: max(1, int(changed.sum()) // 60)].T
    pixel = torch.stack([column + 0.5, row + 0.5, torch.ones(len(view))], -1).double()
    ray = (cameras.c2w[view, :3, :3] @ torch.linalg.inv(cameras.K[view]) @ pixel[..., None])[..., 0]
    point = cameras.c2w[view, :3, 3] + ray * depth[view, row, column, None]
    normal = normal_of(world, face).double()
    assert (ray @ normal < 0).all()
    back = ray - 2 * (ray @ normal)[:, None] * normal
    # A camera on the mirror directed along each reflected ray, as wide as its pixel is where that ray ends.
    errors, noise = [], []
    for place, forward, v, r, c in zip(point, back, view, row, column, strict=True):
        forward = forward / forward.norm()
        right = torch.linalg.cross(forward, torch.tensor([0.3, 0.8, 0.5], dtype=torch.float64))
        right = right / right.norm()
        c2w = torch.eye(4, dtype=torch.float64)
        c2w[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], 1)
        c2w[:3, 3] = place + 1e-3 * normal
        K = torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]], dtype=torch.float64)
        _, onward = world.render(Cameras(c2w[None], K[None], 1, 1))
        way = (place - cameras.c2w[v, :3, 3]).norm()
        K[:2, :2] *= cameras.K[v, 0, 0] * onward[0, 0, 0] / (onward[0, 0, 0] + way)
        seen, _ = world.render(Cameras(c2w[None], K[None], 1, 1))
        errors.append(float((seen[0, :, 0, 0] - mirrored[v, :, r, c]).abs().mean()))
        noise.append(float((rgb[v, :, r, c] - mirrored[v, :, r, c]).abs().mean()))
    errors, noise = torch.tensor(errors), torch.tensor(noise)
    assert len(errors) >= 20
    assert float(errors.median()) < 0.01
    assert float(errors.median()) < 0.1 * float(noise.median())


def test_only_the_face_is_changed_and_more_at_grazing_angles():
    rgb, depth, cameras, world, face = scene_with(ShapeKind.ROOM, range(40))
    faint, clear = (reflecting(world, cameras, rgb, depth, face, straight) for straight in (0.03, 0.5))
    on_face = polish._where(world, cameras, depth, face)
    assert 0 < int(on_face.sum()) < on_face.numel()
    for changed in (faint, clear):
        assert torch.equal(changed.permute(0, 2, 3, 1)[~on_face], rgb.permute(0, 2, 3, 1)[~on_face])
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert float((clear - rgb).abs().mean()) > 3 * float((faint - rgb).abs().mean()) > 0


def test_polishing_is_seeded_and_skips_images_without_flat_faces():
    rgb, depth, cameras, world = procedural_views(7, 2, SIZE, SIZE, "room")
    first, again = (polished(world, cameras, rgb, depth, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, rgb)
    balls = world.stage.primitives
    balls = replace(balls, kind=torch.full_like(balls.kind, ShapeKind.SPHERE))
    bare = replace(world, stage=replace(world.stage, primitives=balls))
    assert torch.equal(polished(bare, cameras, rgb, depth, torch.Generator().manual_seed(3)), rgb)


def test_opposite_walls_share_no_pixel():
    _, depth, cameras, world, face = scene_with(ShapeKind.ROOM, range(40))
    other = Face(face.primitive, face.axis, -face.side)
    assert not (polish._where(world, cameras, depth, face) & polish._where(world, cameras, depth, other)).any()
