"""The tests' type checker refuses what beartype refuses, and checks a call again only where something differs."""

import jaxtyping
import numpy as np
import pytest
import shape_checks
import torch
from jaxtyping import Float, jaxtyped
from torch import Tensor

checked = jaxtyped(typechecker=shape_checks.once_for_each_shape)


@checked
def scaled(x: Float[Tensor, "N C"], factor: float = 1.0, *, width: int = 2) -> Float[Tensor, "N {width}"]:
    return factor * x[:, : int(width)]


@checked
def counted(rows: list[Float[Tensor, "C"]]) -> int:
    return len(rows)


@checked
def summed(values: Float[np.ndarray, "N"]) -> float:
    return values.sum()


def refused(function, *args, **kwargs):
    with pytest.raises(jaxtyping.TypeCheckError):
        function(*args, **kwargs)


def test_a_call_that_differs_in_anything_is_checked():
    scaled(torch.ones(3, 2))
    refused(scaled, torch.ones(3, 2, 1))
    refused(scaled, torch.ones(3, 2, dtype=torch.int64))
    refused(scaled, torch.ones(3, 2), "2")
    refused(scaled, torch.ones(3, 2), factor=None)
    scaled(torch.ones(3, 2), width=2)
    refused(scaled, torch.ones(3, 2), width=3)
    summed(np.ones(3))
    refused(summed, np.ones((3, 1)))
    refused(summed, np.ones(3, np.int64))


def test_what_comes_out_is_checked_too():
    outputs = iter([torch.ones(3), torch.ones(3), torch.ones(4)])

    @checked
    def same(x: Float[Tensor, "C"]) -> Float[Tensor, "C"]:
        return next(outputs)

    same(torch.zeros(3))
    same(torch.zeros(3))
    refused(same, torch.zeros(3))


def test_what_a_list_holds_is_checked_each_time():
    counted([torch.ones(2)])
    refused(counted, [torch.ones(2, 1)])


def test_a_call_that_is_refused_is_refused_again():
    for _ in range(2):
        refused(scaled, torch.ones(3))


def test_calls_with_the_same_shapes_are_checked_once(monkeypatch):
    checks = []

    def counting(function):
        return lambda *args: checks.append(args)

    monkeypatch.setattr(shape_checks, "beartype", counting)
    check = shape_checks.once_for_each_shape(lambda x, n: None)
    for tensor, number in ((torch.ones(2), 1.0), (torch.zeros(2), 2.0), (torch.ones(3), 1.0), (torch.ones(2), 1)):
        check(tensor, number)
    assert [(len(x), n) for x, n in checks] == [(2, 1.0), (3, 1.0), (2, 1)]
