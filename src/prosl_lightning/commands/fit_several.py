"""`prosl fit --streams ... --seeds ...`: the runs this stands for, each an ordinary one, trained side by side."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prosl_lightning._lightning import submodule
from prosl_lightning.commands.stopping import INTERRUPTED, Terminated
from prosl_lightning.errors import DataError, ProSLError, UsageError
from prosl_lightning.prosl.callback import CodebookCallback
from prosl_lightning.prosl.checkpoint_io import newest_checkpoint
from prosl_lightning.prosl.shared_clusters import SharedClusters
from prosl_lightning.prosl.side_by_side import SideBySide
from prosl_lightning.skeleton import STREAMS
from prosl_lightning.tables import counted

if TYPE_CHECKING:
    from prosl_lightning.commands.fit import FitCLI

_ProgressBar = submodule("callbacks").ProgressBar

_HELP = {
    "streams": "train several streams side by side, e.g. joint,bone,motion; each in its folder of default_root_dir",
    "seeds": "train with several seeds side by side, e.g. 0,1,2",
    "shared_codebook": "cluster the features of all streams together; the models of one seed have the labels in common",
}
# Starting the group again would put aside the checkpoints of the other models.
_GOES_ON = r"start again with (.*), without --ckpt_path$", r"go on with \1 and --ckpt_path last"


class Several(Exception):
    """Carries the configurations of several runs out of the parsing of one command line."""

    def __init__(self, runs: list[dict[str, Any]], shared_codebook: bool) -> None:
        super().__init__(f"{len(runs)} runs")
        self.runs, self.shared_codebook = runs, shared_codebook


def add_options(parser: Any) -> None:
    """Add `--streams`, `--seeds` and `--shared_codebook`."""
    parser.add_argument("--streams", type=str | list[str] | None, default=None, help=_HELP["streams"])
    parser.add_argument("--seeds", type=int | str | list[int] | None, default=None, help=_HELP["seeds"])
    parser.add_argument("--shared_codebook", type=bool, default=False, help=_HELP["shared_codebook"])


def runs_of(config: Any, parser: Any) -> list[dict[str, Any]]:
    """Configurations of the single runs that `--streams` and `--seeds` stand for.

    Args:
        config: The parsed options of `prosl fit`.
        parser: The parser they came from.

    Returns:
        For each stream and seed the options of an ordinary run in a folder of its own, as plain data; nothing where
        neither option is given.

    Raises:
        UsageError: A stream is unknown, something is given twice, or one stream cannot share.
        DataError: `--ckpt_path last`, and no run has a checkpoint.
    """
    if config.shared_codebook and (config.streams is None or len(_streams(config)) < 2):
        raise UsageError("--shared_codebook is for several streams: give them by --streams, e.g. joint,bone,motion")
    if config.streams is None and config.seeds is None:
        return []
    streams, seeds = _streams(config), _seeds(config)
    shared = yaml.safe_load(parser.dump(config, skip_none=False, skip_validation=True))
    for name in ("streams", "seeds", "shared_codebook", "config"):
        shared.pop(name, None)
    root = Path(config.trainer.default_root_dir)
    folders = {(stream, seed): root / f"{stream}-{seed}" for seed, stream in itertools.product(seeds, streams)}
    checkpoints = _checkpoints(config.get("ckpt_path"), root, list(folders.values()))
    runs = []
    for ((stream, seed), folder), checkpoint in zip(folders.items(), checkpoints, strict=True):
        run = yaml.safe_load(yaml.safe_dump(shared))  # its own copy of what is nested
        run |= {"seed_everything": seed, "ckpt_path": checkpoint}
        run["data"]["stream"] = stream
        run["trainer"]["default_root_dir"] = str(folder)
        _separate(run["trainer"], folder.name)
        runs.append(run)
    return runs


def check_seed(seed: int, option: str) -> int:
    """Refuse what numpy takes for no seed.

    Raises:
        UsageError: Names the option.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"{option}: {seed} is no seed; expected whole numbers from 0 to {2**32 - 1}")
    return seed


