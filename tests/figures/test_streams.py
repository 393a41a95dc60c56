"""The streams chart: which results share a bar, and where the paper's stand beside them."""

from __future__ import annotations

import statistics

import pytest
from matplotlib.container import ErrorbarContainer

from prosl_lightning.errors import DataError
from prosl_lightning.figures.streams import Bar, Panel, stream_panels, streams_figure

NTU60 = (40091, 16487)


def _row(stream, accuracy, seed=0, *, data="ntu60", split="x-sub", sizes=NTU60, semantic="on", deviation=None, **more):
    checkpoints = [
        {
            "sha256": f"{each}{seed}{semantic}{data}{more}", "epochs": 450, "base": "hico-lstm", "semantic": semantic,
            "stream": each, "seed": seed, "options": {"num_clusters": 65} | more,
            "trained_on": {"same_data": True, "protocol": split},
        }
        for each in stream.split("+")
    ]  # fmt: skip
    numbers = {"top-1": accuracy} | ({} if deviation is None else {"top-1 deviation": deviation})
    return {
        "evaluation": "linear", "numbers": numbers, "seeds": [0, 1, 2] if deviation else [0],
        "checkpoints": checkpoints,
        "protocol": {"split": split, "train": sizes[0], "test": sizes[1], "stream": stream},
        "data": {"name": data, "recipe": {"normalize": "agcn"}},
    }  # fmt: skip


def test_seeds_share_a_bar_and_the_papers_stand_beside():
    values = [81.0, 82.0, 84.5]
    rows = [_row("joint", value, seed) for seed, value in enumerate(values)]
    rows += [_row("bone", 79.0), _row("joint+bone+motion", 85.0), _row("joint", 80.0, semantic="off")]
    (panel,) = stream_panels(rows)
    assert panel.title == "NTU-60 x-sub"
    ours = "ProSL (HiCo-LSTM), 450 epochs"
    assert panel.bars == [
        Bar("joint", "HiCo-LSTM (paper)", 81.6),
        Bar("fused", "HiCo-LSTM (paper)", 83.8),
        Bar("joint", "ProSL (paper)", 82.5),
        Bar("fused", "ProSL (paper)", 85.3),
        Bar("joint", ours, statistics.fmean(values), statistics.stdev(values), 3),
        Bar("bone", ours, 79.0),
        Bar("fused", ours, 85.0),
        Bar("joint", "HiCo-LSTM, 450 epochs", 80.0),
    ]


def test_an_evaluation_that_was_repeated_counts_once_the_last_time():
    (panel,) = stream_panels([_row("joint", 50.0, data="mine"), _row("joint", 60.0, data="mine", deviation=0.5)])
    assert panel.bars == [Bar("joint", "ProSL (HiCo-LSTM), 450 epochs", 60.0, 0.5, 3)]


def test_what_differs_in_more_than_the_seed_has_bars_and_names_of_its_own():
    rows = [_row("joint", 50.0 + k, data="mine", num_clusters=k) for k in (30, 65)]
    elsewhere = _row("joint", 40.0, data="mine")
    elsewhere["checkpoints"][0]["trained_on"] = {"same_data": False, "protocol": "x-view", "name": "other"}
    (panel,) = stream_panels([*rows, elsewhere | {"checkpoints": elsewhere["checkpoints"]}])
    names = [bar.method for bar in panel.bars]
    assert names[:2] == [f"ProSL (HiCo-LSTM), 450 epochs, num_clusters {k}" for k in (30, 65)]
    assert any(name.endswith("trained on other, x-view") for name in names)


def test_part_of_a_set_is_not_set_beside_the_paper_and_odd_fusions_are_told():
    rows = [_row("joint", 50.0, sizes=(400, 160)), _row("joint+joint", 51.0, sizes=(400, 160))]
    (panel,) = stream_panels(rows)
    assert [bar.stream for bar in panel.bars] == ["joint"]
    assert panel.notes == [
        "NTU-60 x-sub: 400 / 160 sequences instead of 40,091 / 16,487, so the paper's figures are left out",
        "NTU-60 x-sub: left out: 1 fusion of a stream with itself",
    ]
    with pytest.raises(DataError, match="no result of `prosl knn` among 2 results"):
        stream_panels(rows, "knn")


