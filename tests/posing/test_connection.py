"""Parts that only seem to fit are separated."""

from sphinx_nvs.posing.connection import largest_part


def test_strong_links_join_over_several_photos():
    assert largest_part([1, 2, 3, 4, 5], [(1, 2), (4, 5), (2, 3)], []) == {1, 2, 3}


def test_parts_need_several_weak_links():
    strong = [(1, 2), (2, 3), (4, 5)]
    assert largest_part([1, 2, 3, 4, 5], strong, [(1, 4), (3, 5)]) == {1, 2, 3}
    assert largest_part([1, 2, 3, 4, 5], strong, [(1, 4), (3, 5), (5, 2)]) == {1, 2, 3, 4, 5}


def test_a_part_that_grew_has_more_weak_links():
    weak = [(1, 3), (2, 3), (1, 4), (3, 4), (2, 4), (1, 3)]
    assert largest_part([1, 2, 3, 4], [(1, 2)], weak) == {1, 2, 3, 4}
