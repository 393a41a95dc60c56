"""`prosl demo`: the whole method in minutes, on synthetic skeletons: train, compare, draw."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from prosl_lightning._lightning import NAMESPACE, pl, submodule
from prosl_lightning.commands.parsing import resolve_config, run_function
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.data.synthetic import write_archive
from prosl_lightning.evaluation.features import FeatureTables, extract_tables, load_module
from prosl_lightning.evaluation.knn import knn_accuracy
from prosl_lightning.evaluation.linear import linear_evaluation
from prosl_lightning.figures.demo import demo_figure
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.tables import counted, table

NUM_SAMPLES = 2400
# Small sets give few steps an epoch, so the linear layer gets more epochs than the paper's 80.
_LINEAR = {"epochs": 300, "milestones": (200, 270)}
_NEVER = 10**9


class Arm(NamedTuple):
    """One encoder of the comparison."""

    name: str
    checkpoint: Path
    tables: FeatureTables
    knn: float
    linear: float


def demo(*, out: str = "demo", seed: int = 0, tiny: bool = False) -> None:
    """Train a small encoder on a synthetic set; compare it with itself untrained and trained without the codebook.

    A warm-up (first stage: contrast and KL) is shared; then one arm goes on with it and one enters the semantic stage.
    Nearest-neighbour and linear accuracy on performers that were not trained on, and one figure.

    Args:
        out: Folder for the data, the checkpoints, the figure and the results.
        seed: Of the data, the initial weights and all draws.
        tiny: A run of seconds that only shows that everything works.
    """
    silence_lightning()
    logging.getLogger(NAMESPACE).setLevel(logging.ERROR)  # three fits would tell three times what they run on
    torch.set_num_threads(1)  # the model is too small to gain from more, and on a busy machine they wait for each other
    folder = Path(out)
    settings = yaml.safe_load(Path(resolve_config("demo")).read_text(encoding="utf-8"))
    model, epochs, batch_size = settings["model"], settings["trainer"]["max_epochs"], settings["data"]["batch_size"]
    samples = NUM_SAMPLES
    if tiny:
        samples, epochs, batch_size = 192, 3, 16
        model |= {"semantic_start": 1, "milestones": [2], "num_clusters": 8, "importance_samples": 8, "bank_size": 64}
    print(f"making {samples} synthetic sequences in {folder / 'data'} ...", flush=True)
    write_archive(folder / "data", num_samples=samples, seed=seed, overwrite=True)
    data = SkeletonDataModule(str(folder / "data"), settings["data"]["protocol"], batch_size=batch_size, seed=seed)
    data.setup()
    print(
        f"{data.num_samples} to train, {len(data.test_rows)} to test, {len(data.archive.class_names)} actions",
        flush=True,
    )
    began = time.perf_counter()
    arms = _train(folder, model | {"num_bodies": data.num_bodies, "seed": seed}, data, epochs)
    seconds = time.perf_counter() - began
    _report(folder, arms, data, seed, seconds)


def _train(folder: Path, model: dict[str, Any], data: SkeletonDataModule, epochs: int) -> list[Arm]:
    """Untrained, then the shared warm-up, then both arms from its checkpoint."""
    warm_up = model["semantic_start"]
    pl.seed_everything(model["seed"], verbose=False)
    module = ProSLModule(**model | {"semantic_start": _NEVER})
    untrained = folder / "untrained.ckpt"
    trainer = _trainer(folder, 0)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(untrained, weights_only=True)
    arms = [_evaluate("untrained", untrained, data)]
    print(f"warm-up, first stage: {counted(warm_up, 'epoch')}", flush=True)
    shared = _fit(folder, "warm-up", module, data, warm_up)
    rest = epochs - warm_up
    print(f"the first stage goes on without a codebook: {counted(rest, 'epoch')}", flush=True)
    alone = _fit(folder, "baseline", ProSLModule(**model | {"semantic_start": _NEVER}), data, epochs, shared)
    arms.append(_evaluate("without semantic stage", alone, data))
    print(f"semantic stage: {counted(rest, 'epoch')}", flush=True)
    arms.append(_evaluate("ProSL", _fit(folder, "prosl", ProSLModule(**model), data, epochs, shared), data))
    return arms


def _trainer(folder: Path, epochs: int) -> pl.Trainer:
    from prosl_lightning.commands.fit import StageProgressBar

    return pl.Trainer(
        accelerator="auto", devices=1, max_epochs=epochs, logger=submodule("loggers").CSVLogger(folder, name="logs"),
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[StageProgressBar(refresh_rate=2, leave=False)], log_every_n_steps=5,
    )  # fmt: skip


def _fit(
    folder: Path, name: str, module: ProSLModule, data: SkeletonDataModule, epochs: int, start: Path | None = None
) -> Path:
    trainer = _trainer(folder, epochs)
    trainer.fit(module, datamodule=data, ckpt_path=start)
    path = folder / f"{name}.ckpt"
    trainer.save_checkpoint(path)
    return path


def _evaluate(name: str, checkpoint: Path, data: SkeletonDataModule) -> Arm:
    tables = extract_tables(load_module(checkpoint), data)
    knn = knn_accuracy(tables.train, tables.train_labels, tables.test, tables.test_labels)
    linear = linear_evaluation(tables, len(data.archive.class_names), **_LINEAR)  # type: ignore[arg-type]
    return Arm(name, checkpoint, tables, knn, linear.accuracy)


def _report(folder: Path, arms: list[Arm], data: SkeletonDataModule, seed: int, seconds: float) -> None:
    rows = [[arm.name, arm.knn, arm.linear, str(arm.checkpoint)] for arm in arms]
    print("\n" + table(["encoder", "1-NN %", "linear %", "checkpoint"], rows))
    results = {"seed": seed, "seconds": round(seconds, 1), "test_sequences": len(data.test_rows)}
    results["arms"] = [{"encoder": arm.name, "knn": arm.knn, "linear": arm.linear} for arm in arms]  # type: ignore[assignment]
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    module = load_module(arms[-1].checkpoint)
    figure = demo_figure(
        [(arm.name, arm.tables) for arm in (arms[0], arms[-1])],
        data.archive,
        module.codebook.importance,
        [(arm.name, arm.knn, arm.linear) for arm in arms],
    )
    figure.savefig(folder / "demo.png", dpi=150)
    print(f"\nchance is {100 / len(data.archive.class_names):.1f} %; {seconds:.0f} s in all")
    print(f"figure: {folder / 'demo.png'}   numbers: {folder / 'results.json'}   curves: {folder / 'logs'}")


def main(arguments: Sequence[str]) -> None:
    """Run `prosl demo`."""
    run_function(demo, arguments, "demo")