def _streams(config: Any) -> list[str]:
    if config.streams is None:
        return [config.data.stream]
    streams = _listed(config.streams)
    for stream in streams:
        if stream not in STREAMS:
            raise UsageError(f"--streams: there is no stream '{stream}'; choose among {', '.join(STREAMS)}")
    if config.data.stream != STREAMS[0]:
        raise UsageError(
            f"data.stream is {config.data.stream} and --streams {','.join(streams)}: give only one of them"
        )
    return _once(streams, "streams")


def _seeds(config: Any) -> list[int]:
    if config.seeds is None:
        return [int(config.seed_everything)]
    seeds = []
    for seed in _listed(config.seeds):
        if not re.fullmatch(r"\d+", seed):
            raise UsageError(f"--seeds: '{seed}' is no seed; expected whole numbers from 0, e.g. 0,1,2")
        seeds.append(check_seed(int(seed), "--seeds"))
    return _once(seeds, "seeds")


def _listed(given: Any) -> list[str]:
    """`a,b`, `[a, b]` or a list, as a list of strings."""
    parts = given.strip("[] ").split(",") if isinstance(given, str) else given if isinstance(given, list) else [given]
    return [str(part).strip() for part in parts]


def _once(values: list[Any], option: str) -> list[Any]:
    twice = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
    if twice:
        raise UsageError(f"--{option}: {', '.join(twice)} is given more than once")
    return values


def _checkpoints(ckpt_path: Any, root: Path, folders: Sequence[Path]) -> list[str | None]:
    """Where each run goes on: they do not depend on each other, so each from its own newest checkpoint."""
    if ckpt_path is None:
        return [None] * len(folders)
    if ckpt_path != "last":
        raise UsageError(f"--ckpt_path is {ckpt_path}; with --streams or --seeds it can only be 'last'")
    found: list[str | None] = []
    for folder in folders:
        try:
            found.append(str(newest_checkpoint(folder)))
        except DataError:  # stopped before the end of its first epoch
            found.append(None)
    if not any(found):
        names = ", ".join(folder.name for folder in folders)
        raise DataError(f"--ckpt_path last: no complete checkpoint in {names} of {root}; start without --ckpt_path")
    return found


def _separate(trainer: dict[str, Any], name: str) -> None:
    """Keep apart what would be shared by all models: checkpoints in a folder of the user's, and W&B's run."""
    for callback in _classes(trainer["callbacks"], "ModelCheckpoint"):
        if callback.get("dirpath"):
            callback["dirpath"] = str(Path(callback["dirpath"]) / name)
    for logger in trainer["logger"] if isinstance(trainer["logger"], list) else [trainer["logger"]]:
        for options in _classes(logger, "WandbLogger"):
            if options.get("id") or options.get("version"):
                raise UsageError("trainer.logger: one W&B id is for one run, and each model has its own: leave id out")
            options["name"] = f"{options['name']}-{name}" if options.get("name") else name
            # Without it a process has one run at a time, and all models would log to that of the first.
            logger["dict_kwargs"] = (logger.get("dict_kwargs") or {}) | {"reinit": "create_new"}


def _classes(given: Any, kind: str) -> list[dict[str, Any]]:
    """Options of the classes of one name among callbacks or loggers."""
    found = [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, dict)]
    return [each.setdefault("init_args", {}) for each in found if str(each.get("class_path", "")).endswith(kind)]


