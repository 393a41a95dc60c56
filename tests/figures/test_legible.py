"""The check that all figures go through finds what it looks for."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure


@pytest.mark.parametrize(
    ("places", "fault"),
    [
        ([(0.2, 0.5), (0.25, 0.52)], "'text 0' lies on 'text 1'"),
        ([(0.9, 0.5)], "'text 0' is cut off on the right"),
        ([(-0.1, 0.5)], "'text 0' is cut off on the left"),
        ([(0.5, 0.99)], "'text 0' is cut off above"),
        ([(0.5, -0.04)], "'text 0' is cut off below"),
    ],
)
def test_faults_are_found(legible, places, fault):
    figure = Figure(figsize=(4, 3))
    for number, place in enumerate(places):
        figure.text(*place, f"text {number}", fontsize=14)
    with pytest.raises(AssertionError, match=fault):
        legible(figure)


def test_texts_that_are_not_drawn_do_not_count(legible):
    figure = Figure(figsize=(4, 3))
    axes = figure.add_subplot()
    axes.set_xticks([0.5, 7.0], ["inside", "outside of the axes"])
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    figure.text(0.2, 0.5, "seen")
    figure.text(0.2, 0.5, "hidden").set_visible(False)
    assert legible(figure) == ["inside", "seen"]
