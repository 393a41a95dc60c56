"""Figures of an ablation show the numbers of its study."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prosl_lightning.evaluation.ablation import Study, StudyArm, ablations, paired
from prosl_lightning.evaluation.ablation_table import signed
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
    assert len(figure.axes) == 4
    for axes in figure.axes[:2]:
        (container,) = axes.containers
        line, _, (bars,) = container.lines
        assert line.get_xydata().tolist() == [[5, 83], [15, 85]]
        ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
        assert ends[1] == pytest.approx([85 - 2**0.5, 85 + 2**0.5])
        band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert (band.y0, band.y1) == pytest.approx((81 - 2**0.5, 81 + 2**0.5))
        assert axes.get_ylabel() == "top-1 accuracy of ProSL (%)"
    for axes in figure.axes[2:]:
        assert axes.get_xlabel() == ablations()[name].axis
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "15"]
    assert _texts_lie_apart(figure)
    assert len(study_figure(_study(name, arms[1:])).axes) == 2  # no base method, no differences to it


def test_below_the_accuracies_stand_the_differences_paired_by_seed():
    arms = [_arm("base", 70.0, 80.0, 90.0), _arm("a", 70.5, 80.5, 90.5, at=5), _arm("prosl", 71.0, 82.0, 93.0, at=15)]
    figure = study_figure(_study("clusters", arms))
    lower = figure.axes[2]
    assert lower.get_ylabel() == "difference to base (points)"
    equal, two = lower.containers
    assert (equal.lines[0].get_xydata().tolist(), equal.has_yerr) == ([[5, 0.5]], False)
    assert two.lines[0].get_xydata().tolist() == [[15, 2]]
    # 10 points of deviation over seeds above, an interval of 2.5 points here
    expected = paired(arms[2], arms[0], "1-NN")
    assert two.lines[2][0].get_segments()[0][:, 1].tolist() == pytest.approx([expected.low, expected.high])
    assert "paired by seed" in figure._supxlabel.get_text()
    assert _texts_lie_apart(figure)


def test_a_wide_row_does_not_squeeze_the_others_and_keeps_its_numbers():
    base, wide = _arm("base", 80.0, 80.0, 80.0), _arm("wide", 50.0, 90.0, 71.0)
    arms = [base, _arm("one", 81.0, 81.5, 80.5), _arm("two", 80.0, 81.0, 81.5), _arm("prosl", 80.5, 82.0, 81.0), wide]
    wide.own_warm_up = True
    figure = study_figure(_study("modules", arms, ["1-NN"]))
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert high - low < 20
    for arm in arms[1:4]:
        found = paired(arm, base, "1-NN")
        assert low < found.low < found.high < high
    assert [text.get_text() for text in axes.texts] == [signed(paired(wide, base, "1-NN"))]
    assert [line.get_marker() for line in axes.lines if line.get_marker() in ("<", ">")] == ["<", ">"]
    assert axes.get_yticklabels()[-1].get_text() == "label of $ wide †"
    assert "† another option of the base method, so a warm-up of its own" in figure._supxlabel.get_text().replace(
        "\n", " "
    )
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


def test_rows_without_an_interval_do_not_cut_off_those_with_one():
    arms = [_arm("base", 80.0, 82.0, 84.0), _arm("prosl", 80.0, 83.0, 87.0)]
    arms += [_arm(f"x{number}", 80.1) for number in range(6)]  # one seed
    (axes,) = study_figure(_study("readings", arms, ["1-NN"])).axes
    found = paired(arms[0], arms[1], "1-NN")
    assert axes.get_xlim()[0] < found.low < found.high < axes.get_xlim()[1]
    assert not axes.texts


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
