"""The page on own methods tells the truth: its code runs from a file of the user's, through fit and evaluation."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml

from prosl_lightning import ArchiveWriter, ProSLModule, SkeletonLayout
from prosl_lightning.bases import BASES
from prosl_lightning.cli import main

TEXT = (Path(__file__).parents[1] / "docs" / "own-method.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("prosl ")
]
QUICK = (
    "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu",
    "--trainer.enable_progress_bar", "false", "--model.semantic_start", "1", "--model.bank_size", "128",
    "--model.num_clusters", "6", "--model.confidence_threshold", "relative", "--model.importance_samples", "8",
    "--data.root", "data/nw-ucla", "--data.protocol", "x-view", "--data.batch_size", "32", "--model.num_frames", "16",
)  # fmt: skip


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with an archive like the page's and `mypackage.py` made of its first two blocks."""
    monkeypatch.chdir(tmp_path)
    draw, layout = np.random.default_rng(0), SkeletonLayout.of("kinect-v1")
    protocols = {"x-view": {"column": "view", "train": [1, 2], "test": [3]}}
    recipe = {"normalize": "agcn"}
    with ArchiveWriter(
        tmp_path / "data" / "nw-ucla", layout=layout, num_bodies=1, class_names=("a", "b"), protocols=protocols,
        recipe=recipe,
    ) as writer:  # fmt: skip
        for i in range(99):
            writer.add(f"clip{i}", draw.normal(size=(20 + i % 9, 20, 1, 3)), label=i % 2, view=1 + i % 3)
    (tmp_path / "mypackage.py").write_text(BLOCKS[0] + "\n\n" + BLOCKS[1])
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mypackage", None)


def _fits() -> list[list[str]]:
    return [arguments for arguments in COMMANDS if arguments[0] == "fit"]


@pytest.mark.parametrize("arguments", _fits(), ids=" ".join)
def test_every_fit_of_the_page_trains_what_it_says(workplace, arguments, capsys):
    smaller = (
        ["--model.base_args", '{"hidden_channels": 2, "feature_size": 8}'] if "skeletonclr" in str(arguments) else []
    )
    assert main([*arguments, *QUICK, *smaller, "--trainer.default_root_dir", "run"]) == 0, capsys.readouterr().err
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    options = content["hyper_parameters"]
    named = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    assert options["base"] == named.get("--model.base", "skeletonclr")
    if "--model.base_args" in named and not smaller:
        assert options["base_args"] == yaml.safe_load(named["--model.base_args"])
    assert len(content["state_dict"]["codebook.centroids"]) == (0 if "--model.semantic" in named else 6)
    assert main(["knn", "--ckpt", "run/checkpoints/last.ckpt", "--data.root", "data/nw-ucla"]) == 0
    assert "top-1" in capsys.readouterr().out


def test_the_page_names_every_base():
    named = set(re.findall(r"`([\w-]+)`", "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))))
    assert set(BASES) <= named


def test_python_code_runs_to_the_end(workplace, monkeypatch):
    quick = functools.partial(
        pl.Trainer, accelerator="cpu", enable_progress_bar=False, logger=False, enable_checkpointing=False
    )
    monkeypatch.setattr(pl, "Trainer", quick)
    assert len(BLOCKS) == 4
    names: dict = {}
    exec(BLOCKS[2], names)  # the page is ours
    model, trainer = names["model"], names["trainer"]
    assert model.stage == "semantic"
    assert sorted(model.banks) == ["instance", "motion"]
    measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
    parts = ("contrast", "kl", "semantic_query", "semantic_branch")
    expected = sum(measured[f"epoch/{name}"] for name in parts) + 0.5 * measured["epoch/spread"]
    assert measured["epoch/loss"] == pytest.approx(expected, rel=1e-5)
    assert measured["epoch/contrast"] == pytest.approx(measured["epoch/instance"] + measured["epoch/motion"], rel=1e-5)

    exec(BLOCKS[3], names)
    again = names["again"]
    assert (again.spread_weight, again.hparams["base"]) == (0.5, "mypackage.MyMethod")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert names["features"].shape == (1, 128)


def test_a_subclass_stores_the_layout_as_plain_data(tmp_path):
    class Own(ProSLModule):
        def __init__(self, extra: int = 3, **options):
            super().__init__(**options)

    layout = SkeletonLayout.of("kinect-v1").to_dict() | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(layout))
    module = Own(extra=4, layout=str(tmp_path / "mine.yaml"), base_args={"hidden_size": 8}, crop_ratio=(0.5, 1.0))
    assert module.hparams["layout"] == layout
    assert (module.hparams["extra"], module.hparams["crop_ratio"]) == (4, [0.5, 1.0])
