"""Colours of start steps."""

import matplotlib as mpl
import numpy as np

from sphinx_nvs.visualization.heatmap import start_colours


def test_colours_are_those_of_the_library():
    shares = np.linspace(0, 1, 101)
    wanted = mpl.colormaps["plasma"](0.95 - 0.9 * shares)[:, :3]
    np.testing.assert_allclose(start_colours(shares), wanted, atol=0.02)
