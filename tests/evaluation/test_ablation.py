"""Studies from rows of results: which rows may be compared, arms, paired differences, and how they are shown."""

from __future__ import annotations

import csv
import io
import math
import re

import pytest

from prosl_lightning.evaluation.ablation import ablations, arm_name, estimate, paired, studies
from prosl_lightning.evaluation.ablation_table import CSV_HEADER, signed, study_csv, study_text
from prosl_lightning.evaluation.paper import ablation_tables

# Read from the paper's Tables 5 and 6 by hand.
PRINTED = {5: [(81.6, 67.1), (82.2, 68.0), (82.1, 68.1), (82.5, 68.8)], 6: [(68.3, 76.4), (73.1, 78.4)]}

OPTIONS = {
    "third_branch": "semantic", "num_clusters": 15, "semantic_start": 250, "semantic_temperature": 1.0,
    "filtered_terms": "all", "base_args": {"hidden_size": 128},
}  # fmt: skip


def row(evaluation="knn", top1=80.0, seed=0, semantic="on", data="nw-ucla", split="x-view", epochs=300, **changes):
    protocol = {"split": split, "train": 1020, "test": 464, **({"k": 1} if evaluation == "knn" else {"epochs": 80})}
    protocol |= changes.pop("protocol", {})
    trained_on = {"name": data, "recipe": {}, "protocol": split, "same_data": True}
    base = changes.pop("base", "hico-lstm")
    return {
        "evaluation": evaluation, "numbers": {"top-1": top1}, "protocol": protocol,
        "data": {"name": data, "recipe": {}, "frames_sha256": "f", "index_sha256": "i"},
        "checkpoints": [{
            "sha256": f"{seed}{semantic}{changes}", "base": base, "semantic": semantic, "stream": "joint",
            "epochs": epochs, "seed": seed, "options": OPTIONS | changes, "trained_on": trained_on,
        }],
        "versions": {}, "seeds": [], "device": "cpu", "date": "2026-01-01T00:00:00Z",
    }  # fmt: skip


MODULES = [
    *(row(top1=top1, seed=seed, semantic="off") for seed, top1 in enumerate((80.0, 82.0, 84.0))),
    *(row(top1=top1, seed=seed) for seed, top1 in enumerate((81.0, 84.0, 87.0))),
    *(row(top1=top1, seed=seed, third_branch="none") for seed, top1 in ((0, 80.5), (1, 82.5))),
    row("linear", 85.0, semantic="off"), row("linear", 86.5), row("linear", 90.0, num_clusters=30),
]  # fmt: skip


def test_the_paper_figures_are_as_printed():
    assert {number: [line.values for line in table.rows] for number, table in ablation_tables().items()} == PRINTED
    for number, table in ablation_tables().items():
        (ablation,) = (each for each in ablations().values() if each.table == number)
        assert len(ablation.arms) == len(table.rows)


def test_the_paper_figures_are_those_of_its_text(shared_folder):
    text = (shared_folder / "paper" / "prosl.txt").read_text(encoding="utf-8")
    for number, lines in PRINTED.items():
        after = text[re.search(rf"^Table {number} ", text, flags=re.MULTILINE).end() :].splitlines()
        start = next(i for i, line in enumerate(after) if "\t" in line) + 1
        printed = [line.split("\t") for line in after[start : start + len(lines)]]
        assert [tuple(map(float, cells[-2:])) for cells in printed] == lines
        if number == 5:
            ticks = [[bool(cell.strip()) for cell in cells[:3]] for cells in printed]
            assert ticks == [[False] * 3, [True, False, False], [True, True, False], [True, False, True]]
        else:
            assert [cells[0].split(" ")[0] for cells in printed] == [line.method for line in ablation_tables()[6].rows]


def test_arms_are_runs_that_differ_in_the_varied_option_alone():
    (study,) = studies(MODULES, ablations()["modules"])
    assert [arm.name for arm in study.arms] == ["base", "third_branch-none", "prosl"]
    assert [arm.label for arm in study.arms][1:] == ["+ semantic clustering", "+ clustering, semantic branch"]
    assert [arm.printed for arm in study.arms] == [(81.6, 67.1), (82.2, 68.0), (82.5, 68.8)]
    assert study.measures == ["1-NN", "linear"]
    assert study.data == "nw-ucla x-view (1020 / 464)"
    assert study.model == "HiCo-LSTM, hidden_size 128, 300 epochs"
    assert study.arms[0].scores == {"1-NN": {0: 80.0, 1: 82.0, 2: 84.0}, "linear": {0: 85.0}}
    # the run with k = 30 belongs to another study, where it stands alone
    assert study.arms[2].scores["linear"] == {0: 86.5}


