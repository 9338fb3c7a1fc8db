"""The plot of an evaluation: labels do not overlap where methods are close."""

from itertools import combinations

from sphinx_nvs.visualization.pareto_plot import pareto_figure


def _row(speedup, loss):
    return {
        "speedup": speedup,
        "speedup_interval": [0.98 * speedup, 1.02 * speedup],
        "loss": loss,
        "loss_interval": [loss - 0.001, loss + 0.001],
        "ideal_speedup": 9.0,
    }


def test_names_of_crowded_methods_do_not_cover_one_another():
    methods = {"full-50": _row(1.0, 0.0), "research": _row(1.5, 0.9)}
    methods |= {f"ours-0.{90 + i}": _row(5.0 + 0.03 * i, 0.001 * (i % 3)) for i in range(8)}
    figure = pareto_figure({"methods": methods, "front": ["ours-0.97"]})
    figure.draw_without_rendering()
    names = [text for text in figure.axes[0].texts if text.get_text().split(" ")[0] in methods]
    assert len(names) == len(methods)
    for a, b in combinations(names, 2):
        assert not a.get_window_extent().overlaps(b.get_window_extent()), (a.get_text(), b.get_text())
    # Every label stays near its point.
    assert max(abs(text.get_position()[1]) for text in names) < 110
