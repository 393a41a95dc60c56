"""Weights & Biases: data recipe, codebook and checkpoint of a pre-training in its run, and its evaluations afterwards.

`docs/wandb.md` describes what a run holds. Nothing here imports wandb before there is a `WandbLogger`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prosl_lightning._lightning import pl, submodule
from prosl_lightning.errors import DataError, MissingExtraError, ProSLError
from prosl_lightning.evaluation.fingerprint import versions
from prosl_lightning.evaluation.report import RESULTS, read_results
from prosl_lightning.prosl.importance import mask_probability
from prosl_lightning.prosl.module import ProSLModule

RUN_FILE = "wandb-run.json"
"""Names the W&B run in the folder of a `prosl fit` run."""
# Of a trainer; the model's options are logged by Lightning itself.
_TRAINER = (
    "max_epochs",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "world_size",
    "log_every_n_steps",
)

_EVALUATIONS: list[str | int] = ["evaluation", "checkpoint", "epochs", "data", "split", "measure", "value", "date"]


class WandbRun(pl.Callback):
    """Puts into the run of a `WandbLogger` what Lightning leaves out.

    At the start: the data's recipe, batch size, trainer and versions, into the run's config. At the end: two tables of
    the codebook, and the artifacts `codebook-RUN` (one npz file, :func:`codebook_arrays`) and `checkpoint-RUN`
    (`last.ckpt`). All of it also offline, where Lightning's `log_model` is refused. With other loggers nothing happens.

    Args:
        checkpoint: Whether the last checkpoint becomes an artifact; leave it out where Lightning's `log_model` does it.
        codebook: Whether the codebook becomes an artifact.
    """

    def __init__(self, checkpoint: bool = True, codebook: bool = True) -> None:
        self.checkpoint, self.codebook = checkpoint, codebook

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the config, and note in the run's folder which W&B run this is."""
        for logger in _wandb_loggers(trainer):
            run = logger.experiment
            run.config.update(_config(trainer), allow_val_change=True)
            note = {"project": run.project, "entity": run.entity or None, "id": run.id}
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RUN_FILE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log tables and artifacts."""
        loggers = _wandb_loggers(trainer)
        arrays: dict[str, NDArray[Any]] = {}
        if loggers and isinstance(pl_module, ProSLModule) and pl_module.codebook.is_built:
            arrays = codebook_arrays(pl_module, _datamodule(trainer))
        for logger in loggers:
            if arrays:
                _log_tables(logger, arrays, trainer.global_step)
            if arrays and self.codebook:
                _log_codebook(logger.experiment, arrays)
            if self.checkpoint and (path := _last_checkpoint(trainer)):
                _log_checkpoint(logger.experiment, path, trainer.current_epoch)


def complete_wandb(loggers: Any, run_folder: Path, checkpoint: str | None) -> None:
    """Complete the options of every `WandbLogger` in a configuration of `prosl fit`; what a user gave stays.

    Its files go to the run's folder. A run that goes on from a checkpoint in its own folder goes on with the W&B run
    that is noted there, unless an id or another project is given.

    Args:
        loggers: `trainer.logger`: classes with options, before they are instantiated.
        run_folder: `trainer.default_root_dir`.
        checkpoint: What the run goes on from.
    """
    for logger in loggers if isinstance(loggers, list | tuple) else [loggers]:
        if not str(getattr(logger, "class_path", "")).endswith("WandbLogger"):
            continue
        options = logger.init_args
        if options.get("save_dir", "") in (None, "."):  # Lightning's default, which hides `dir`
            options["save_dir"] = str(options.get("dir") or run_folder)
        note = _noted_run(run_folder, checkpoint)
        given = options.get("version") or options.get("id") or os.environ.get("WANDB_RUN_ID")
        project = options.get("project") or os.environ.get("WANDB_PROJECT") or note.get("project")
        if note and not given and project == note["project"] and "id" in options and "project" in options:
            options["id"], options["project"] = note["id"], project


def _noted_run(run_folder: Path, checkpoint: str | None) -> dict[str, Any]:
    """The W&B run of a folder where a checkpoint in it is gone on from; nothing else belongs to that run."""
    file, folder = run_folder / RUN_FILE, run_folder.resolve()
    if not checkpoint or not file.is_file() or not Path(checkpoint).resolve().is_relative_to(folder):
        return {}
    if re.fullmatch(r"checkpoints-\d+", Path(checkpoint).resolve().relative_to(folder).parts[0]):
        return {}  # of an earlier run in this folder
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if {"project", "id"} <= set(found) else {}
    except (OSError, ValueError):
        return {}


def codebook_arrays(module: ProSLModule, datamodule: Any = None) -> dict[str, NDArray[Any]]:
    """The codebook as plain arrays, readable without this library.

    Args:
        module: A trained module.
        datamodule: Its data, after `setup`, for the samples' names and classes; they are left out where it has none.

    Returns:
        `centroids` (k, D) of unit length, `assignment` (N,), `importance` (V,) or (N, V), `mask_probability` alike
        (Eq. 8), both empty where the third branch needs none, `joints` (V,), `epoch` it was built for; `names` (N,),
        `labels` (N,), -1 unknown, and `class_names`.
    """
    codebook, importance = module.codebook, module.codebook.importance
    arrays: dict[str, NDArray[Any]] = {
        "centroids": codebook.centroids.cpu().numpy(),
        "assignment": codebook.assignment.cpu().numpy(),
        "importance": importance.cpu().numpy(),
        "mask_probability": (mask_probability(importance) if importance.numel() else importance).cpu().numpy(),
        "joints": np.array(module.layout.joints),
        "epoch": codebook.epoch.cpu().numpy(),
    }
    archive, rows = getattr(datamodule, "archive", None), getattr(datamodule, "train_rows", None)
    if archive is not None and rows is not None:
        arrays["names"] = np.array([archive.names[row] for row in rows])
        arrays["labels"] = archive.labels[rows]
        arrays["class_names"] = np.array(archive.class_names, dtype=str)
    return arrays


def log_results(run_folder: str | Path) -> int:
    """Add what `prosl knn`, `linear` and their like found to the W&B run that trained the encoder.

    The newest value of each measure stands in the run's summary as `EVALUATION/DATA-SPLIT/MEASURE`, of the last
    checkpoint; all of them, of all checkpoints, in the table `evaluations`.

    Args:
        run_folder: Folder of `prosl fit`, `trainer.default_root_dir`.

    Returns:
        How many results there were.

    Raises:
        DataError: It is not the folder of a run with W&B, or nothing was evaluated yet.
        MissingExtraError: wandb is not installed.
    """
    folder = Path(run_folder)
    note = folder / RUN_FILE
    if not note.is_file():
        raise DataError(f"{folder} holds no {RUN_FILE}: it was not trained with WandbLogger and WandbRun")
    results = folder / "checkpoints" / RESULTS
    rows = read_results(results)
    if not rows:
        raise DataError(f"there is no {results}: evaluate first, e.g. prosl knn --ckpt {folder}/checkpoints/last.ckpt")
    if find_spec("wandb") is None:
        raise MissingExtraError("wandb", "wandb")
    import wandb

    lines: list[list[Any]] = []
    summary: dict[str, float] = {}
    for row in rows:
        files = " + ".join(Path(each["path"]).name for each in row["checkpoints"])
        epochs = max(each["epochs"] for each in row["checkpoints"])
        data, split = row["data"].get("name", "data"), row["protocol"]["split"]
        for measure, value in row["numbers"].items():
            lines.append([row["evaluation"], files, epochs, data, split, measure, value, row["date"]])
            if files == "last.ckpt" and value is not None:
                summary[f"{row['evaluation']}/{data}-{split}/{measure}"] = value
    with wandb.init(**json.loads(note.read_text(encoding="utf-8")), dir=folder, resume="allow") as run:
        run.log({"evaluations": wandb.Table(columns=_EVALUATIONS, data=lines)})
        run.summary.update(summary)
    return len(rows)


def _wandb_loggers(trainer: pl.Trainer) -> list[Any]:
    kind = submodule("loggers").WandbLogger
    return [logger for logger in trainer.loggers if isinstance(logger, kind)] if trainer.is_global_zero else []


def _datamodule(trainer: pl.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)


def _config(trainer: pl.Trainer) -> dict[str, Any]:
    datamodule = _datamodule(trainer)
    recipe = {key: value for key, value in getattr(datamodule, "recipe", {}).items() if key != "layout"}
    if hasattr(datamodule, "batch_size"):
        recipe["batch_size"] = datamodule.batch_size
    options = {name: getattr(trainer, name, None) for name in _TRAINER}
    return {"data": recipe, "trainer": options, "versions": versions()}


def _last_checkpoint(trainer: pl.Trainer) -> Path | None:
    """`last.ckpt` of `prosl fit`, else the newest file that any checkpoint callback wrote."""
    written = [Path(callback.last_model_path or callback.best_model_path or ".") for callback in _savers(trainer)]
    files = [path for path in written if path.is_file()]
    return max(files, key=lambda path: (path.stem == "last", path.stat().st_mtime), default=None)


def _savers(trainer: pl.Trainer) -> Sequence[Any]:
    return [each for each in trainer.checkpoint_callbacks if hasattr(each, "best_model_path")]


def _log_tables(logger: Any, arrays: dict[str, NDArray[Any]], step: int) -> None:
    logger.log_table("codebook/clusters", *_clusters(arrays), step=step)
    if not arrays["importance"].size:
        return
    importance = arrays["importance"].reshape(-1, len(arrays["joints"])).mean(axis=0)
    probability = mask_probability(torch.from_numpy(importance)).numpy()
    joints = zip(arrays["joints"].tolist(), importance.tolist(), probability.tolist(), strict=True)
    logger.log_table(
        "codebook/joints", ["joint", "semantic coefficient", "masking probability"], list(map(list, joints)), step=step
    )


def _clusters(arrays: dict[str, NDArray[Any]]) -> tuple[list[str], list[list[Any]]]:
    """A row a cluster, largest first; with the commonest class and its share where classes are known."""
    assignment, rows = arrays["assignment"], []
    labels, names = arrays.get("labels"), arrays.get("class_names")
    named = names is not None and len(names) > 0 and labels is not None and bool((labels >= 0).any())
    for cluster in range(len(arrays["centroids"])):
        members = assignment == cluster
        row: list[Any] = [cluster, int(members.sum())]
        if named and labels is not None and names is not None:
            known = labels[members & (labels >= 0)]
            counts = np.bincount(known, minlength=len(names))
            top = int(counts.argmax())
            row += [str(names[top]), float(counts[top] / len(known))] if len(known) else ["", None]
        rows.append(row)
    rows.sort(key=lambda row: -row[1])
    return ["cluster", "sequences", *(["commonest class", "its share"] if named else [])], rows


def _log_codebook(run: Any, arrays: dict[str, NDArray[Any]]) -> None:
    import wandb

    described = {"clusters": len(arrays["centroids"]), "sequences": len(arrays["assignment"])}
    artifact = wandb.Artifact(
        f"codebook-{run.id}", type="codebook", metadata=described | {"epoch": int(arrays["epoch"])}
    )
    with artifact.new_file("codebook.npz", mode="wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    run.log_artifact(artifact)


def _log_checkpoint(run: Any, path: Path, epochs: int) -> None:
    import wandb

    artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model", metadata={"epochs": epochs})
    artifact.add_file(os.fspath(path), name=path.name)
    run.log_artifact(artifact)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m prosl_lightning.tracking RUN_FOLDER ...")
    try:
        for argument in sys.argv[1:]:
            print(f"{argument}: {log_results(argument)} results logged")
    except ProSLError as error:
        sys.exit(f"error: {error}")
