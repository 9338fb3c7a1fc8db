"""Solvers against Gaussian data, for which the probability-flow ODE has a closed form.

Data N(m, s^2): D(x; sigma) = (s^2 x + sigma^2 m) / (s^2 + sigma^2), and x - m follows sqrt(s^2 + sigma^2).
"""

import math

import pytest
import torch

from sphinx_nvs.diffusion.sigmas import karras_grid
from sphinx_nvs.diffusion.solvers import Euler, History, Multistep, churned, sample, trajectory

MEAN, SPREAD = 0.7, 0.5


def denoise(x, sigma):
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def exact(x, sigma, sigma_next):
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + sigma_next**2) / (SPREAD**2 + sigma**2))


def state():
    return 10 * torch.randn(2, 4, 3, 3, dtype=torch.float64)


def smooth_grid(num_steps):
    return torch.linspace(math.log(10.0), math.log(0.05), num_steps + 1, dtype=torch.float64).exp()


def slope(solver):
    """Order of convergence: how fast the error falls with the number of steps."""
    counts, x = [20, 40, 80, 160, 320], state()
    errors = [
        float((sample(denoise, x, smooth_grid(count), solver) - exact(x, 10.0, 0.05)).abs().max()) for count in counts
    ]
    logs = torch.tensor(counts).double().log(), torch.tensor(errors).log()
    centred = [part - part.mean() for part in logs]
    return -float((centred[0] * centred[1]).sum() / (centred[0] ** 2).sum())


def test_euler_is_first_order():
    assert slope(Euler()) == pytest.approx(1.0, abs=0.1)


def test_multistep_is_second_order():
    assert slope(Multistep()) == pytest.approx(2.0, abs=0.15)


def test_multistep_keeps_its_order_on_an_uneven_grid():
    x, errors = state(), []
    for count in (64, 128):
        ramp = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        sigmas = (math.log(10.0) - math.log(200.0) * (0.5 * ramp + 0.5 * ramp**2)).exp()
        errors.append(float((sample(denoise, x, sigmas, Multistep()) - exact(x, 10.0, 0.05)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("solver", [Euler(), Multistep()])
def test_a_step_to_zero_is_the_estimate_bit_for_bit(solver):
    x, denoised = torch.randn(2, 2, 4, 3, 3)
    history = History(torch.randn_like(x), 2.0)
    found, _ = solver.step(x, denoised, 1.0, 0.0, history)
    assert torch.equal(found, denoised)


@pytest.mark.parametrize("solver", [Euler(), Multistep()])
def test_a_fixed_estimate_is_solved_exactly(solver):
    x, target = state(), state()
    found = sample(lambda x, sigma: target, x, smooth_grid(3), solver)
    torch.testing.assert_close(found, target + 0.005 * (x - target))


def test_euler_is_the_textbook_step():
    x, denoised = state(), state()
    found, _ = Euler().step(x, denoised, 3.0, 2.0, None)
    torch.testing.assert_close(found, x + (2.0 - 3.0) * (x - denoised) / 3.0)


def test_without_history_both_solvers_agree():
    x, denoised = state(), state()
    assert torch.equal(Euler().step(x, denoised, 3.0, 2.0, None)[0], Multistep().step(x, denoised, 3.0, 2.0, None)[0])


def test_cells_without_history_take_a_first_order_step():
    x, denoised = state(), state()
    before = History(state(), 4.0)
    cells = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    cells[0, 0, 1, 2] = cells[1, 0, 0, 0] = True
    mixed, after = Multistep().step(x, denoised, 3.0, 2.0, before.within(cells))
    first, _ = Euler().step(x, denoised, 3.0, 2.0, None)
    second, _ = Multistep().step(x, denoised, 3.0, 2.0, before)
    assert torch.equal(mixed, torch.where(cells, second, first))
    assert not torch.equal(first, second)
    assert after.valid is None


def test_invalid_history_is_ignored():
    x, denoised = state(), state()
    cells = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    invalid = History(torch.full_like(x, float("nan")), 4.0).within(cells)
    found, _ = Multistep().step(x, denoised, 3.0, 2.0, invalid)
    assert torch.equal(found, Euler().step(x, denoised, 3.0, 2.0, None)[0])


def test_restricting_history_only_narrows_it():
    a, b = torch.tensor([[True, True], [False, False]]), torch.tensor([[True, False], [True, False]])
    history = History(torch.zeros(1, 4, 2, 2), 1.0).within(a[None, None]).within(b[None, None])
    assert torch.equal(history.valid[0, 0], a & b)


def test_a_late_cell_joins_at_first_order_and_stays_accurate():
    # Cells that start in mid-grid from the exact state: nothing but the one first-order step differs.
    sigmas, x = smooth_grid(40), state()
    late = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    late[:, :, 1] = True
    truth = [exact(x, 10.0, float(sigma)) for sigma in sigmas]
    current, history = x, None
    for step in range(40):
        if step == 15:
            current, history = torch.where(late, truth[15], current), history.within(~late)
        sigma, sigma_next = float(sigmas[step]), float(sigmas[step + 1])
        current, history = Multistep().step(current, denoise(current, sigma), sigma, sigma_next, history)
    assert float((current - truth[-1]).abs().max()) < 0.02


def test_churn_adds_the_missing_variance():
    x, noise = torch.zeros(2, 4, 3, 3, dtype=torch.float64), state()
    found, sigma = churned(x, 2.0, 0.5, noise)
    assert sigma == 2.5
    torch.testing.assert_close(found, 1.5 * noise)


def test_trajectory_reports_every_step():
    sigmas, x = karras_grid(11, sigma_min=0.05, sigma_max=10.0), state()
    steps = list(trajectory(denoise, x, sigmas, Euler()))
    assert len(steps) == len(sigmas) - 1
    torch.testing.assert_close(steps[0].denoised, denoise(x, 10.0))
    assert torch.equal(steps[-1].x, steps[-1].denoised)
    assert torch.equal(sample(denoise, x, sigmas, Euler()), steps[-1].x)


def test_offset_needs_noise():
    with pytest.raises(ValueError, match=r"noise must be given with offset, got offset=0\.1 and noise=None"):
        sample(denoise, state(), smooth_grid(3), Euler(), offset=0.1)
