"""`prosl fit`: train an encoder from a configuration, options and environment variables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prosl_lightning._lightning import pl, submodule
from prosl_lightning.commands.fit_several import Several, add_options, check_seed, runs_of, train
from prosl_lightning.commands.parsing import (
    ShortUsageParser,
    resolve_arguments,
    short_message,
)
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.commands.run_folder import (
    KEPT,
    SaveConfig,
    check_not_put_aside,
    check_resumable,
    keep_missed,
    put_aside,
)
from prosl_lightning.commands.stopping import StopCleanly, clean_exits, plugins
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError, MissingExtraError, ProSLError, UsageError
from prosl_lightning.figures.callback import FigureLogger
from prosl_lightning.prosl.checkpoint_io import newest_checkpoint
from prosl_lightning.prosl.checks import check_data
from prosl_lightning.prosl.initialise import load_initial_weights
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.tables import counted
from prosl_lightning.tracking import WandbRun, complete_wandb

_cli = submodule("cli")
_callbacks = submodule("callbacks")
_loggers = submodule("loggers")
_Misconfiguration: type[Exception] = submodule("utilities.exceptions").MisconfigurationException

_DESCRIPTION = (
    "Train an encoder. Every option can stand in a configuration, in the environment (PROSL_FIT__DATA__ROOT for "
    "--data.root), or on the command line; the later of these wins."
)
# What `--help` shows for options that are read from the archive.
_FROM_ARCHIVE = {"layout": "from the archive", "num_bodies": 0}


class _Parser(ShortUsageParser, _cli.LightningArgumentParser):  # type: ignore[name-defined]
    """Lightning's parser with short errors."""


class StageProgressBar(_callbacks.TQDMProgressBar):  # type: ignore[name-defined]
    """Lightning's progress bar with the name of the stage, and with the losses of all models side by side.

    Attributes:
        beside: The models that share the bar, by name; nothing where there is one.
    """

    beside: Mapping[str, ProSLModule] = {}

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Lightning's metrics, without the run's version number, and the stage by name."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if self.beside:
            metrics = {name: module.latest_loss for name, module in self.beside.items()}
        return metrics | {"stage": getattr(pl_module, "stage", "")}


