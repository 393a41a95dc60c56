"""`prosl sweep`: train and judge the arms of one of the paper's ablations, from one warm-up a seed."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosl_lightning.commands.parsing import ShortUsageParser, spell_out
from prosl_lightning.commands.quiet import silence_lightning
from prosl_lightning.commands.sweep_checks import check_sweep
from prosl_lightning.commands.sweep_plan import Arm, keep_plan, plan_arms, resolve_settings
from prosl_lightning.commands.sweep_run import SeedRuns, held, warm_ups
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.ablation import ablations, studies
from prosl_lightning.evaluation.ablation_table import study_csv, study_text
from prosl_lightning.figures.ablation import study_figure
from prosl_lightning.tables import counted, table

_SWITCHES = ("--dry_run", "--help", "-h")
_OWN = ("--seeds", "--only", "--points", "--linear_epochs", "--out", *_SWITCHES)
_LISTS = ("--only", "--points")
_USAGE = "prosl sweep NAME [options] [options of `prosl fit`]"


@dataclass(frozen=True)
class Sweep:
    """Options of `prosl sweep` that are not those of `prosl fit`; see :func:`sweep`."""

    name: str
    seeds: list[int]
    only: list[str]
    points: list[int]
    linear_epochs: int
    out: str | None
    dry_run: bool


def sweep(
    *,
    name: str,
    seeds: str = "0-4",
    only: str | None = None,
    points: str | None = None,
    linear_epochs: int = 80,
    out: str | None = None,
    dry_run: bool = False,
) -> Sweep:
    """Train and judge the arms of an ablation: prosl sweep NAME --config CONFIG [options of `prosl fit`].

    NAME is modules (Table 5: semantic clustering, normal and semantic branch), backbone (Table 6: ProSL on another base
    method), clusters (Figure 4a: number of centroids), start (Figure 4b: first semantic epoch) or readings (what the
    paper leaves open, one option at a time). The base method alone is an arm of each.

    Each seed has one warm-up by the base method alone, and all arms go on from its checkpoint. Sweeps of the same
    settings share their runs. What is done is not repeated, and what was stopped goes on where it was: give the same
    command again. It ends in a table beside the paper's and a figure.

    All options of `prosl fit` can be given: --data.root, --data.protocol, --data.stream, --model.base,
    --model.base_args, --model.num_frames, --model.semantic_start, --model.milestones, --model.num_clusters,
    --model.confidence_threshold, --trainer.max_epochs, --trainer.accelerator, --checkpoint_every and all others.

    Args:
        name: Which ablation: modules, backbone, clusters, start or readings.
        seeds: Of the runs, e.g. 0-4 or 0,2,5.
        only: Train these arms alone, by their names in --dry_run, e.g. base prosl; base and prosl are shown if done.
        points: Numbers of centroids or first semantic epochs, instead of the usual ones, e.g. 20 40 60.
        linear_epochs: Of the linear evaluation; small sets need more, e.g. 1000.
        out: Folder of all runs; the config's `trainer.default_root_dir` with protocol and `sweeps` where not given.
        dry_run: Only list the runs and what is done of them.
    """
    names = only.split(",") if only else []
    return Sweep(name, _numbers(seeds), names, _whole(points or ""), linear_epochs, out, dry_run)


def _whole(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError as error:
        raise UsageError(f"--points {text.replace(',', ' ')}: expected whole numbers, such as 20 40 60") from error


def _numbers(text: str) -> list[int]:
    found: set[int] = set()
    for part in text.split(","):
        numbers = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (1, 0)
        if last < first:
            raise UsageError(f"--seeds {text}: expected numbers and ranges of them, such as 0-4 or 0,2,5")
        found |= set(range(first, last + 1))
    return sorted(found)


def run_sweep(options: Sweep, fit_options: Sequence[str]) -> None:
    """Do what is not done, then print the table and write it, with the figure, into the sweep's folder.

    Args:
        options: Of the sweep.
        fit_options: Command line of `prosl fit`.

    Raises:
        ProSLError: An option cannot be, or a run failed.
    """
    if options.linear_epochs < 1:
        raise UsageError(f"--linear_epochs is {options.linear_epochs}; it must be at least 1")
    silence_lightning()
    settings = resolve_settings(fit_options)
    arms = plan_arms(options.name, settings, options.points, options.only)
    check_sweep(settings, arms, options.points)
    folder = Path(options.out or _default_folder(settings))
    seeds = [SeedRuns(folder, settings, seed, options.linear_epochs) for seed in options.seeds]
    keep_plan(folder, settings, write=not options.dry_run)
    print(_state(options.name, folder, seeds, arms), flush=True)
    damaged = [text for each in seeds for arm in arms if (text := each.damage(arm))]
    for text in damaged:
        print(f"warning: left out: {text}", file=sys.stderr)
    if options.dry_run:
        return
    for each in seeds:
        with held(each.root):
            for arm in arms:
                each.run(arm)
    # What others are compared with belongs into the table, also where --only leaves it out of the work.
    known = plan_arms(options.name, settings, options.points)
    _report(options.name, folder, seeds, [arm for arm in known if arm in arms or arm.name in ("base", "prosl")])
    if damaged:
        raise DataError(f"{counted(len(damaged), 'run')} left out: {'; '.join(damaged)}")


def _default_folder(settings: dict[str, Any]) -> str:
    return f"{settings['trainer']['default_root_dir']}-{settings['data']['protocol']}-sweeps"


def _state(name: str, folder: Path, seeds: Sequence[SeedRuns], arms: Sequence[Arm]) -> str:
    """What is to be run, and what is done of it."""
    lines: list[list[object]] = []
    for each in seeds:
        undone = [arm for arm in arms if each.state(arm) != "done"]
        lines += [
            [each.seed, run, f"0 to {arm.start}", each.warm_up_state(arm)] for run, arm in warm_ups(undone).items()
        ]
        lines += [[each.seed, arm.name, f"{arm.start} to {each.epochs}", each.state(arm)] for arm in arms]
    return f"sweep {name} in {folder}\n\n" + table(["seed", "run", "epochs", "state"], lines)


def _report(name: str, folder: Path, seeds: Sequence[SeedRuns], arms: Sequence[Arm]) -> None:
    rows = sorted((row for each in seeds for arm in arms for row in each.rows(arm)), key=lambda row: row["date"])
    found = studies(rows, ablations()[name])
    if not found:
        print("\nonly one arm was run: there is nothing to compare")
        return
    files = {style: folder / f"{name}.{style}" for style in ("md", "csv", "png")}
    files["md"].write_text("\n\n".join(study_text(study, markdown=True) for study in found) + "\n", encoding="utf-8")
    files["csv"].write_text(study_csv(ablations()[name], found), encoding="utf-8")
    study_figure(max(found, key=lambda study: len(study.arms))).savefig(files["png"], dpi=150)
    texts = "\n\n".join(map(study_text, found))
    print(f"\n{texts}\n\nwritten to {', '.join(map(str, files.values()))}")


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The names of sweeps on the command line, our own options, and those of `prosl fit`.

    Example:
        >>> _split(["--config", "ntu60", "clusters", "--points", "30", "65", "--model.base", "isc", "--dry_run"])
        (['clusters'], ['--dry_run', '--points=30,65'], ['--config', 'ntu60', '--model.base', 'isc'])
    """
    names: list[str] = []
    own: list[str] = []
    rest: list[str] = []
    lists: dict[str, list[str]] = {}
    values, listed = names, False  # where an argument goes that is no option, and whether further ones go there too
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if not argument.startswith("-") or re.match(r"-\d", argument):
            (names if listed and argument in ablations() else values).append(argument)
            values = values if listed else names  # other options have one value
        elif option in _LISTS:
            values, listed = lists.setdefault(option, []), True
            values += [value] if equals else []
        else:
            target = own if option in _OWN else rest
            target.append(argument)
            values, listed = names if equals or option in _SWITCHES else target, False
    for option, texts in lists.items():
        parts = [part for text in texts for part in re.split(r"[\s,\[\]]+", text) if part]
        if not parts:
            raise UsageError(
                f"{option} has nothing after it: give {'names of arms' if option == '--only' else 'numbers'}"
            )
        own.append(f"{option}={','.join(parts)}")
    return names, own, rest


class _Parser(ShortUsageParser):
    """Says in its first line what stands beside the options."""

    def format_help(self, *arguments: Any) -> str:
        """The help."""
        return super().format_help(*arguments).replace("prosl sweep [options]", _USAGE, 1)


def _parse(own: Sequence[str]) -> Sweep:
    described = inspect.cleandoc(sweep.__doc__ or "").split("\nArgs:")[0].strip()
    parser = _Parser(prog="prosl sweep", description=described)
    parser.add_argument("name", help=f"which ablation: {', '.join(ablations())}")
    parser.add_function_arguments(sweep, as_group=False, skip={"name"})
    return sweep(**vars(parser.parse_args(list(spell_out({"--dry_run"}, own)))))


def main(arguments: Sequence[str]) -> None:
    """Run `prosl sweep`."""
    names, own, fit_options = _split(arguments)
    if not {"--help", "-h"} & set(own) and (len(names) != 1 or names[0] not in ablations()):
        found = " ".join(names) or "nothing"
        raise UsageError(f"the sweeps are {', '.join(ablations())}; found {found}: prosl sweep modules --config CONFIG")
    run_sweep(_parse([*names, *own]), fit_options)
