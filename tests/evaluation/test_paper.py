"""The paper's tables as data, and where our own results stand in them."""

from __future__ import annotations

import copy
import re

import pytest

from prosl_lightning.evaluation.naming import data_set, method_name
from prosl_lightning.evaluation.paper import compare, paper_tables

# Read from the paper by hand, apart from the data file: (table, method, column) -> percent, None for a dash.
VALUES = {
    (1, "LongT GAN", 0): 52.1, (1, "LongT GAN", 2): None, (1, "LongT GAN", 5): 26.5, (1, "MS²L", 1): None,
    (1, "MS²L", 4): 64.9, (1, "CrosSCLR", 1): 79.9, (1, "ISC", 3): 67.9, (1, "ISC", 4): 80.9, (1, "AimCLR", 2): 63.4,
    (1, "AimCLR", 4): 83.4, (1, "GL-Transformer", 3): 68.7, (1, "HiCLR", 0): 78.8, (1, "ActCLR", 1): 86.7,
    (1, "SkeAttnCLR", 3): 74.5, (1, "SkeAttnCLR", 5): 52.9, (1, "HiCo-LSTM*", 0): 81.6, (1, "HiCo-LSTM*", 3): 74.4,
    (1, "HiCo-LSTM-3s", 4): 89.3, (1, "HiCo-LSTM-3s", 5): None, (1, "ProSL", 0): 82.5, (1, "ProSL", 5): 54.4,
    (1, "ProSL-3s", 2): 77.1, (1, "ProSL-3s", 5): 59.0,
    (2, "LongT GAN", 1): 62.0, (2, "MS²L", 0): 33.1, (2, "ISC", 3): 72.5, (2, "CrosSCLR", 0): None,
    (2, "CrosSCLR", 3): 73.5, (2, "Hi-TRS", 1): 70.7, (2, "HaLP", 2): 48.7, (2, "HiCo-LSTM*", 2): 53.4,
    (2, "ProSL", 0): 55.1, (2, "ProSL", 3): 78.6,
    (3, "LongT GAN", 3): 35.5, (3, "ISC", 1): 82.6, (3, "AimCLR", 1): None, (3, "ActCLR", 1): 78.0,
    (3, "SkeAttnCLR", 0): 69.4, (3, "HiCLR", 1): 75.3, (3, "HiCo-LSTM*", 0): 67.1, (3, "ProSL", 0): 68.8,
    (3, "ProSL", 3): 59.5,
    (4, "LongT GAN", 0): 43.6, (4, "MS²L", 1): 45.8, (4, "ISC", 0): 45.1, (4, "HiCo-LSTM*", 1): 53.3,
    (4, "ProSL", 0): 56.3, (4, "ProSL", 1): 54.1,
}  # fmt: skip


def test_values_are_those_of_the_paper():
    found = {
        (number, line.method, column): value
        for number, table in paper_tables().items()
        for line in table.rows
        for column, value in enumerate(line.values)
    }
    assert {key: found[key] for key in VALUES} == VALUES


def test_sums_over_all_cells_are_those_of_the_paper():
    for number, rows, cells, total in ((1, 13, 61, 4450.5), (2, 8, 24, 1460.8), (3, 8, 24, 1471.0), (4, 5, 10, 488.7)):
        values = [value for line in paper_tables()[number].rows for value in line.values if value is not None]
        assert len(paper_tables()[number].rows) == rows
        assert len(values) == cells
        assert sum(values) == pytest.approx(total, abs=1e-6)
        assert {len(line.values) for line in paper_tables()[number].rows} == {len(paper_tables()[number].columns)}


def test_every_line_of_the_paper_is_there(shared_folder):
    tables: dict[int, list[list[str]]] = {}
    current: list[list[str]] = []
    for line in (shared_folder / "paper" / "prosl.txt").read_text(encoding="utf-8").splitlines():
        if title := re.match(r"Table (\d) ", line):
            current = tables.setdefault(int(title[1]), [])
        elif "\t" in line:
            current.append([cell.strip() for cell in line.split("\t")])
    for number, table in paper_tables().items():
        printed = [row for row in tables[number] if row[0] not in ("", "Method")]
        for row, ours in zip(printed, table.rows, strict=True):
            method = row[0].replace("MS ² L", "MS²L")
            assert method in (f"{ours.method} ({ours.cite})", f"{ours.method} (Ours)")
            values = [None if cell in ("-", "\N{EN DASH}") else float(cell) for cell in row[-len(ours.values) :]]
            assert values == list(ours.values), method
            assert row[1 : -len(ours.values)] == ([ours.encoder] if ours.encoder else [])


