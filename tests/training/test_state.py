import pytest
import torch
from torch import nn

from sphinx_nvs.errors import InputError
from sphinx_nvs.training.state import Run, Schedule, load_shards, save_shards


def run_in(folder, width=8, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 1))
    return Run(
        model, model.parameters(), Schedule(**{"steps": 40, "warmup": 2, "learning_rate": 0.01} | options), folder
    )


def steps(run, count):
    for _ in range(count):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(run.step))
        run.update((run.model(x) - x.sum(1, keepdim=True)).square().mean())


def test_a_cut_run_goes_on_as_if_it_had_not_been_cut(tmp_path):
    straight, first = run_in(tmp_path / "a"), run_in(tmp_path / "b")
    steps(straight, 9)
    steps(first, 4)
    first.save()
    second = run_in(tmp_path / "b")
    assert second.step == 4
    steps(second, 5)
    for module in ("model", "averaged"):
        for a, b in zip(getattr(straight, module).parameters(), getattr(second, module).parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_portable_checkpoint_resumes_from_half_precision_and_warms_up_again(tmp_path):
    run = run_in(tmp_path / "a")
    steps(run, 10)
    run.notes["packets"] = 7
    run.save_portable(tmp_path / "home")
    names = {path.name for path in (tmp_path / "home").iterdir()}
    assert names == {"average-00.safetensors", "model-00.safetensors", "progress.json"}
    resumed = run_in(tmp_path / "c")
    resumed.load(tmp_path / "home")
    assert (resumed.step, resumed.notes) == (10, {"packets": 7})
    for a, b in zip(run.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    steps(resumed, 1)
    assert resumed.optimiser.param_groups[0]["lr"] == pytest.approx(0.01 / 2)


def test_the_average_lags_behind_the_model(tmp_path):
    run = run_in(tmp_path, ema=0.9)
    start = [p.clone() for p in run.averaged.parameters()]
    steps(run, 3)
    model = list(run.model.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(run.averaged.parameters(), start, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(run.averaged.parameters(), model, strict=True))


def test_shards_stay_small_and_give_back_every_tensor(tmp_path):
    tensors = {f"t{i}": torch.full((100,), float(i)) for i in range(7)}
    paths = save_shards(tensors, tmp_path, "part", most=900)
    assert len(paths) == 4
    loaded = load_shards(tmp_path, "part")
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
    assert load_shards(tmp_path, "other") == {}


def test_the_rate_rises_holds_and_ends_with_steps_or_time():
    schedule = Schedule(steps=100, seconds=50.0, warmup=10)
    assert schedule.rate(0) == pytest.approx(0.1)
    assert schedule.rate(50, 10.0) == 1
    assert schedule.rate(90, 10.0) == pytest.approx(0.5)
    assert schedule.rate(20, 45.0) == pytest.approx(0.5)
    assert schedule.rate(50, 10.0, since_start=4) == pytest.approx(0.5)
    assert not schedule.is_over(99, 49.0)
    assert schedule.is_over(100, 0.0)
    assert schedule.is_over(0, 50.0)


def test_a_lost_run_goes_back_to_its_weights_but_not_in_time(tmp_path):
    run = run_in(tmp_path)
    with pytest.raises(InputError, match=r"the loss is not finite; lower the learning rate and start again"):
        run.recover()
    steps(run, 2)
    run.save()
    kept = [p.clone() for p in run.model.parameters()]
    steps(run, 3)
    run.recover()
    assert run.step == 5
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), kept, strict=True))


def test_another_networks_checkpoint_is_refused(tmp_path):
    run = run_in(tmp_path)
    run.save()
    with pytest.raises(InputError, match=r"0\.weight does not fit; resume with the network it was made with"):
        run_in(tmp_path, width=4)
