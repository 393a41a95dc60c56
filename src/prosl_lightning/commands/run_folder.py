"""What a run leaves in its folder beside checkpoints and logs, and how to find its newest checkpoint again."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from prosl_lightning._lightning import pl
from prosl_lightning.errors import DataError


class SaveConfig(pl.Callback):
    """Writes the complete configuration of a run beside its log, one file per run.

    Lightning's own callback stops at the second run in a folder.
    """

    def __init__(self, parser: Any, config: Any, subcommand: str, root: Path) -> None:
        self._parser, self._config, self._subcommand, self._root = parser, config, subcommand, root

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write `config.yaml`; it can be given to `prosl fit --config` again."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.log_dir or self._root)
        folder.mkdir(parents=True, exist_ok=True)
        parser = self._parser._subcommands_action._name_parser_map[self._subcommand]
        parser.save(self._config, folder / "config.yaml", skip_validation=True, overwrite=True, multifile=False)


def newest_checkpoint(run_folder: Path) -> Path:
    """The checkpoint of a run that was written last and is complete.

    Raises:
        DataError: The folder holds none; Lightning would silently start afresh.
    """
    folder = run_folder / "checkpoints"
    files = sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        if zipfile.is_zipfile(file):  # the table of contents stands at the end, so a cut-off file is none
            return file
    found = f"{len(files)} incomplete file(s)" if files else "nothing"
    raise DataError(f"--ckpt_path last: no complete checkpoint in {folder} (found {found}); start without --ckpt_path")


def report_changed_options(checkpoint: Path, model_options: dict[str, Any]) -> None:
    """Say on stderr which model options of a resumed run differ from those the checkpoint was trained with.

    Raises:
        DataError: The checkpoint does not exist or cannot be read.
    """
    if not checkpoint.is_file():
        raise DataError(f"--ckpt_path: there is no checkpoint {checkpoint}")
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["hyper_parameters"]
    except Exception as error:
        raise DataError(f"--ckpt_path: {checkpoint} is not a complete checkpoint of `prosl fit`") from error
    for name, value in model_options.items():
        before = stored.get(name, value)
        now = list(value) if isinstance(value, tuple) else value
        if before != now:
            print(f"prosl fit: model.{name} is now {now}, it was {before} in {checkpoint.name}", file=sys.stderr)
