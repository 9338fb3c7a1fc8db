"""The tests' type checker refuses what beartype refuses, and checks a call again only where something differs."""

from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
import shape_checks
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.se3 import skew

checked = shape_checks.jaxtyped()
Rows = Float[Tensor, "N C"]


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


def test_sizes_have_one_meaning_in_what_goes_in_and_comes_out_of_a_known_call():
    outputs = iter([torch.ones(3), torch.ones(3, dtype=torch.float64), torch.ones(3, 1)])

    @checked
    def same(x: Float[Tensor, "C"]) -> Float[Tensor, "C"]:
        return next(outputs)

    assert same(torch.zeros(3)).dtype is torch.float32
    assert same(torch.zeros(3)).dtype is torch.float64, "what comes out is of another kind, and passes"
    refused(same, torch.zeros(3))


def test_methods_and_dataclasses_are_checked():
    @checked
    @dataclass(frozen=True)
    class Row:
        values: Float[Tensor, "C"]

        @property
        @checked
        def column(self) -> Float[Tensor, "C 1"]:
            return self.values

        @classmethod
        @checked
        def of(cls, values: "Float[Tensor, 'C']") -> "Row":
            return cls(values)

    refused(Row, torch.ones(2, 2))
    refused(Row.of, 2.0)
    refused(lambda: Row.of(torch.ones(2)).column)


def test_functions_without_shapes_stay_as_they_are():
    def plain(count: int, rows: list[str]) -> bool:
        return count == len(rows)

    def named(rows: Rows) -> int:
        return len(rows)

    assert checked(plain) is plain
    assert checked(named) is not named
    refused(checked(named), torch.ones(2))


def test_the_package_is_checked_by_it(request):
    """The option that `scripts/test` gives puts this checker, not jaxtyping's own, around the package's functions."""
    if not request.config.getoption("--jaxtyping-packages"):
        pytest.skip("the package is not checked without --jaxtyping-packages")
    assert skew.__code__.co_filename == shape_checks.__file__
    refused(skew, torch.ones(2))


def test_what_a_list_holds_is_checked():
    counted([torch.ones(2)])
    counted([torch.ones(2), torch.ones(2)])
    refused(counted, [torch.ones(2, 1)])
    refused(counted, [torch.ones(2, 1), torch.ones(2, 1)])
    refused(counted, [torch.ones(2, 1)] * (shape_checks.MOST_ITEMS + 1))
    refused(counted, (torch.ones(2),))
    refused(counted, [1])


def test_an_item_that_beartype_may_not_have_seen_is_checked_again():
    # One item is checked, drawn by chance: of two that differ, the second call or one after it meets the other.
    rows = [torch.ones(2), torch.ones(2, 1)]
    refused(lambda: [counted(rows) for _ in range(200)])


def test_a_call_that_is_refused_is_refused_again():
    for _ in range(2):
        refused(scaled, torch.ones(3))


def test_calls_with_the_same_shapes_are_checked_once():
    checks = []

    def counting(function):
        def check(*args, **kwargs):
            checks.append((*args, *kwargs.values()))
            return kwargs.get("ret0")

        return check

    @shape_checks.jaxtyped(typechecker=counting)
    def first(x: Rows | Float[Tensor, "N"], n):
        return n

    for tensor, number in ((torch.ones(2), 1.0), (torch.zeros(2), 2.0), (torch.ones(3), 1.0), (torch.ones(2), 1)):
        first(tensor, number)
    assert [(len(x), n) for x, n in checks] == [(2, 1.0), (3, 1.0), (2, 1)]
