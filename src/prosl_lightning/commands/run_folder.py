"""What a run leaves in its folder beside checkpoints and logs, and how a later run goes on from there."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import torch

from prosl_lightning._lightning import pl
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.fingerprint import epochs_done
from prosl_lightning.prosl.checkpoint_io import copy_atomically
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.tables import counted

# Names of the checkpoints that are kept, without suffix.
KEPT = "epoch-{epoch:04d}"


class SaveConfig(pl.Callback):
    """Writes the complete configuration of a run beside its log, one file per run.

    Lightning's own callback stops at the second run in a folder.

    Args:
        parser: The parser the configuration came from.
        config: The configuration.
        root: Folder for the file where the run has no log.
    """

    def __init__(self, parser: Any, config: Any, root: Path) -> None:
        self._parser, self._config, self._root = parser, config.clone(), root
        self._config.pop("ckpt_path", None)  # given to `prosl fit` again, it starts the same run anew

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write `config.yaml`; it can be given to `prosl fit --config` again."""
        folder = Path(trainer.log_dir or self._root)  # asked in every process: Lightning broadcasts the answer
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            self._parser.save(
                self._config, folder / "config.yaml", skip_validation=True, overwrite=True, multifile=False
            )


def put_aside(run_folder: Path) -> None:
    """Rename the checkpoints of an earlier run, so that a fresh one in the same folder destroys nothing."""
    folder = run_folder / "checkpoints"
    if any(folder.glob("*.ckpt")):
        number = next(n for n in itertools.count(1) if not (run_folder / f"checkpoints-{n}").exists())
        kept = folder.rename(run_folder / f"checkpoints-{number}")
        print(f"an earlier run's checkpoints are now in {kept}; `--ckpt_path last` would have gone on with them")


def check_not_put_aside(init_from: str, run_folder: Path) -> None:
    """Refuse to start a fresh run from a file that :func:`put_aside` would move away under it.

    Raises:
        UsageError: The file is one of the run's own checkpoints.
    """
    folder, given = (run_folder / "checkpoints").resolve(), Path(init_from)
    if any(place.is_relative_to(folder) for place in (given.parent.resolve(), given.resolve())):
        raise UsageError(
            f"--model.init_from: {init_from} is in the run's own folder, whose checkpoints a new run puts aside: give "
            "another --trainer.default_root_dir, or go on with --ckpt_path last"
        )


def keep_missed(last: Path, epochs: int, every: int) -> None:
    """Keep `last.ckpt` where the run was stopped just before it could.

    Args:
        last: The checkpoint to go on from.
        epochs: Epochs done in it.
        every: A checkpoint is kept every so many epochs.
    """
    kept = last.with_name(f"{KEPT.format(epoch=epochs - 1)}.ckpt")
    if epochs and epochs % every == 0 and not kept.exists():
        copy_atomically(last, kept)
        os.utime(last)  # `last` stays the newest


def check_resumable(checkpoint: Path, module: ProSLModule, data: SkeletonDataModule) -> int:
    """Refuse to go on from a checkpoint that does not fit, and say on stderr which model options have changed.

    Args:
        checkpoint: What `--ckpt_path` named.
        module: The module that is to go on.
        data: Its data, after `setup`.

    Returns:
        Epochs done.

    Raises:
        DataError: The file is missing or incomplete, or of another model or training set.
    """
    stored = _read(checkpoint)
    options = stored["hyper_parameters"]
    changes = [
        f"model.{name} was {options[name]}, is now {value}"
        for name, value in module.hparams.items()
        if name in options and options[name] != value and not name.startswith("_") and name != "init_from"
    ]
    stored["state_dict"].setdefault("input_scale", module.input_scale)  # runs from before the option
    # The codebook takes its shapes from the checkpoint.
    own, found = ({k: v.shape for k, v in d.items() if not k.startswith("codebook.")} for d in (
        module.state_dict(), stored["state_dict"],
    ))  # fmt: skip
    advice = "to start a new run from its encoder, use --model.init_from instead of --ckpt_path"
    rescaled = options.get("scale_input", False) != module.hparams["scale_input"]
    if own != found or rescaled:
        if rescaled and "scale_input" not in options:
            changes.append(f"model.scale_input was off, is now {module.hparams['scale_input']}")
        named = "; ".join(changes) or f"its {len(found)} entries are not this model's {len(own)}"
        raise DataError(f"--ckpt_path: {checkpoint} does not fit this run: {named}\n{advice}")
    before = stored.get("recipe", {}).get("num_samples", data.num_samples)
    if before != data.num_samples:
        raise DataError(
            f"--ckpt_path: {checkpoint} was trained on {counted(before, 'sequence')}, protocol '{data.protocol}' of "
            f"{data.root} has {data.num_samples}\n{advice}"
        )
    for change in changes:
        print(f"prosl fit: {change} ({checkpoint.name})", file=sys.stderr)
    return epochs_done(stored)


def _read(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        raise DataError(f"--ckpt_path: there is no checkpoint {checkpoint}")
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        if {"hyper_parameters", "state_dict", "epoch", "optimizer_states"} <= set(stored):
            return stored
    except Exception as error:
        raise DataError(f"--ckpt_path: {checkpoint} is not a complete checkpoint") from error
    raise DataError(
        f"--ckpt_path: {checkpoint} holds no training run; to start from its encoder, use --model.init_from"
    )