def _row(
    evaluation="knn", top1=70.0, importer="ntu60", split="x-sub", sizes=(40091, 16487), sha="a", **changes
) -> dict:
    source = changes.pop("source", "ntu60" if evaluation == "transfer" else importer)
    trained_on = {"name": "mine", "recipe": {"importer": source}, "protocol": changes.pop("source_split", split)}
    checkpoint = {
        "sha256": sha, "base": "hico-lstm", "semantic": "on", "stream": "joint", "epochs": 450, "seed": 0,
        "trained_on": trained_on,
    } | changes.pop("checkpoint", {})  # fmt: skip
    protocol = {"split": split, "rule": {}, "train": sizes[0], "test": sizes[1], "test_crop": 0.95, "stream": "joint"}
    protocol |= {"k": 1} if evaluation == "knn" else {}
    recipe = {"importer": importer} | changes.pop("recipe", {})
    data = {"name": "mine", "recipe": recipe, "frames_sha256": "f", "index_sha256": "i"}
    numbers = {"top-1": top1} | changes.pop("numbers", {})
    return {
        "evaluation": evaluation, "numbers": numbers, "protocol": protocol | changes, "data": data,
        "checkpoints": [checkpoint], "versions": {}, "seeds": [], "device": "cpu", "date": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def test_a_result_stands_in_its_column():
    found = compare(paper_tables()[3], [_row(importer="ntu120", split="x-set", sizes=(54468, 59477))])
    (line,) = found.ours
    assert line.method == "ours: ProSL (HiCo-LSTM), 450 epochs"
    assert line.cite == "this library, 1 run"
    assert line.values == (None, None, None, "70.0")
    assert (found.notes, found.others, found.unrelated) == ([], [], 0)


def test_seeds_share_a_line_and_a_repeated_evaluation_counts_once():
    rows = [_row(top1=60.0), _row(top1=70.0), _row(top1=74.0, sha="b"), _row(top1=72.0, sha="c")]
    (line,) = compare(paper_tables()[3], rows).ours
    assert line.values[0] == "72.0 ± 2.0"
    assert line.cite == "this library, 3 runs"


def test_an_evaluation_with_seeds_of_its_own_shows_their_deviation():
    row = _row("semi", fraction=0.01, numbers={"top-1 deviation": 0.5})
    assert compare(paper_tables()[2], [row]).ours[0].values == ("70.0 ± 0.5", None, None, None)
    row["protocol"]["fraction"] = 0.05
    assert compare(paper_tables()[2], [row]).others == [
        ["ntu60", "x-sub 5%", "ProSL (HiCo-LSTM), 450 epochs", "", "40091", "16487", "70.0 ± 0.5", "1"]
    ]


def test_part_of_a_data_set_and_other_settings_are_marked():
    row = _row("linear", sizes=(15, 8), epochs=1000, milestones=[50, 70], learning_rate=2.0)
    found = compare(paper_tables()[1], [row])
    assert found.ours[0].values[0] == "70.0†‡"
    assert found.notes == [
        "† NTU-60 x-sub: 15 / 8 sequences instead of 40091 / 16487: not the whole data set",
        "‡ NTU-60 x-sub: with epochs 1000",
    ]


def test_transfer_is_told_by_what_the_encoder_was_trained_on():
    rows = [
        _row("transfer", 54.0, "pku2", sizes=(5332, 1613), finetune=False, sha="a"),
        _row("transfer", 56.0, "pku2", sizes=(5332, 1613), finetune=False, sha="b", source="pku1"),
        _row("transfer", 66.0, "pku2", sizes=(5332, 1613), finetune=True, sha="b", source="pku1"),
    ]
    found = compare(paper_tables()[4], rows)
    assert found.ours[0].values == ("56.0", "54.0")
    assert [row[:4] for row in found.others] == [
        ["pku2 from pku1", "x-sub", "ProSL (HiCo-LSTM), 450 epochs", "finetune True"]
    ]


def test_other_data_stand_below_and_other_evaluations_are_counted():
    rows = [_row(importer="arrays", split="x-view", sizes=(1020, 464)), _row("linear"), _row(k=5)]
    found = compare(paper_tables()[3], rows)
    assert found.ours == []
    assert [row[0] for row in found.others] == ["mine", "ntu60"]
    assert found.others[1][3] == "k 5"
    assert found.unrelated == 1


def test_an_encoder_of_another_set_or_split_stands_below():
    rows = [
        _row("linear", 80.0, sha="a", source="ntu120"),
        _row("linear", 70.0, sha="b", source_split="x-view"),
        _row("linear", 60.0, sha="c", source_split="all"),
    ]
    found = compare(paper_tables()[1], rows)
    assert found.ours == []
    assert [(row[0], row[6]) for row in found.others] == [
        ("ntu60 from ntu120", "80.0"), ("ntu60 from ntu60 x-view", "70.0"), ("ntu60 from ntu60 all", "60.0"),
    ]  # fmt: skip
    row = _row("transfer", 54.0, "pku2", sizes=(5332, 1613), finetune=False, source_split="x-view")
    assert compare(paper_tables()[4], [row]).ours == []


def _lines(number: int, *rows: dict) -> list[tuple]:
    return [
        (line.method.removeprefix("ours: ProSL "), *line.values) for line in compare(paper_tables()[number], rows).ours
    ]


FUSED = {"fusion": "sum of cosines"}


@pytest.mark.parametrize(
    ("number", "one", "other", "difference"),
    [
        (1, {"epochs": 80}, {"epochs": 1000}, ", evaluated with epochs 1000"),
        (2, {"sampling": "random", "fraction": 0.01}, {"sampling": "stratified", "fraction": 0.01},
         ", evaluated with sampling stratified"),
        (3, FUSED | {"weights": [1.0, 1.0]}, FUSED | {"weights": [0.01, 1.0]}, ", evaluated with weights [0.01, 1.0]"),
        (3, {"recipe": {"normalize": "agcn"}}, {"recipe": {"normalize": "upright"}},
         ", evaluated with normalisation upright"),
    ],
)  # fmt: skip
def test_other_settings_are_another_line(number, one, other, difference):
    evaluation = {1: "linear", 2: "semi", 3: "knn"}[number]
    rows = [_row(evaluation, 90.0, **one, sha="a"), _row(evaluation, 60.0, **other, sha="b")]
    name = "(HiCo-LSTM), 450 epochs"
    found = _lines(number, *rows)
    assert [line[:2] for line in found] == [(name, "90.0"), (name + difference, "60.0‡")]


def test_another_model_is_another_line():
    wide, narrow, slow = (
        {"options": {"base_args": {"hidden_size": size}, "learning_rate": rate}}
        for size, rate in ((1024, 0.01), (128, 0.01), (128, 0.03))
    )
    rows = [_row(top1=top1, sha=str(top1), checkpoint=each) for top1, each in ((70.0, wide), (60.0, narrow))]
    assert [line[:2] for line in _lines(3, *rows)] == [
        ("(HiCo-LSTM, hidden_size 1024), 450 epochs", "70.0"), ("(HiCo-LSTM, hidden_size 128), 450 epochs", "60.0"),
    ]  # fmt: skip
    rows = [_row(top1=top1, sha=str(top1), checkpoint=each) for top1, each in ((60.0, narrow), (50.0, slow))]
    name = "(HiCo-LSTM, hidden_size 128), 450 epochs, learning_rate"
    assert [line[:2] for line in _lines(3, *rows)] == [(f"{name} 0.01", "60.0"), (f"{name} 0.03", "50.0")]


def test_clusters_and_ways_to_write_the_usual_settings_change_nothing():
    rows = [_row(), _row(clusters=60, clustering={"seed": 0}, metric="cosine", vote="v", ties="t", train_crop=0.95)]
    (line,) = compare(paper_tables()[3], rows).ours
    assert (line.cite, line.values[0]) == ("this library, 1 run", "70.0")
    row = _row("linear", precision="float32", train_crop=0.95, epochs=80, milestones=[50, 70])
    assert compare(paper_tables()[1], [row]).notes == []
    row = _row(
        "transfer", 54.0, "pku2", sizes=(5332, 1613), finetune=False, absent_joints=["neck"], unused_joints=[],
        renamed_joints={"spine": "torso"}, units={}, unlabelled=3,
    )  # fmt: skip
    found = compare(paper_tables()[4], [row])
    assert (found.ours[0].values, found.notes) == ((None, "54.0"), [])


def test_part_and_whole_of_a_data_set_are_not_averaged():
    rows = [_row(top1=90.0, sizes=(10, 5)), _row(top1=70.0), _row(top1=74.0, sha="b")]
    assert [line[1] for line in _lines(3, *rows)] == ["90.0†", "72.0 ± 2.8"]


def test_an_accuracy_of_zero_is_a_number():
    assert _lines(3, _row(top1=0.0))[0][1] == "0.0"
    assert _lines(3, _row(top1=None))[0][1] == "nan"


def test_streams_and_stages_are_named():
    row = _row()
    one = row["checkpoints"][0]
    row["checkpoints"] = [one | {"stream": stream} for stream in ("joint", "bone", "motion")]
    assert method_name(row) == "ProSL (HiCo-LSTM)-3s, 450 epochs"
    row["checkpoints"] = row["checkpoints"][:2]
    assert method_name(row) == "ProSL (HiCo-LSTM) joint+bone, 450 epochs"
    row["checkpoints"] = [copy.deepcopy(one) | {"stream": "bone", "semantic": "off", "base": "mine.Method"}]
    assert method_name(row) == "mine.Method bone, 450 epochs"


@pytest.mark.parametrize(
    ("described", "name"),
    [
        ({"recipe": {"importer": "pku2"}, "name": "x"}, "pku2"),
        ({"recipe": {"importer": "arrays"}, "name": "PKU-MMD-II"}, "pku2"),
        ({"recipe": {"importer": "ragged"}, "name": "x", "source": "ntu-120.npz"}, "ntu120"),
        ({"recipe": None, "name": None, "data": "nw-ucla.npz"}, "nw-ucla.npz"),
        ({"recipe": {"importer": "arrays"}, "name": "ntu60-half"}, "ntu60-half"),
    ],
)
def test_data_sets_are_known_by_importer_archive_or_file(described, name):
    assert data_set(described) == name
