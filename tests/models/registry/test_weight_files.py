"""Networks filled tensor by tensor: no tensor is in memory twice, and files that do not fit are errors."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.registry.weight_files import (
    fill_from_file,
    fill_randomly,
    find_file,
    frozen,
    import_required,
    temporarily_on,
)


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(6, 5))


def filled(dtype: torch.dtype = torch.float32, seed: int = 3) -> nn.Module:
    module = network()
    fill_randomly(module, seed=seed, dtype=dtype, device="cpu")
    return frozen(module)


def saved(folder, **changes):
    """A file of a network's tensors; a change of None leaves one out."""
    tensors = {name: tensor.contiguous() for name, tensor in filled().state_dict().items()}
    tensors.update({name.replace("_", "."): tensor for name, tensor in changes.items()})
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / "a.safetensors")
    return folder / "a.safetensors"


def fill(path, dtype=torch.float32, **options):
    module = network()
    fill_from_file(module, path, dtype=dtype, device="cpu", wanted="the right file", **options)
    return frozen(module)


def test_random_numbers_depend_on_the_seed_and_have_a_sane_scale():
    one, same, other = filled(), filled(), filled(seed=4)
    for name, values in one.state_dict().items():
        assert torch.equal(values, same.state_dict()[name])
    assert not torch.equal(one[3].weight, other[3].weight)
    assert one[0].weight.abs().max() <= (4 * 9) ** -0.5
    assert one[0].weight.std() > 0.4 * (4 * 9) ** -0.5
    assert one[1].weight.eq(1).all()
    assert one[1].bias.eq(0).all()
    assert filled(torch.bfloat16)[3].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_file_is_read_as_it_is_or_converted(tmp_path, dtype):
    found, expected = fill(saved(tmp_path), dtype), filled().to(dtype)
    for name, values in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], values), name
    assert found[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_file_may_be_replaced_after_reading(tmp_path):
    path = saved(tmp_path)
    module = fill(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(module[3].weight, filled()[3].weight)


def test_conversion_renames_splits_and_drops(tmp_path):
    def convert(name, tensor):
        if name == "both":
            yield from zip(("3.weight", "3.bias"), (tensor[:, :-1], tensor[:, -1]), strict=True)
        elif name != "text":
            yield name, tensor

    both = torch.randn(5, 7)
    path = saved(tmp_path, **{"3_weight": None, "3_bias": None, "both": both, "text": torch.zeros(2)})
    module = fill(path, convert=convert)
    assert torch.equal(module[3].weight, both[:, :-1])
    assert torch.equal(module[3].bias, both[:, -1])


def test_tensors_that_do_not_fit_are_reported(tmp_path):
    path = saved(tmp_path, **{"0_bias": None, "3_bias": torch.zeros(4), "visual_proj": torch.zeros(1)})
    sentence = (
        f"{path}: it lacks 0.bias, has unknown visual.proj, has other shapes: 3.bias is 4 and not 5; "
        "this looks like an OpenCLIP model: give the right file"
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        fill(path)


def test_long_lists_are_cut_short(tmp_path):
    save_file({"b.0": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(
        InputError, match=re.escape("it lacks 0.bias, 0.weight, 1.bias and 3 more, has unknown b.0; give")
    ):
        fill(tmp_path / "a.safetensors")


def test_a_file_of_another_kind_is_reported(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x" * 100)
    with pytest.raises(InputError, match=r"a\.safetensors: it cannot be read as safetensors"):
        fill(path)


def test_paths_lead_to_files(tmp_path):
    path = saved(tmp_path)
    assert find_file(path, (), "it") == path
    assert find_file(tmp_path, ("b.safetensors", "a.safetensors"), "it") == path
    with pytest.raises(InputError, match=r"the folder holds none of b.safetensors; give it"):
        find_file(tmp_path, ("b.safetensors",), "it")
    with pytest.raises(InputError, match=r"nothing: there is no such file; give it"):
        find_file(tmp_path / "nothing", (), "it")
    (tmp_path / "a.ckpt").touch()
    with pytest.raises(InputError, match=r"its name ends in '.ckpt'; give it, in the safetensors format"):
        find_file(tmp_path / "a.ckpt", (), "it")


def test_a_missing_package_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=re.escape("need the package diffusers, which cannot be imported")) as caught:
        import_required("diffusers")
    assert caught.value.hint == "run: pip install 'sphinx-nvs[seva]'"


def test_tensors_left_on_meta_are_noticed():
    with pytest.raises(ValueError, match=r"0\.weight, 0\.bias, 1\.weight and 3 more"):
        frozen(network())


@pytest.mark.parametrize("inference", [False, True])
def test_a_temporary_device_copy_is_undone(inference):
    module = filled()
    module.register_buffer("where", torch.ones(2))
    home = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.inference_mode(inference), temporarily_on(module, "meta"):
        assert all(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    with pytest.raises(ZeroDivisionError), temporarily_on(module, "meta"):
        _ = 1 / 0
    assert all(tensor is home[name] for name, tensor in (*module.named_parameters(), *module.named_buffers()))


READING = """
import sys, torch
from pathlib import Path
from torch import nn
from sphinx_nvs.models.registry import weight_files

weight_files.MAPPED_BYTES = 2**26
with torch.device("meta"):
    module = nn.Sequential(*[nn.Linear(2048, 2048, bias=False) for _ in range(36)])


def status(name):
    return int(Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0])


before = status("VmRSS")
weight_files.fill_from_file(module, Path(sys.argv[1]), dtype=torch.bfloat16, device="cpu", wanted="it")
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_holds_a_network_once(tmp_path):
    """A file of 604 MB becomes 302 MB, beside 67 MB of the file that are mapped at a time."""
    weight = torch.zeros(2048, 2048)
    save_file({f"{i}.weight": weight + i for i in range(36)}, tmp_path / "a.safetensors")
    run = subprocess.run(
        [sys.executable, "-c", READING, str(tmp_path / "a.safetensors")], capture_output=True, text=True, check=True
    )
    # A second copy would make it 604 MB, the whole file 906 MB.
    assert 300e3 < int(run.stdout) * 1.024 < 480e3