class FitCLI(_cli.LightningCLI):  # type: ignore[name-defined]
    """LightningCLI with fixed classes, whose model takes its skeleton from the archive.

    Attributes:
        first: False for all but the first of several models side by side: what they share is checked and told once.
    """

    first = True

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
        add_options(parser)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse; where one command line stands for several runs, leave it with their configurations."""
        super().parse_arguments(parser, args)
        check_seed(int(self.config.fit.seed_everything), "--seed_everything")
        if runs := runs_of(self.config.fit, self._parser("fit")):
            raise Several(runs, self.config.fit.shared_codebook)

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration as given: Lightning would put the checkpoint's over it, command line included."""

    def _add_instantiators(self) -> None:
        """Keep hyper-parameters plain: Lightning would add a function's path, which the other Lightning refuses."""

    def before_instantiate_classes(self) -> None:
        """Take the skeleton from the archive, and find the checkpoint that `last` means."""
        config = self.config[self.subcommand]
        if config.checkpoint_every < 1:
            raise UsageError(f"checkpoint_every is {config.checkpoint_every}; it must be at least 1")
        if "WandbLogger" in str(config.trainer.logger) and find_spec("wandb") is None:
            raise MissingExtraError("wandb", "wandb")
        archive = Archive.open(config.data.root)
        found = {"layout": archive.layout.to_plain(), "num_bodies": archive.num_bodies}
        for name, value in found.items():
            if config.model[name] == _FROM_ARCHIVE[name]:
                config.model[name] = value
            elif config.model[name] != value:
                raise DataError(f"model.{name} is {config.model[name]}, the archive {config.data.root} has {value}")
        if config.get("ckpt_path") == "last":
            config.ckpt_path = str(newest_checkpoint(Path(config.trainer.default_root_dir)))
        if config.model.init_from and not config.get("ckpt_path"):
            check_not_put_aside(config.model.init_from, Path(config.trainer.default_root_dir))
        self._to_save = config.clone()  # without the W&B run's number, which a fresh run must not take over
        complete_wandb(config.trainer.logger, Path(config.trainer.default_root_dir), config.get("ckpt_path"))

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; what Lightning says about an option that cannot be becomes one line."""
        try:
            super().instantiate_classes()
        except ProSLError:
            raise
        except (ValueError, TypeError, ModuleNotFoundError, _Misconfiguration) as error:
            raise UsageError(short_message(str(error).strip() or repr(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """A trainer with a CSV log, checkpoints, the saved configuration and the stage in the progress bar."""
        options = self._get(self.config_init, "trainer")
        root = Path(options.default_root_dir)
        loggers = _with_csv(options.logger, root)
        given = options.callbacks or []
        given = given if isinstance(given, list | tuple) else [given]
        save = SaveConfig(self._parser(self.subcommand), self._to_save, root)
        callbacks: list[Any] = [*given, save, StopCleanly()]

        def lacks(kind: type) -> bool:
            return not any(isinstance(callback, kind) for callback in given)

        if lacks(_callbacks.ModelCheckpoint) and options.enable_checkpointing is not False:
            callbacks += _checkpoints(root / "checkpoints", self._get(self.config_init, "checkpoint_every"))
        if lacks(_callbacks.ProgressBar) and options.enable_progress_bar is not False:
            callbacks.append(StageProgressBar(refresh_rate=5))
        if lacks(FigureLogger) and any(hasattr(logger, "log_image") for logger in loggers or []):
            callbacks.append(FigureLogger())
        if lacks(WandbRun) and any(isinstance(logger, _loggers.WandbLogger) for logger in loggers or []):
            callbacks.append(WandbRun())
        kwargs["plugins"] = plugins(options.plugins)
        return super().instantiate_trainer(logger=loggers, callbacks=callbacks, **kwargs)

    @property
    def checkpoint(self) -> str | None:
        """What the run goes on from."""
        return self.config_init[self.subcommand].get("ckpt_path")

    def before_fit(self) -> None:
        """Refuse what cannot work before anything is written, and say what is going to be trained."""
        self.datamodule.setup("fit")
        if self.trainer.is_global_zero and self.first:  # seconds per gigabyte, once before hours of training
            self.datamodule.archive.verify()
        check_data(self.model, self.datamodule, self.trainer.world_size)
        checkpoint = self.checkpoint
        if self.model.hparams["init_from"] and not checkpoint:
            load_initial_weights(self.model, self.model.hparams["init_from"])
        done = check_resumable(Path(checkpoint), self.model, self.datamodule) if checkpoint else 0
        if self.trainer.is_global_zero:
            if self.first:
                _announce(self.model, self.datamodule, self.trainer)
            if not checkpoint:
                put_aside(Path(self.trainer.default_root_dir))
            else:
                if Path(checkpoint) == Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt":
                    keep_missed(Path(checkpoint), done, self._get(self.config_init, "checkpoint_every"))
                print(f"going on from {checkpoint}, {counted(done, 'epoch')} done", flush=True)

    def after_fit(self) -> None:
        """Say where the result is."""
        last = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if self.trainer.is_global_zero and last.is_file():
            epochs = counted(self.trainer.max_epochs or 0, "epoch")
            print(f"\n{last}: {self.trainer.current_epoch} of {epochs} done; judge it:")
            print(f"  prosl knn --ckpt {last} --data.root {self.datamodule.root}")


def _announce(module: ProSLModule, data: SkeletonDataModule, trainer: pl.Trainer) -> None:
    options, layout = module.hparams, module.layout
    weights = sum(parameter.numel() for parameter in module.query_encoder.parameters())
    print(f"model  {options['base']}, {weights / 1e6:.2f} million weights, {options['stream']} stream")
    print(
        f"data   {data.root}, {data.protocol}: {counted(data.num_samples, 'sequence')} for training, "
        f"{counted(layout.num_joints, 'joint')} ({layout.name}), {counted(data.num_bodies, 'body', 'bodies')}"
    )
    semantic = f"semantic from epoch {options['semantic_start']}" if options["semantic"] else "no semantic stage"
    if options["semantic"] and options["semantic_start"] >= (trainer.max_epochs or 0) > 0:
        semantic += ", which this run does not reach"
    print(f"run    {trainer.default_root_dir}: max_epochs {trainer.max_epochs}, {semantic}", flush=True)


def _with_csv(configured: Any, root: Path) -> Any:
    """A CSV logger and the user's loggers; False stays: no log at all."""
    if configured is False:
        return False
    loggers = list(configured) if isinstance(configured, list | tuple) else [configured]
    loggers = [logger for logger in loggers if logger not in (None, True)]
    if not any(isinstance(logger, _loggers.CSVLogger) for logger in loggers):
        loggers.append(_loggers.CSVLogger(root, name="logs"))
    # Lightning calls the first logger's folder the run's, and only the CSV logger has one for each run.
    return sorted(loggers, key=lambda logger: not isinstance(logger, _loggers.CSVLogger))


class _LastCheckpoint(_callbacks.ModelCheckpoint):  # type: ignore[name-defined]
    """Lightning tells two checkpoint callbacks apart by their classes where their intervals are the same."""


def _checkpoints(folder: Path, every: int) -> list[Any]:
    """`last.ckpt` after every epoch, and one that is kept every so many epochs."""
    shared = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    name = {"filename": KEPT, "auto_insert_metric_name": False}
    kept = _callbacks.ModelCheckpoint(**shared, **name, every_n_epochs=every, save_top_k=-1)
    return [_LastCheckpoint(**shared, filename="last", every_n_epochs=1), kept]


class _BuiltCLI(FitCLI):
    """One of several runs: built, but trained with the others."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Leave it to `train`."""


def _run(kind: type[FitCLI], arguments: dict[str, Any] | None = None) -> FitCLI:
    return kind(
        ProSLModule,
        SkeletonDataModule,
        args=arguments,
        seed_everything_default=0,
        save_config_callback=None,
        parser_class=_Parser,
        parser_kwargs={"prog": "prosl", "fit": {"description": _DESCRIPTION}},
        trainer_defaults={"default_root_dir": "runs/prosl", "max_epochs": 450, "enable_model_summary": False},
        auto_configure_optimizers=False,
    )


@clean_exits()
def main(arguments: Sequence[str]) -> None:
    """Run `prosl fit`."""
    silence_lightning()
    rest, saved = resolve_arguments(arguments), sys.argv
    # LightningCLI warns when it is given arguments beside the process's own, and starts further processes from these.
    sys.argv = [saved[0], "fit", *rest]
    try:
        _run(FitCLI)
    except Several as several:
        sys.argv = saved[:1]
        train(
            several.runs,
            lambda run: _run(_BuiltCLI, {"subcommand": "fit", "fit": run}),
            shared_codebook=several.shared_codebook,
        )
    finally:
        sys.argv = saved
