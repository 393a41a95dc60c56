"""Figures of an ablation show the numbers of its study."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prosl_lightning.evaluation.ablation import Study, StudyArm, ablations, paired
from prosl_lightning.figures.ablation import study_figure


def _study(name: str, arms: list[StudyArm], measures=("1-NN", "linear, epochs 1000")) -> Study:
    return Study(ablations()[name], "nw-ucla x-view", "HiCo-LSTM, 300 epochs", list(measures), arms)


def _arm(name: str, *values: float, at: float | None = None) -> StudyArm:
    scores = {seed: value for seed, value in enumerate(values)}
    return StudyArm(name, f"label of $ {name}", 0, at, (), {"1-NN": scores, "linear, epochs 1000": dict(scores)})


def _texts_lie_apart(figure) -> bool:
    """Whether no two labels of the figure's axes overlap."""
    FigureCanvasAgg(figure).draw()
    boxes = [figure._suptitle.get_window_extent()]
    for axes in figure.axes:
        boxes += [axes.title.get_window_extent(), axes.xaxis.label.get_window_extent()]
        boxes += [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    return not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


@pytest.mark.parametrize("name", ["clusters", "start"])
def test_a_quantity_is_drawn_as_a_curve_over_the_band_of_the_base_method(name):
    arms = [_arm("base", 80.0, 82.0), _arm("a", 81.0, 85.0, at=5), _arm("prosl", 84.0, 86.0, at=15)]
    figure = study_figure(_study(name, arms))
    assert len(figure.axes) == 2
    for axes in figure.axes:
        (container,) = axes.containers
        line, _, (bars,) = container.lines
        assert line.get_xydata().tolist() == [[5, 83], [15, 85]]
        ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
        assert ends[1] == pytest.approx([85 - 2**0.5, 85 + 2**0.5])
        band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert (band.y0, band.y1) == pytest.approx((81 - 2**0.5, 81 + 2**0.5))
        assert axes.get_xlabel() == ablations()[name].axis
        assert axes.get_ylabel() == "top-1 accuracy of ProSL (%)"
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "15"]
    assert _texts_lie_apart(figure)


def test_differences_are_drawn_with_their_intervals():
    arms = [_arm("base", 80.0, 82.0, 84.0), _arm("one", 81.0, 84.0, 87.0), _arm("prosl", 79.0, 82.0, 84.0)]
    study = _study("modules", arms)
    figure = study_figure(study)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["label of $ one", "label of $ prosl"]
    means = [container.lines[0].get_xdata()[0] for container in axes.containers]
    assert means == pytest.approx([2, -1 / 3])
    segment = axes.containers[0].lines[2][0].get_segments()[0]
    expected = paired(arms[1], arms[0], "1-NN")
    assert segment[:, 0].tolist() == pytest.approx([expected.low, expected.high])
    for each in figure.axes:
        assert each.get_xlim()[0] < expected.low < expected.high < each.get_xlim()[1]
    assert axes.get_xlabel() == "difference to label of $ base (points)"
    assert _texts_lie_apart(figure)


def test_readings_are_drawn_against_what_is_configured():
    arms = [_arm("base", 80.0), _arm("prosl", 82.0), _arm("x", 82.1)]
    figure = study_figure(_study("readings", arms, ["1-NN"]))
    (axes,) = figure.axes
    assert [container.lines[0].get_xdata()[0] for container in axes.containers] == pytest.approx([-2, 0.1])
    assert all(not container.has_xerr for container in axes.containers)
    assert axes.get_xlabel() == "difference to ProSL as configured (points)"
    assert "one seed: no error bars" in figure._supxlabel.get_text()
    # a tenth of a point does not fill the axis
    only = study_figure(_study("backbone", [_arm("base", 80.0), _arm("prosl", 80.1)], ["1-NN"]))
    assert only.axes[0].get_xlim() == pytest.approx((-1.1, 1.1))