def test_bars_stand_in_groups_with_whiskers(legible):
    rows = [_row(s, 80.0 + n + i, n) for n in range(3) for i, s in enumerate(("motion", "joint", "bone"))]
    rows += [_row("joint+bone+motion", 88.0), _row("joint", 70.0, data="nw-ucla", split="x-view", sizes=(9, 9))]
    rows += [
        _row("joint", 55.0, data="kinder-gator", semantic="off", deviation=12.0),
        _row("joint+bone", 60.0, data="sbu"),
    ]
    panels = stream_panels(rows)
    assert [panel.title for panel in panels] == ["kinder-gator, x-sub", "NTU-60 x-sub", "nw-ucla, x-view", "sbu, x-sub"]
    figure = streams_figure(panels)
    axes = figure.axes[1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["joint", "bone", "motion", "fused,\nall three"]
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([81.6, 82.5, 82, 83, 81, 83.8, 85.3, 88])
    whiskers = [each.lines[2][0].get_segments()[0] for each in axes.containers if isinstance(each, ErrorbarContainer)]
    assert [whisker[:, 1].tolist() for whisker in whiskers] == [pytest.approx([h - 1, h + 1]) for h in (82, 83, 81)]
    assert [whisker[0, 0] for whisker in whiskers] == pytest.approx([bar.get_x() + 0.43 for bar in axes.patches[2:5]])
    texts = legible(figure)
    assert texts.count("n=3") == 4
    assert {"81.6", "88.0", "ProSL (paper)", "HiCo-LSTM, 450 epochs"} < set(texts)


def test_a_long_list_of_methods_is_legible_and_no_two_look_alike(legible):
    methods = [
        f"ProSL (HiCo-LSTM, hidden_size 128), {n} epochs, num_clusters {n}, third_branch semantic, "
        f"confidence_threshold relative, evaluated with epochs 1000, milestones [625, 875]"
        for n in range(17)
    ]
    bars = [Bar(stream, method, 50 + n, 2.0, 5) for n, method in enumerate(methods) for stream in ("joint", "fused")]
    figure = streams_figure([Panel("a data set with a long name, x-view", bars)])
    texts = legible(figure)
    assert {f"ProSL (HiCo-LSTM), {n} epochs, num_clusters {n}" for n in range(17)} < set(texts)
    shared = "hidden_size 128, third_branch semantic, confidence_threshold relative, evaluated with epochs 1000"
    assert f"all: {shared}, milestones [625, 875]" in figure.get_supxlabel().replace("\n", " ")
    handles = figure.legends[0].get_patches()
    assert len({(patch.get_facecolor(), patch.get_hatch()) for patch in handles}) == 17
    drawn = {(patch.get_facecolor(), patch.get_hatch()) for patch in figure.axes[0].patches}
    assert drawn == {(patch.get_facecolor(), patch.get_hatch()) for patch in handles}


def test_names_that_share_little_are_wrapped(legible):
    options = [
        ", ".join(f"an_option_of_some_length_{letter} {letter}" for letter in word) for word in ("abcdef", "ghi")
    ]
    bars = [Bar("joint", f"ProSL (ISC), 1 epoch, {each}", 50.0) for each in options]
    texts = legible(streams_figure([Panel("mine, x-sub", bars)]))
    assert {" ".join(text.split()) for text in texts} >= {f"ProSL (ISC), {each}" for each in options}


def test_one_epoch_is_not_many():
    row = _row("joint", 50.0, data="mine")
    row["checkpoints"][0]["epochs"] = 1
    assert stream_panels([row])[0].bars[0].method == "ProSL (HiCo-LSTM), 1 epoch"
