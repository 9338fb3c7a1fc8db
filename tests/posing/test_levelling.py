"""Gravity, units and origin of a found scene."""

import numpy as np
import pycolmap
import pytest

from sphinx_nvs.posing.levelling import depths, level_rotation, levelled, median_depth


def test_up_becomes_z_and_forward_becomes_y():
    ups = np.array([[0.1, -1.0, 0.0], [-0.1, -1.0, 0.0]]) / np.sqrt(1.01)
    forwards = np.array([[0.0, 0.3, 1.0], [0.0, 0.3, 1.0]]) / np.sqrt(1.09)
    rotation = level_rotation(ups, forwards)
    np.testing.assert_allclose(rotation @ [0, -1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation @ [0, 0, 1], [0, 1, 0], atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_photos_straight_down_have_some_level_direction():
    down = np.array([[0.0, 1.0, 0.0]])
    rotation = level_rotation(-down, down)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation @ [0, -1, 0], [0, 0, 1], atol=1e-12)


def test_a_levelled_model_has_unit_depth_and_its_cameras_at_the_origin():
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(num_frames_per_rig=6, num_points3D=80)
    model = pycolmap.synthesize_dataset(options)
    before = depths(model)
    levelled(model)
    assert median_depth(model) == pytest.approx(1)
    np.testing.assert_allclose(depths(model), before / np.median(before), rtol=1e-9)
    poses = [image.cam_from_world().inverse().matrix() for image in model.images.values()]
    np.testing.assert_allclose(np.mean([pose[:, 3] for pose in poses], axis=0), 0, atol=1e-9)
    up = np.mean([-pose[:, 1] for pose in poses], axis=0)
    np.testing.assert_allclose(up / np.linalg.norm(up), [0, 0, 1], atol=1e-9)
