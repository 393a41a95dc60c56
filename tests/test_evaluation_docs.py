"""The page on evaluation tells the truth: its commands have these options, its Python code runs."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from prosl_lightning import ArchiveWriter, ProSLModule, SkeletonLayout
from prosl_lightning.cli import VERBS, main
from prosl_lightning.commands.parsing import packaged_configs

TEXT = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
]


@functools.cache
def _help(verb: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
        main([verb, "--help"])
    return text.getvalue()


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_have_verbs_options_and_configurations_that_exist(arguments):
    assert arguments[0] in VERBS
    known = set(re.findall(r"--[\w.]+", _help(arguments[0])))
    assert {argument for argument in arguments if argument.startswith("--")} <= known
    if "--config" in arguments:
        assert arguments[arguments.index("--config") + 1] in packaged_configs()


def test_every_verb_named_exists():
    named = set(re.findall(r"`prosl (\w+)", TEXT))
    assert {"linear", "semi", "transfer", "knn", "embed", "predict", "table"} <= named <= set(VERBS)


def test_python_code_runs_and_ends_in_a_classifier_for_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw, layout = np.random.default_rng(0), SkeletonLayout.of("kinect-v1")
    protocols = {"x-view": {"column": "view", "train": [1, 2], "test": [3]}}
    with ArchiveWriter(
        tmp_path / "data" / "nw-ucla",
        layout=layout,
        num_bodies=1,
        class_names=("a", "b"),
        protocols=protocols,
        recipe={"normalize": "agcn"},
    ) as writer:
        for i in range(99):
            writer.add(f"clip{i}", draw.normal(size=(20 + i % 9, 20, 1, 3)), label=i % 2, view=1 + i % 3)
    module = ProSLModule(layout="kinect-v1", num_bodies=1, base_args={"hidden_size": 16}, bank_size=64, num_frames=16)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=0, logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint("runs/nw-ucla/checkpoints/last.ckpt")
    quick = functools.partial(
        pl.Trainer, accelerator="cpu", limit_train_batches=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False,
    )  # fmt: skip
    monkeypatch.setattr(pl, "Trainer", lambda max_epochs=1, **options: quick(max_epochs=min(max_epochs, 2), **options))
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        exec(block, names)  # the page is ours
    assert names["logits"].shape == (33, 2)
    assert set(names["best"]) <= {"a", "b"}
    assert len(names["chosen"]) == 6
    assert torch.equal(names["logits"], names["semi"].predict(names["batch"]))
    assert "prosl predict --ckpt semi.ckpt FILES" in TEXT
    np.savez("mine.npz", joints=draw.normal(size=(9, 1, 20, 3)).astype(np.float32), lengths=np.array([9]))
    capsys.readouterr()
    assert main(["predict", "--ckpt", "semi.ckpt", "mine.npz", "--layout", "kinect-v1", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {each["class"] for each in found["classes"]} == {"a", "b"}