def test_differences_are_paired_by_seed():
    (study,) = studies(MODULES, ablations()["modules"])
    base, clustering, prosl = study.arms
    gain = paired(prosl, base, "1-NN")
    assert gain.values == (1.0, 2.0, 3.0)
    assert (gain.mean, gain.low, gain.high) == pytest.approx((2.0, -0.4841, 4.4841), abs=1e-4)
    assert paired(clustering, base, "1-NN").values == (0.5, 0.5)
    assert math.isnan(paired(prosl, base, "linear").low)
    assert paired(clustering, base, "linear") is None
    assert paired(base, base, "1-NN") is None
    # accuracies are quantised: equal differences of three seeds are no certainty, nor are two seeds
    for few in ([-0.4, -0.4, -0.4], [0.1 + 0.2, 0.3, 0.3], [1.0, 3.0], [2.0]):
        assert math.isnan(estimate(few).low)
        assert math.isnan(estimate(few).high)
    assert signed(estimate([-0.4, -0.4, -0.4])) == "-0.4"
    # scipy: t.interval(0.95, 3, mean, sem)
    assert estimate([1.0, 2.0, 4.0, 9.0])[1:3] == pytest.approx((-1.6635, 9.6635), abs=1e-3)


def test_the_last_evaluation_of_a_run_counts_and_other_settings_are_another_measure():
    rows = [row(top1=70.0, semantic="off"), row(top1=71.0, semantic="off"), row(top1=75.0)]
    rows += [row("linear", 60.0, semantic="off", protocol={"epochs": 1000, "milestones": [625, 875]})]
    (study,) = studies(rows, ablations()["backbone"])
    assert study.arms[0].scores == {"1-NN": {0: 71.0}, "linear, epochs 1000": {0: 60.0}}
    assert [arm.label for arm in study.arms] == ["base method alone", "ProSL on it"]
    assert study.arms[1].printed == (73.1, 78.4)


@pytest.mark.parametrize(
    "other", [{"split": "x-sub"}, {"epochs": 200}, {"data": "irds"}, {"base": "isc"}, {"learning_rate": 1}]
)
def test_unlike_runs_are_not_compared(other):
    assert studies([row(semantic="off"), row(**other)], ablations()["backbone"]) == []
    found = studies([row(semantic="off"), row(), row(semantic="off", **other), row(**other)], ablations()["backbone"])
    assert [len(study.arms) for study in found] == [2, 2]


def test_warm_ups_fusions_and_other_evaluations_are_no_arms():
    fused = row()
    fused["checkpoints"] *= 3
    rows = [row(semantic="off"), row(semantic="warm-up"), fused, row("semi")]
    assert studies(rows, ablations()["backbone"]) == []


def test_quantities_are_ordered_and_know_what_is_configured():
    rows = [row(num_clusters=100), row(num_clusters=5), row(), row(semantic="off")]
    (study,) = studies(rows, ablations()["clusters"])
    assert [(arm.name, arm.value) for arm in study.arms] == [
        ("base", None), ("num_clusters-5", 5.0), ("prosl", 15.0), ("num_clusters-100", 100.0),
    ]  # fmt: skip
    assert study.arms[2].label == "num_clusters 15, as configured"
    # without the base method nothing tells what is configured
    (study,) = studies(rows[:3], ablations()["clusters"])
    assert [arm.name for arm in study.arms] == ["num_clusters-5", "num_clusters-15", "num_clusters-100"]
    assert "to base" in study_text(study)


def test_readings_are_compared_with_what_is_configured_too():
    rows = [row(top1=80.0, semantic="off"), row(top1=82.0), row(top1=85.0, semantic_temperature=0.2)]
    (study,) = studies(rows, ablations()["readings"])
    assert [arm.label for arm in study.arms] == ["base method alone", "as configured", "semantic_temperature 0.2"]
    lines = study_text(study).splitlines()
    assert re.split(r"\s{2,}", lines[2]) == ["arm", "seeds", "1-NN", "to base", "to configured"]
    assert re.split(r"\s{2,}", lines[6]) == ["semantic_temperature 0.2", "1", "85.0", "+5.0", "+3.0"]
    assert re.split(r"\s{2,}", lines[5]) == ["as configured", "1", "82.0", "+2.0"]


