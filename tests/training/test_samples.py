import torch

from sphinx_nvs.training.samples import Sample, choose_context, load_samples, make_sample, save_samples, stack_samples

FIELDS = ("rgb", "render", "signals", "c2w", "K", "depth_unit", "num_context")


def test_a_sample_is_the_same_every_time_and_survives_the_disk(tmp_path):
    first, again = (make_sample(5, num_views=4, size=32, real_share=0.0) for _ in range(2))
    save_samples([first], tmp_path / "s.safetensors")
    loaded = load_samples(tmp_path / "s.safetensors", Sample)[0]
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert torch.equal(getattr(first, name), getattr(loaded, name))
    context = int(first.num_context)
    assert torch.equal(first.render[:context], first.rgb[:context])
    assert not torch.equal(first.render[context:], first.rgb[context:])


def test_splits_share_no_scene():
    train, test = (make_sample(5, split, num_views=4, size=32, real_share=0.0) for split in ("train", "test"))
    assert not torch.equal(train.rgb, test.rgb)


def test_the_real_regressor_renders_when_asked():
    real, oracle = (make_sample(5, num_views=5, size=32, real_share=share) for share in (1.0, 0.0))
    assert torch.equal(real.rgb, oracle.rgb)
    context = int(real.num_context)
    assert not torch.equal(real.render[context:], oracle.render[context:])


def test_stacking_and_choosing_keep_what_was_stacked():
    made = [make_sample(seed, num_views=4, size=32, real_share=0.0) for seed in (5, 6)]
    stacked = stack_samples(made)
    assert stacked.key == (4, int(made[0].num_context), 32)
    second = stacked[torch.tensor([1])]
    assert torch.equal(second.rgb[0], made[1].rgb)
    assert torch.equal(second.depth_unit, made[1].depth_unit)


def test_every_view_is_context_or_target_once_and_targets_remain():
    generator = torch.Generator().manual_seed(0)
    counts = set()
    for _ in range(200):
        order, num_context = choose_context(8, generator)
        assert sorted(order) == list(range(8))
        assert order[num_context:] == sorted(order[num_context:])
        counts.add(num_context)
    assert counts == {2, 3, 4, 5, 6}
    for _ in range(50):
        order, num_context = choose_context(4, generator)
        assert num_context == 2
