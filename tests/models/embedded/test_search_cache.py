"""The search cache of a request: one entry a view, known again only by its estimate."""

import pytest
import torch

from sphinx_nvs.models.embedded.decoder_inputs import Found
from sphinx_nvs.models.embedded.search_cache import SearchCache


def found(depth):
    return Found(inverse_depth=torch.full((1, 1, 2, 2), depth), sureness=torch.ones(1, 1, 2, 2))


def test_a_search_is_known_by_its_view_and_estimate():
    cache, estimate = SearchCache(), torch.rand(1, 4, 2, 2)
    first = found(0.5)
    assert cache.known(0, estimate) is None
    cache.keep(0, estimate, first)
    assert cache.known(0, estimate.clone()) is first
    assert cache.known(1, estimate) is None
    assert cache.known(0, estimate + 1) is None


def test_a_later_search_replaces_the_view_s_earlier_one():
    cache, estimate = SearchCache(), torch.rand(1, 4, 2, 2)
    cache.keep(0, estimate, found(0.5))
    cache.keep(1, estimate, found(0.25))
    cache.keep(0, estimate + 1, found(1.0))
    assert cache.known(0, estimate) is None
    assert cache.inverse_depths([1, 0])[:, 0, 0, 0].tolist() == [0.25, 1.0]


def test_depths_of_a_view_that_was_never_decoded_are_an_error():
    cache = SearchCache()
    cache.keep(0, torch.rand(1, 4, 2, 2), found(0.5))
    with pytest.raises(ValueError, match="view 3 was never decoded"):
        cache.inverse_depths([0, 3])
