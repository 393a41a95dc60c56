"""`prosl fit`: train an encoder from a configuration, options and environment variables."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prosl_lightning._lightning import NAMESPACE, pl, submodule
from prosl_lightning.allocator import keep_freed_memory
from prosl_lightning.commands.parsing import ShortUsageParser, resolve_config_arguments
from prosl_lightning.commands.run_folder import SaveConfig, newest_checkpoint, report_changed_options
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError
from prosl_lightning.prosl.module import ProSLModule

_cli = submodule("cli")
_callbacks = submodule("callbacks")
_loggers = submodule("loggers")

# What `--help` shows for options that are read from the archive.
_FROM_ARCHIVE = {"layout": "from the archive", "num_bodies": 0}


class _Parser(ShortUsageParser, _cli.LightningArgumentParser):  # type: ignore[misc, name-defined]
    """Lightning's parser with short errors."""


class StageProgressBar(_callbacks.TQDMProgressBar):  # type: ignore[misc, name-defined]
    """Lightning's progress bar with the name of the stage."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Lightning's metrics, without the run's version number, and the stage by name."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics | {"stage": getattr(pl_module, "stage", "")}


class FitCLI(_cli.LightningCLI):  # type: ignore[misc, name-defined]
    """LightningCLI with fixed classes, whose model takes its skeleton from the archive."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only `fit`: evaluation verbs have their own, shorter options."""
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

    def add_arguments_to_parser(self, parser: Any) -> None:
        """One seed and one stream for model and data, and how often checkpoints are kept."""
        parser.link_arguments("data.stream", "model.stream")
        for target in ("model.seed", "data.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=int)
        parser.set_defaults({f"model.{name}": value for name, value in _FROM_ARCHIVE.items()})
        parser.add_argument("--checkpoint_every", type=int, default=50, help="keep a checkpoint every so many epochs")

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration as given: Lightning would overwrite it with the checkpoint's, command line included."""

    def before_instantiate_classes(self) -> None:
        """Take the skeleton from the archive, and find the checkpoint that `last` means."""
        config = self.config[self.subcommand]
        archive = Archive.open(config.data.root)
        found = {"layout": archive.layout.to_plain(), "num_bodies": archive.num_bodies}
        for name, value in found.items():
            if config.model[name] == _FROM_ARCHIVE[name]:
                config.model[name] = value
            elif config.model[name] != value:
                raise DataError(f"model.{name} is {config.model[name]}, the archive {config.data.root} has {value}")
        if config.get("ckpt_path") == "last":
            config.ckpt_path = str(newest_checkpoint(Path(config.trainer.default_root_dir)))
        if config.get("ckpt_path"):
            report_changed_options(Path(config.ckpt_path), config.model.as_dict())

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """A trainer with a CSV log, checkpoints, the saved configuration and the stage in the progress bar."""
        options = self._get(self.config_init, "trainer")
        root = Path(options.default_root_dir)
        callbacks = list(options.callbacks or [])
        callbacks.append(SaveConfig(self.parser, self.config[self.subcommand], self.subcommand, root))
        if not any(isinstance(callback, _callbacks.ModelCheckpoint) for callback in callbacks):
            callbacks += _checkpoints(root / "checkpoints", self._get(self.config_init, "checkpoint_every"))
        has_bar = any(isinstance(callback, _callbacks.ProgressBar) for callback in callbacks)
        if options.enable_progress_bar is not False and not has_bar:
            callbacks.append(StageProgressBar(refresh_rate=5))
        return super().instantiate_trainer(logger=_with_csv(options.logger, root), callbacks=callbacks, **kwargs)


def _with_csv(configured: Any, root: Path) -> Any:
    """The user's loggers and a CSV logger beside them; False stays: no log at all."""
    if configured is False:
        return False
    loggers = list(configured) if isinstance(configured, list | tuple) else [configured]
    loggers = [logger for logger in loggers if logger not in (None, True)]
    if not any(isinstance(logger, _loggers.CSVLogger) for logger in loggers):
        loggers.insert(0, _loggers.CSVLogger(root, name="logs"))
    return loggers


def _checkpoints(folder: Path, every: int) -> list[Any]:
    """`last.ckpt` after every epoch, and one that is kept every so many epochs."""
    last = _callbacks.ModelCheckpoint(
        folder, filename="last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    kept = _callbacks.ModelCheckpoint(
        folder, filename="epoch-{epoch:04d}", auto_insert_metric_name=False, every_n_epochs=every, save_top_k=-1,
        save_on_train_epoch_end=True, enable_version_counter=False,
    )  # fmt: skip
    return [last, kept]


class _NoTips(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Drop Lightning's advertising lines."""
        return "Tip" not in record.getMessage()


def main(arguments: Sequence[str]) -> None:
    """Run `prosl fit`."""
    keep_freed_memory()
    logging.getLogger(f"{NAMESPACE}.utilities.rank_zero").addFilter(_NoTips())
    rest, saved = resolve_config_arguments(arguments), sys.argv
    sys.argv = ["prosl", "fit", *rest]  # LightningCLI warns when it is given arguments beside the process's own
    try:
        FitCLI(
            ProSLModule,
            SkeletonDataModule,
            seed_everything_default=0,
            save_config_callback=None,
            parser_class=_Parser,
            parser_kwargs={"prog": "prosl", "default_env": True, "env_prefix": "PROSL"},
            trainer_defaults={"default_root_dir": "runs/prosl", "max_epochs": 450},
            auto_configure_optimizers=False,
        )
    finally:
        sys.argv = saved
