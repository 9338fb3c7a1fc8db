"""Networks learn in bfloat16 where the processor computes in it, and only there."""

import pytest
import torch

from sphinx_nvs.training.precision import in_bfloat16


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [("AVX512", torch.bfloat16), ("AMX", torch.bfloat16), ("AVX2", torch.float32), ("DEFAULT", torch.float32)],
)
def test_a_processor_that_would_only_act_as_if_learns_in_single_precision(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    with in_bfloat16(x.device):
        assert layer(x).dtype == dtype
    with in_bfloat16(x.device, enabled=False):
        assert layer(x).dtype == torch.float32
