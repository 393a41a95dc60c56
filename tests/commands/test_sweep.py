"""`prosl sweep` for real, on a tiny archive: one sweep of two seeds that several tests look at."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from prosl_lightning.cli import main
from prosl_lightning.data.archive import Archive, ArchiveWriter
from prosl_lightning.prosl.module import ProSLModule

SETTINGS = """
trainer: {accelerator: cpu, max_epochs: 3, default_root_dir: runs/tiny, enable_progress_bar: false, logger: false}
data: {batch_size: 16, eval_batch_size: 48}
model:
  base: hico-gru
  base_args: {hidden_size: 8, num_layers: 1, projection_size: 8}
  num_frames: 16
  min_crop_frames: 8
  bank_size: 32
  momentum: 0.9
  semantic_start: 1
  num_clusters: 6
  semantic_temperature: 0.2
  confidence_threshold: relative
  importance_samples: 4
  milestones: [3]
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory, tiny_archive) -> list[str]:
    config = tmp_path_factory.mktemp("config") / "tiny.yaml"
    config.write_text(SETTINGS)
    return ["--config", str(config), "--data.root", str(tiny_archive), "--linear_epochs", "20"]


@pytest.fixture(scope="module")
def swept(command, tmp_path_factory) -> Path:
    """Folder of a finished sweep: the base method and ProSL, seeds 0 and 1."""
    out = tmp_path_factory.mktemp("sweeps") / "all"
    assert main(["sweep", "clusters", *command, "--points", "6", "--seeds", "0-1", "--out", str(out)]) == 0
    return out