def train(
    configs: Sequence[dict[str, Any]], build: Callable[[dict[str, Any]], FitCLI], *, shared_codebook: bool
) -> None:
    """Train several runs side by side.

    Args:
        configs: What :func:`runs_of` found.
        build: Makes model, data and trainer of one of them.
        shared_codebook: Whether the models of one seed have their semantic labels in common.

    Raises:
        ProSLError: Trainings failed; the others have come to their end.
    """
    folders = [Path(config["trainer"]["default_root_dir"]) for config in configs]
    runs: dict[str, FitCLI] = {}
    group = SideBySide()
    for folder, config in zip(folders, configs, strict=True):
        run = runs[folder.name] = build(config)
        run.first = len(runs) == 1
        group.add(folder.name, run.trainer, run.model, run.datamodule, run.checkpoint)
    if shared_codebook:
        _share_codebooks(runs)
    _share_the_bar(runs)
    for run in runs.values():
        run.before_fit()
    names = ", ".join(folder.name for folder in folders)
    print(f"{counted(len(folders), 'model')} side by side in {folders[0].parent}: {names}", flush=True)
    try:
        errors = group.fit()
    except (Terminated, KeyboardInterrupt) as stop:
        _tell_stop(stop, folders)
        if isinstance(stop, KeyboardInterrupt):
            raise SystemExit(INTERRUPTED) from None
        raise
    for name, run in runs.items():
        if name not in errors:
            run.after_fit()
    _suggest_fusion([folder for folder in folders if folder.name not in errors], configs[0]["data"]["root"])
    _raise(errors, begun=_begun(folders))


def _tell_stop(stop: Terminated | KeyboardInterrupt, folders: list[Path]) -> None:
    name = "Ctrl+C"
    if isinstance(stop, Terminated):
        name, stop.told = "SIGTERM", True
    how = "and --ckpt_path last" if _begun(folders) else "again, as there is no checkpoint yet"
    print(f"\nprosl fit: all models stopped by {name}; go on with the same command {how}", file=sys.stderr)


def _begun(folders: list[Path]) -> bool:
    return any((folder / "checkpoints" / "last.ckpt").is_file() for folder in folders)


def _share_codebooks(runs: dict[str, FitCLI]) -> None:
    """One clustering for the models of each seed."""
    for own in _by_seed(runs).values():
        shared = SharedClusters([runs[name].model for name in own])
        for name in own:
            callbacks = runs[name].trainer.callbacks
            given = [callback for callback in callbacks if isinstance(callback, CodebookCallback)]
            if given:
                given[0].shared = shared
            else:
                callbacks.insert(0, CodebookCallback(shared=shared))


def _by_seed(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of runs, `stream-seed`, of each seed."""
    of_seed: dict[str, list[str]] = {}
    for name in names:
        of_seed.setdefault(name.split("-")[1], []).append(name)
    return of_seed


def _share_the_bar(runs: dict[str, FitCLI]) -> None:
    """One progress bar for all, that of the first model; the models are at the same place."""
    models = {name: run.model for name, run in runs.items()}
    for run in runs.values():
        for bar in [each for each in run.trainer.callbacks if isinstance(each, _ProgressBar)]:
            if run.first:
                bar.beside = models
            else:
                run.trainer.callbacks.remove(bar)


def _suggest_fusion(folders: list[Path], data: str) -> None:
    """How the streams of one seed are judged together."""
    of_name = {folder.name: folder / "checkpoints" / "last.ckpt" for folder in folders}
    for names in _by_seed(of_name).values():
        files = [of_name[name] for name in names]
        if len(files) > 1 and all(file.is_file() for file in files):
            print(f"together:\n  prosl knn --ckpt '[{', '.join(map(str, files))}]' --data.root {data}")


def _raise(errors: dict[str, BaseException], begun: bool) -> None:
    """One error for all: those of data and files with the models' names, any other as it is.

    Args:
        errors: By name.
        begun: Whether any model of the group has a checkpoint, so that one without starts under `--ckpt_path last`.
    """
    for error in errors.values():
        if not isinstance(error, ProSLError):
            raise error
    models_of: dict[str, list[str]] = {}
    for name, error in errors.items():
        text = re.sub(*_GOES_ON, str(error)) if begun else str(error)
        models_of.setdefault(text, []).append(name)
    if errors:
        text = "\n".join(f"{', '.join(names)}: {message}" for message, names in models_of.items())
        raise type(next(iter(errors.values())))(text)
