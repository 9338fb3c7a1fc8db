"""Group axioms, exp/log, interpolation of rotations."""

import math

import torch
from geometry_strategies import twists
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.geometry import se3

IDENTITY = torch.eye(4, dtype=torch.float64)


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@given(twists(), twists(), twists())
def test_rigid_motions_are_a_group(a, b, c):
    A, B, C = se3.exp(a), se3.exp(b), se3.exp(c)
    close((A @ B) @ C, A @ (B @ C))
    close(A @ IDENTITY, A)
    close(se3.inverse(A) @ A, IDENTITY)
    close(se3.inverse(A @ B), se3.inverse(B) @ se3.inverse(A))


@given(twists())
def test_exp_gives_a_rotation_and_log_inverts_it(xi):
    T = se3.exp(xi)
    close(T[:3, :3] @ T[:3, :3].T, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(T[:3, :3])) > 0
    close(se3.log(T), xi, atol=1e-7)


@given(twists())
def test_exp_is_the_matrix_exponential(xi):
    generator = torch.zeros(4, 4, dtype=torch.float64)
    generator[:3, :3], generator[:3, 3] = se3.skew(xi[:3]), xi[3:]
    close(se3.exp(xi), torch.linalg.matrix_exp(generator))


def test_log_of_half_turns():
    for axis in torch.eye(3, dtype=torch.float64):
        R = se3.rotation_about(axis, torch.tensor(math.pi, dtype=torch.float64))
        omega = se3.so3_log(R)
        assert abs(float(omega.norm()) - math.pi) < 1e-9
        close(se3.so3_exp(omega), R)


@given(twists())
def test_quaternions_round_trip(xi):
    R = se3.so3_exp(xi[:3])
    q = se3.quaternion_from_rotation(R)
    assert float(q[0]) >= 0
    close(se3.rotation_from_quaternion(q), R)


@given(twists(), twists(), st.floats(0, 1))
def test_slerp_goes_through_its_ends_at_even_speed(a, b, s):
    A, B = se3.so3_exp(a[:3]), se3.so3_exp(b[:3])
    at = torch.tensor(s, dtype=torch.float64)
    close(se3.slerp(A, B, at * 0), A)
    close(se3.slerp(A, B, at * 0 + 1), B, atol=1e-7)
    total = se3.so3_log(A.T @ B).norm()
    close(se3.so3_log(A.T @ se3.slerp(A, B, at)).norm(), s * total, atol=1e-6)


@given(twists(), twists(), twists())
def test_rotation_angle_is_a_distance_that_ignores_the_world_frame(a, b, g):
    A, B, G = se3.exp(a), se3.exp(b), se3.exp(g)
    close(se3.rotation_angle(A, B), se3.rotation_angle(B, A), atol=1e-7)
    close(se3.rotation_angle(G @ A, G @ B), se3.rotation_angle(A, B), atol=1e-7)
    assert float(se3.rotation_angle(A, A)) < 1e-7


def test_rotation_about_is_right_handed():
    z = torch.tensor([0.0, 0, 2], dtype=torch.float64)
    R = se3.rotation_about(z, torch.tensor(math.pi / 2, dtype=torch.float64))
    close(R[:, 0], torch.tensor([0.0, 1, 0], dtype=torch.float64))


def test_look_at_points_the_optical_axis_at_the_target_and_the_top_up():
    position = torch.tensor([[1.0, 2, 3]], dtype=torch.float64)
    target, up = (
        torch.tensor([4.0, 2, -1], dtype=torch.float64),
        torch.tensor([0.0, 0, 1], dtype=torch.float64),
    )
    pose = se3.look_at(position, target, up)[0]
    close(pose[:3, 2], (target - position[0]) / 5)
    assert float(pose[:3, 1] @ up) < 0
    close(torch.linalg.det(pose[:3, :3]), torch.tensor(1.0, dtype=torch.float64))