def _state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def _assert_same(first: Path, second: Path) -> None:
    one, other = _state(first), _state(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_every_arm_is_an_ordinary_run_from_the_warm_up(swept):
    for seed in (0, 1):
        root = swept / f"seed-{seed}"
        assert {path.name for path in root.iterdir()} == {"warm-up-1", "base", "prosl", "lock"}
        warm_up = torch.load(root / "warm-up-1/checkpoints/last.ckpt", weights_only=True)
        assert (warm_up["epoch"], warm_up["hyper_parameters"]["semantic"]) == (0, False)
        for arm, semantic in (("base", "off"), ("prosl", "on")):
            rows = json.loads((root / arm / "checkpoints/results.json").read_text())
            assert [row["evaluation"] for row in rows] == ["knn", "linear"]
            assert rows[1]["protocol"]["epochs"] == 20
            (checkpoint,) = rows[0]["checkpoints"]
            assert (checkpoint["seed"], checkpoint["epochs"], checkpoint["semantic"]) == (seed, 3, semantic)
    zero, one = (_state(swept / f"seed-{seed}/base/checkpoints/last.ckpt") for seed in (0, 1))
    assert any(not torch.equal(zero[name], one[name]) for name in zero)


def test_the_base_arm_is_the_base_method_trained_in_one_go(swept, command, tmp_path):
    whole = ["--trainer.default_root_dir", str(tmp_path / "run"), "--model.semantic", "false", "--seed_everything", "0"]
    assert main(["fit", *command[:4], *whole]) == 0
    _assert_same(swept / "seed-0/base/checkpoints/last.ckpt", tmp_path / "run/checkpoints/last.ckpt")


def test_it_ends_in_a_table_and_a_figure(swept):
    scores = {
        (arm, row["evaluation"], seed): row["numbers"]["top-1"]
        for seed in (0, 1)
        for arm in ("base", "prosl")
        for row in json.loads((swept / f"seed-{seed}/{arm}/checkpoints/results.json").read_text())
    }
    with (swept / "clusters.csv").open() as file:
        found = {(row["arm"], row["measure"]): row for row in csv.DictReader(file)}
    assert set(found) == {(arm, measure) for arm in ("base", "prosl") for measure in ("1-NN", "linear, epochs 20")}
    for (arm, measure), row in found.items():
        evaluation = "knn" if measure == "1-NN" else "linear"
        own, base = ([scores[name, evaluation, seed] for seed in (0, 1)] for name in (arm, "base"))
        assert float(row["mean"]) == pytest.approx(sum(own) / 2, abs=1e-3)
        assert row["seeds"] == "2"
        if arm == "prosl":
            assert float(row["difference"]) == pytest.approx((sum(own) - sum(base)) / 2, abs=1e-3)
            assert (row["low"], row["high"]) == ("", "")  # two seeds tell no interval
    text = (swept / "clusters.md").read_text()
    assert text.startswith("**Number of centroids: tiny x-sub (36 / 12), HiCo-GRU, hidden_size 8")
    assert "| num_clusters 6, as configured | 2 |" in text
    with Image.open(swept / "clusters.png") as picture:
        assert picture.size[0] > 1200
        assert len(picture.convert("L").getcolors()) > 20


def test_given_again_it_trains_nothing_and_another_sweep_shares_its_runs(swept, command, prosl):
    files = {path: path.stat().st_mtime_ns for path in swept.rglob("*.ckpt")}
    arguments = ("--seeds", "0-1", "--out", swept)
    result = prosl("sweep", "clusters", *command, "--points", 6, *arguments)
    assert result.code == 0, result.err
    assert "epochs 0 to" not in result.out
    assert result.out.count("  done\n") == 4
    result = prosl("sweep", "modules", *command, *arguments, "--only", "base", "prosl")
    assert result.code == 0, result.err
    assert "Table 5. Sub-modules: tiny x-sub (36 / 12)" in result.out
    assert (swept / "modules.png").is_file()
    shown = prosl("sweep", "modules", *command, *arguments, "--only", "prosl").out.split("Table 5.")[1]
    assert "base method alone" in shown  # without it there would be nothing to compare with
    assert files == {path: path.stat().st_mtime_ns for path in swept.rglob("*.ckpt")}


def test_a_dry_run_lists_what_is_to_be_done_and_writes_nothing(swept, command, prosl):
    before = set(swept.rglob("*"))
    result = prosl("sweep", "start", *command, "--points", 1, 2, "--seeds", "1-2", "--out", swept, "--dry_run")
    assert result.code == 0, result.err
    lines = [line.split(maxsplit=2) for line in result.out.splitlines()[4:]]
    assert lines == [
        ["1", "warm-up-2", "0 to 2  1 of 2 epochs"], ["1", "base", "1 to 3  done"], ["1", "prosl", "1 to 3  done"],
        ["1", "semantic_start-2", "2 to 3  to do"],
        ["2", "warm-up-1", "0 to 1  to do"], ["2", "warm-up-2", "0 to 2  to do"], ["2", "base", "1 to 3  to do"],
        ["2", "prosl", "1 to 3  to do"], ["2", "semantic_start-2", "2 to 3  to do"],
    ]  # fmt: skip
    assert set(swept.rglob("*")) == before


def test_an_arm_interrupted_in_its_last_epoch_ends_as_if_it_had_not_been(swept, command, prosl, monkeypatch):
    start = ProSLModule.on_train_epoch_start

    def interrupted(self):
        if self.hparams["semantic"] and self.current_epoch == 2:
            raise KeyboardInterrupt
        start(self)

    arguments = ("sweep", "backbone", *command, "--seeds", 0, "--only", "prosl", "--out", "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(ProSLModule, "on_train_epoch_start", interrupted)
        assert prosl(*arguments).code != 0
    assert not Path("stopped/seed-0/prosl/checkpoints/results.json").exists()
    state = prosl(*arguments, "--dry_run").out.splitlines()
    assert state[-1].split(maxsplit=2) == ["0", "prosl", "1 to 3  1 of 2 epochs"]
    result = prosl(*arguments)
    assert result.code == 0, result.err
    assert "going on from stopped/seed-0/prosl/checkpoints/last.ckpt, 2 epochs done" in result.out
    assert "only one arm was run: there is nothing to compare" in result.out
    _assert_same(swept / "seed-0/prosl/checkpoints/last.ckpt", Path("stopped/seed-0/prosl/checkpoints/last.ckpt"))


def test_changed_settings_are_refused(swept, command, prosl):
    result = prosl("sweep", "clusters", *command, "--out", swept, "--model.learning_rate", 0.5)
    assert result.code == 2
    assert "holds runs with other settings: model.learning_rate was 0.01, is now 0.5\n" in result.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model.semantic", "false"], "model.semantic is false: the base method alone is one arm of every sweep"),
        (["--trainer.max_epochs", 1], "trainer.max_epochs is 1; it must be more than model.semantic_start, 1"),
        (["--ckpt_path", "last"], "--ckpt_path is no option of a sweep: the warm-up's checkpoint is used"),
        (["--seed_everything=3"], "--seed_everything is no option of a sweep: give --seeds"),
        (["--trainer.enable_checkpointing", "false"], "trainer.enable_checkpointing is false: arms go on from"),
        (["--trainer.devices", 2], "a sweep trains on one device"),
        (["--linear_epochs", 0], "--linear_epochs is 0; it must be at least 1"),
        (["--model.clusters", 3], "num_clusters"),
        (["--data.root="], "no data are given: name a configuration, --config nw-ucla, or an archive, --data.root"),
        (["--data.protocol", "all"], "protocol 'all' of {archive} has no test set; protocols: x-sub, x-view"),
        (["--data.protocol", "x-set"], "has no protocol 'x-set'; it has x-sub, x-view"),
        (["--data.batch_size", 40], "has only 36 sequences: lower batch_size"),
        (["--data.batch_size", 33], "batch_size is 33, more than bank_size 32"),
        (["--trainer.precision", "bf16-true"], "precision is bf16-true"),
        (["--points", 6, 2000], "arm num_clusters-2000: num_clusters is 2000 but the training set has only 36 samples"),
        (["--points", -3], "arm num_clusters--3: num_clusters is -3; it must be greater than 0"),
        (["--points", "a"], "--points a: expected whole numbers"),
        (["--points", 1, 6, "--model.semantic_temperature", 2], "with num_clusters 1 at semantic_temperature 2"),
        (
            ["--model.num_clusters", 20],
            "only 36 samples\nit is one of the usual points; give your own: --points 7 13 20 27",
        ),
        (["--only"], "--only has nothing after it: give names of arms"),
        (["--model.base", "skeletonclr"], "encoder 'st-gcn' has no argument 'hidden_size': known are dropout"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_trained_or_written(
    command, tiny_archive, prosl, options, told
):
    for dry in ([], ["--dry_run"]):
        result = prosl("sweep", "clusters", *command, *options, *dry)
        assert (result.code, told.replace("{archive}", str(tiny_archive)) in result.err) == (
            1 if "no test set" in told else 2,
            True,
        ), result.err
        assert not Path("runs").exists()


def test_test_sequences_without_labels_are_refused_before(command, prosl, tiny_archive):
    source, root = Archive.open(tiny_archive), Path("unlabelled")
    with ArchiveWriter(
        root, layout=source.layout, num_bodies=2, class_names=("a",), protocols=source.meta["protocols"]
    ) as writer:  # fmt: skip
        for i in range(48):
            joints = torch.randn(20, 25, 2, 3).numpy()
            writer.add(f"clip{i}", joints, label=0 if i % 4 < 3 else -1, subject=1 + i % 4, camera=1)
    result = prosl("sweep", "modules", *command, "--data.root", root, "--dry_run")
    assert (result.code, "12 of the 12 test sequences have no label" in result.err) == (1, True), result.err


def test_damaged_results_are_told_and_the_others_shown(swept, command, prosl):
    shutil.copytree(swept, "copy")
    file = Path("copy/seed-1/prosl/checkpoints/results.json")
    file.write_text("[{")
    arguments = ("sweep", "backbone", *command, "--seeds", "0-1", "--out", "copy")
    result = prosl(*arguments, "--dry_run")
    assert result.code == 0, result.err
    assert f"warning: left out: {file} is damaged" in result.err
    assert result.out.splitlines()[-1].split(maxsplit=2) == ["1", "prosl", "1 to 3  results.json is damaged"]
    result = prosl(*arguments)
    assert (result.code, f"1 run left out: {file} is damaged" in result.err) == (1, True), result.err
    assert "ProSL on it        1" in result.out


def test_the_help_tells_what_to_give(prosl):
    result = prosl("sweep", "--help")
    assert result.code == 0
    assert result.out.startswith("usage: prosl sweep NAME [options] [options of `prosl fit`]\n")
    assert not any(odd in result.out for odd in ("--only+", "--points+", "name ...", "[]"))


def test_an_unknown_sweep_is_told_what_there_is(prosl):
    assert "found nothing" in prosl("sweep", "--config", "modules").err
    result = prosl("sweep", "moduls")
    assert result.code == 2
    assert "the sweeps are modules, backbone, clusters, start, readings; found moduls" in result.err


def test_tables_of_the_ablations(swept, prosl):
    result = prosl("table", 5, swept)
    assert result.code == 0, result.err
    assert "+ clustering, semantic branch" in result.out
    assert "paper, Linear" in result.out
    assert "num_clusters 6, as configured" in prosl("table", "clusters", swept).out
    assert prosl("table", 6, swept, "--style", "markdown").out.count("\n| ") == 4
    alone = prosl("table", 6)
    assert (alone.code, "no results in runs" in alone.err) == (0, True)
    assert prosl("table", "backbone").out == alone.out
    assert prosl("table", "modules", swept).out == result.out
    assert ["base", "method", "alone", "81.6", "67.1"] in [line.split() for line in prosl("table", 5).out.splitlines()]
    assert prosl("table", 5, "--style", "csv").out.count("base method alone,") == 2
    assert "the tables are 1, 2, 3, 4, 5 or modules, 6 or backbone, clusters, start, readings; found 7" in (
        prosl("table", 7).err
    )
    assert "ProSL-SkeletonCLR  73.1   78.4" in alone.out
    assert "the paper's Figure 4a, NTU-60 x-sub, prints no numbers" in prosl("table", "clusters").out
    assert prosl("table", 6, swept / "seed-0/base").err.startswith("no two arms among the results")
