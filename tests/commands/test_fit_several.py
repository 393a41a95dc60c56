"""`prosl fit --streams ... --seeds ...`: several ordinary runs in one process, from one archive."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from prosl_lightning import load_encoder

NAMES = ("joint-0", "bone-0", "joint-1", "bone-1")
FOUR = ("--streams", "joint,bone", "--seeds", "0,1")


def _read(path: str | Path) -> dict:
    return torch.load(path, weights_only=True)


def _assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def _assert_same_checkpoint(first: str, second: str) -> None:
    own, single = _read(first), _read(second)
    _assert_same(own["state_dict"], single["state_dict"])
    for part in ("hyper_parameters", "recipe", "lr_schedulers", "epoch", "global_step"):
        assert own[part] == single[part]
    states = [each["optimizer_states"][0]["state"] for each in (own, single)]
    _assert_same(*({str(key): value["momentum_buffer"] for key, value in state.items()} for state in states))


def _files(folder: str) -> dict[str, Path]:
    return {str(file.relative_to(folder)): file for file in Path(folder).rglob("*") if file.is_file()}


def _log(file: Path) -> list[dict[str, str]]:
    """The log without what depends on the clock."""
    rows = list(csv.DictReader(file.read_text().splitlines()))
    for row in rows:
        del row["epoch/samples_per_second"]
    return rows


def test_a_model_is_what_it_would_be_alone_and_goes_on_alone(fit, prosl):
    options = ("--model.milestones", "[1]", "--checkpoint_every", 1)
    result = fit(*FOUR, *options, "--trainer.max_epochs", 2)
    assert (result.code, result.err) == (0, "")
    assert "4 models side by side in run: joint-0, bone-0, joint-1, bone-1" in result.out
    assert result.out.count("36 sequences for training") == 1

    alone = ("--data.stream", "bone", "--seed_everything", 1, "--trainer.default_root_dir", "alone")
    assert fit(*options, *alone, "--trainer.max_epochs", 2).code == 0
    own, single = _files("run/bone-1"), _files("alone")
    assert own.keys() == single.keys()
    for name in ("last", "epoch-0000"):
        _assert_same_checkpoint(f"run/bone-1/checkpoints/{name}.ckpt", f"alone/checkpoints/{name}.ckpt")
    assert _log(own["logs/version_0/metrics.csv"]) == _log(single["logs/version_0/metrics.csv"])
    saved = [yaml.safe_load(files["logs/version_0/config.yaml"].read_text()) for files in (own, single)]
    assert [each["trainer"].pop("default_root_dir") for each in saved] == ["run/bone-1", "alone"]
    assert saved[0] == saved[1]

    for folder in ("run/bone-1", "alone"):
        config = ("--config", f"{folder}/logs/version_0/config.yaml", "--trainer.max_epochs", 3)
        assert prosl("fit", *config, "--ckpt_path", "last").code == 0
    _assert_same_checkpoint("run/bone-1/checkpoints/last.ckpt", "alone/checkpoints/last.ckpt")


def test_the_checkpoints_are_judged_and_fused_like_any(fit, prosl, tiny_archive):
    result = fit("--streams", "joint,bone", "--trainer.max_epochs", 1)
    files = [f"run/{name}-0/checkpoints/last.ckpt" for name in ("joint", "bone")]
    assert f"prosl knn --ckpt '[{files[0]}, {files[1]}]' --data.root {tiny_archive}" in result.out
    result = prosl("knn", "--ckpt", f"[{', '.join(files)}]", "--data.root", tiny_archive)
    assert result.code == 0, result.err
    rows = json.loads(Path("run/joint-0/checkpoints/results.json").read_text())
    assert [len(row["checkpoints"]) for row in rows] == [1, 2]
    encoder = load_encoder(files[1])
    joints = np.random.default_rng(0).normal(size=(30, 25, 3)).astype(np.float32)
    assert bool(torch.isfinite(torch.as_tensor(encoder.embed([joints], normalized=True))).all())


def test_a_group_that_was_killed_ends_as_if_it_had_not(fit, tmp_path):
    several = ("--streams", "joint,bone,motion", "--checkpoint_every", 1)
    assert fit(*several).code == 0
    # As if it had been killed between the checkpoints of two models, and before one had any
    shutil.copytree("run", "killed")
    for name, kept in (("joint-0", 2), ("bone-0", 1), ("motion-0", 0)):
        folder = tmp_path / "killed" / name / "checkpoints"
        for epoch in range(kept, 3):
            (folder / f"epoch-{epoch:04d}.ckpt").unlink()
        (folder / "last.ckpt").unlink()
        if kept:
            shutil.copy(folder / f"epoch-{kept - 1:04d}.ckpt", folder / "last.ckpt")
    result = fit(*several, "--trainer.default_root_dir", "killed", "--ckpt_path", "last")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("going on from killed/") == 2
    for name in ("joint-0", "bone-0", "motion-0"):
        _assert_same_checkpoint(*(f"{root}/{name}/checkpoints/last.ckpt" for root in ("run", "killed")))
    # A single run in the same folder must not go on with one of these.
    result = fit("--ckpt_path", "last")
    assert result.code == 1
    assert result.err == (
        "prosl fit: error: --ckpt_path last: no complete checkpoint in run (found nothing)\n"
        "its bone-0, joint-0, motion-0 are models of --streams or --seeds: give these options, too\n"
    )


def test_options_from_configuration_and_environment(prosl, fit, tiny_archive, tmp_path, monkeypatch):
    (tmp_path / "several.yaml").write_text("streams: [motion]\nseeds: [3, 4]\ntrainer: {max_epochs: 1}\n")
    assert fit("--config", "several.yaml").code == 0
    assert sorted(path.name for path in Path("run").iterdir()) == ["motion-3", "motion-4"]
    monkeypatch.setenv("PROSL_FIT__STREAMS", "[bone, joint]")
    assert fit("--trainer.max_epochs", 1, "--seed_everything", 7, "--trainer.default_root_dir", "other").code == 0
    assert sorted(path.name for path in Path("other").iterdir()) == ["bone-7", "joint-7"]
    recipe = _read("other/bone-7/checkpoints/last.ckpt")["recipe"]
    assert recipe["stream"] == "bone"
    help_text = prosl("fit", "--help").out
    assert "--streams" in help_text
    assert "several streams side by side" in help_text


def test_one_bar_shows_the_losses_of_all(fit):
    result = fit(*FOUR, "--trainer.enable_progress_bar", "true", "--trainer.max_epochs", 1)
    assert result.code == 0
    ends = [line for line in result.out.replace("\r", "\n").splitlines() if "Epoch 0: 100%" in line]
    assert all(ends[-1].count(f"{name}=") == 1 for name in NAMES)
    assert "stage=contrast" in ends[-1]


def test_checkpoints_of_the_users_own_are_kept_apart(fit):
    result = fit(
        "--seeds", "0,1", "--trainer.max_epochs", 1, "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.dirpath", "mine", "--trainer.callbacks.filename", "own",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert sorted(str(file) for file in Path("mine").rglob("*.ckpt")) == [
        "mine/joint-0/own.ckpt",
        "mine/joint-1/own.ckpt",
    ]


def test_every_model_has_a_wandb_run_of_its_own(fit, offline, tmp_path):
    logger = ("--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true")
    result = fit("--streams", "joint,bone", "--trainer.max_epochs", 1, *logger)
    assert result.code == 0, result.err
    ids = [json.loads((tmp_path / f"run/{name}/wandb-run.json").read_text())["id"] for name in ("joint-0", "bone-0")]
    assert len(set(ids)) == 2
    for name in ("joint-0", "bone-0"):
        records = offline(tmp_path / "run" / name)
        assert {record.run.display_name for record in records if record.HasField("run")} == {name}
        logged = [item for record in records if record.HasField("history") for item in record.history.item]
        assert sum("epoch/loss" in (item.key, *item.nested_key) for item in logged) == 1


def test_a_model_that_diverges_is_named_and_the_others_go_on(fit, tmp_path, monkeypatch):
    from prosl_lightning.prosl.module import ProSLModule

    step = ProSLModule.training_step

    def broken(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.hparams["stream"] == "bone" else loss

    monkeypatch.setattr(ProSLModule, "training_step", broken)
    with pytest.warns(
        UserWarning, match="bone-0 has failed in epoch 0, the other models go on; why is told at the end"
    ):
        result = fit("--streams", "joint,bone", "--trainer.max_epochs", 2)
    assert result.code == 1
    assert result.err.count("not finite") == 1
    # The other has a checkpoint, so that the group goes on, and this one begins again.
    assert result.err.endswith(
        "; there is no checkpoint yet: go on with a lower learning rate or repaired data and --ckpt_path last\n"
    )
    assert "prosl fit: error: bone-0: " in result.err
    assert _read("run/joint-0/checkpoints/last.ckpt")["epoch"] == 1
    assert "run/joint-0/checkpoints/last.ckpt: 2 of 2 epochs done" in result.out


def test_an_interrupt_is_told_once(fit, monkeypatch):
    from prosl_lightning.prosl.module import ProSLModule

    step = ProSLModule.training_step

    def interrupted(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(ProSLModule, "training_step", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = fit("--streams", "joint,bone")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.code == 130
    told = "all models stopped by Ctrl+C; go on with the same command again, as there is no checkpoint yet"
    assert result.err == f"\nprosl fit: {told}\n"


def test_the_requeue_lines_of_the_documentation_know_whether_to_go_on(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "robustness.md").read_text()
    conditions = [line for line in text.splitlines() if line.startswith("if ") and line.endswith("fi")]
    for condition, file in zip(conditions, ("checkpoints/last.ckpt", "joint-0/checkpoints/last.ckpt"), strict=True):
        run = tmp_path / file.replace("/", "-")
        script = f'set -e; run={run}; go_on=""\n{condition}\necho "$go_on"'
        answers = []
        for _ in range(2):
            answers.append(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True))
            (run / file).parent.mkdir(parents=True, exist_ok=True)
            (run / file).touch()
            (run / "bone-0").mkdir(exist_ok=True)  # has none yet
        assert [answer.stdout + answer.stderr for answer in answers] == ["\n", "--ckpt_path last\n"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--streams", "joint,bones"), 2, "--streams: there is no stream 'bones'; choose among joint, bone, motion"),
        (("--streams", "joint,bone,joint"), 2, "--streams: joint is given more than once"),
        (("--seeds", "1,2,1"), 2, "--seeds: 1 is given more than once"),
        (("--seeds", "-1"), 2, "--seeds: '-1' is no seed; expected whole numbers from 0, e.g. 0,1,2"),
        (("--seeds", "0,99999999999"), 2, "--seeds: 99999999999 is no seed; expected whole numbers from 0 to 4"),
        (("--seed_everything", "4294967296"), 2, "--seed_everything: 4294967296 is no seed; expected whole numbers"),
        (("--seed_everything", "-1"), 2, "--seed_everything: -1 is no seed; expected whole numbers from 0 to 4"),
        (("--streams", "joint", "--data.stream", "bone"), 2, "data.stream is bone and --streams joint: give only one"),
        (("--seeds", "0,1", "--ckpt_path", "a.ckpt"), 2, "--ckpt_path is a.ckpt; with --streams or --seeds it can"),
        (("--seeds", "0,1", "--ckpt_path", "last"), 1, "no complete checkpoint in joint-0, joint-1 of run; start"),
        (("--seeds", "0,1", "--trainer.devices", "2"), 2, "models side by side share one device, the trainer has 2"),
        (("--seeds", "0,1", "--model.bank_size", "4"), 2, "batch_size is 8, more than bank_size 4"),
        (("--seeds", "0,1", "--model.bank_sise", "4"), 2, "bank_sise"),
        (("--seeds", "0,1", "--shared_codebook", "true"), 2, "--shared_codebook is for several streams: give them by"),
        (("--shared_codebook", "true"), 2, "--shared_codebook is for several streams: give them by --streams, e.g."),
        (
            ("--streams", "joint,bone", "--shared_codebook", "true", "--model.semantic", "false"),
            2,
            "a shared codebook needs semantic=True in every model",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(fit, arguments, code, message):
    result = fit(*arguments)
    assert (result.code, message in result.err) == (code, True), result.err
    assert "side by side in" not in result.out
    assert not Path("run").exists()


def test_streams_of_one_seed_share_their_codebook(fit):
    several = ("--streams", "joint,bone", "--seeds", "0,1", "--shared_codebook", "true")
    result = fit(*several, "--trainer.max_epochs", 2)
    assert (result.code, result.err) == (0, "")
    own = {name: _read(f"run/{name}/checkpoints/last.ckpt")["state_dict"] for name in NAMES}
    labels = {name: state["codebook.assignment"] for name, state in own.items()}
    assert torch.equal(labels["joint-0"], labels["bone-0"])
    assert torch.equal(labels["joint-1"], labels["bone-1"])
    assert not torch.equal(labels["joint-0"], labels["joint-1"])
    assert not torch.allclose(own["joint-0"]["codebook.centroids"], own["bone-0"]["codebook.centroids"])
