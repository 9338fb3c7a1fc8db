"""Parts that only seem to fit are told apart."""

from sphinx_nvs.posing.connection import LEAST_SHARED, largest_part


def test_parts_without_enough_common_points_are_apart():
    shared = {(1, 2): 90, (2, 3): 40, (3, 4): LEAST_SHARED - 1, (4, 5): 80}
    assert largest_part([1, 2, 3, 4, 5], shared) == {1, 2, 3}


def test_links_join_over_several_photos():
    shared = {(1, 2): LEAST_SHARED, (3, 4): 50, (2, 3): LEAST_SHARED}
    assert largest_part([1, 2, 3, 4], shared) == {1, 2, 3, 4}