def test_an_arm_with_a_warm_up_of_its_own_is_marked():
    rows = [row(semantic="off", bank_wrap="full"), row(bank_wrap="full"), row(bank_wrap="reference")]
    rows += [row(bank_wrap="full", semantic_temperature=0.2)]
    (study,) = studies(rows, ablations()["readings"])
    assert [arm.name for arm in study.arms if arm.own_warm_up] == ["bank_wrap-reference"]
    text = study_text(study)
    assert ["bank_wrap", "reference", "†", "1"] in [line.split()[:4] for line in text.splitlines()]
    assert text.count("†") == 2
    assert text.endswith("† another option of the base method, so a warm-up of its own: not paired like the others")


def test_without_the_base_method_arms_are_named_after_what_differs():
    (study,) = studies([row(), row(semantic_temperature=0.2)], ablations()["readings"])
    assert [arm.label for arm in study.arms] == ["semantic_temperature 0.2", "semantic_temperature 1.0"]


def test_the_table_stands_beside_the_papers():
    (study,) = studies(MODULES, ablations()["modules"])
    text = study_text(study)
    title, table, remarks = text.split("\n\n")
    assert title.startswith(
        "Table 5. Sub-modules: nw-ucla x-view (1020 / 464), HiCo-LSTM, hidden_size 128, 300 epochs;"
    )
    lines = [re.split(r"\s{2,}", line) for line in table.splitlines()]
    assert lines[0] == [
        "arm", "seeds", "1-NN", "to base", "linear", "to base", "paper, Linear", "paper, KNN"
    ]  # fmt: skip
    assert lines[-1] == [
        "+ clustering, semantic branch", "3", "84.0 ± 3.0", "+2.0 [-0.5, +4.5]", "86.5", "+1.5", "82.5", "68.8",
    ]  # fmt: skip
    assert "paired by seed" in remarks
    assert "no interval for fewer than 3 seeds or where all differences are equal" in remarks
    assert "†" not in text
    markdown = study_text(study, markdown=True)
    assert "| + semantic clustering | 2 | 81.5 ± 1.4 | +0.5 | - |  | 82.2 | 68.0 |" in markdown
    one = study_text(studies([row(semantic="off"), row()], ablations()["backbone"])[0])
    assert "one seed: differences of a point or two mean nothing" in one


def test_numbers_come_as_csv():
    ablation = ablations()["modules"]
    rows = list(csv.DictReader(io.StringIO(study_csv(ablation, studies(MODULES, ablation)))))
    paper = [each for each in rows if each["data"] == "paper, Table 5"]
    assert len(paper) == 8
    assert paper[0]["arm"] == "base method alone"
    assert (paper[-1]["arm"], paper[-1]["measure"], paper[-1]["mean"]) == (
        "Semantic Clustering + Semantic Branch", "KNN", "68.8",
    )  # fmt: skip
    (ours,) = (each for each in rows if (each["arm"], each["measure"]) == ("prosl", "1-NN"))
    assert [ours[name] for name in CSV_HEADER[5:]] == [
        "3", "84.0000", "3.0000", "base", "3", "2.0000", "-0.4841", "4.4841",
    ]  # fmt: skip
    assert list(csv.reader(io.StringIO(study_csv(ablations()["start"], [])))) == [CSV_HEADER]


def test_names_of_arms():
    assert arm_name({"kl_direction": "query-to-semantic"}) == "kl_direction-query-to-semantic"
    assert arm_name({"semantic": False, "bank_wrap": "reference"}) == "base"


@pytest.mark.parametrize(("base", "name"), [("skeletonclr", "SkeletonCLR"), ("isc", "ISC"), ("hiclr", "HiCLR")])
def test_bases_are_called_by_their_names(base, name):
    (study,) = studies([row(base=base, semantic="off"), row(base=base)], ablations()["backbone"])
    assert study.model == f"{name}, hidden_size 128, 300 epochs"
