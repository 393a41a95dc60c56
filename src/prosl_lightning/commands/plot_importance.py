"""`prosl plot importance`: semantic coefficients as joint colours, of the data, of clusters, classes or sequences."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from prosl_lightning.commands.evaluate import at_least_one
from prosl_lightning.commands.plot_inputs import (
    NO_DATA,
    DataIfAny,
    check_codebook,
    check_out,
    load,
    method_of,
    numbers_of,
    rows_of,
    trained_epochs,
    write_figure,
)
from prosl_lightning.data.archive import Archive
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.features import load_module
from prosl_lightning.figures.codebook import by_size, composition
from prosl_lightning.figures.importance import Body, importance_grid_figure, joint_importance_figure
from prosl_lightning.figures.samples import IntArray, measured_importance
from prosl_lightning.figures.skeletons import can_stand
from prosl_lightning.figures.style import class_name, shorten
from prosl_lightning.prosl.module import ProSLModule
from prosl_lightning.tables import counted

By = Literal["dataset", "cluster", "class", "sequence"]
_COLUMNS = 6


class _Group(NamedTuple):
    """Sequences that share a body in the figure: its title, and their archive rows."""

    title: str
    rows: IntArray


def importance(
    *,
    ckpt: str,
    out: str,
    by: By = "dataset",
    data: DataIfAny = NO_DATA,
    which: int | list[int | str] = 12,
    samples: int = 16,
    seed: int = 0,
) -> None:
    """Semantic coefficients as joint colours on a drawn skeleton (Figure 6): deeper is more.

    Of the data set they are the codebook's own where the checkpoint has some. All else is measured on the data, joint
    by joint, which costs one forward pass for each joint of each sequence.

    Args:
        ckpt: A checkpoint.
        out: File to write: .png, .pdf or .svg.
        by: One body for the `dataset`, or one for each `cluster`, `class` or `sequence`.
        data: The data; needed unless the codebook's own coefficients of the data set are drawn.
        which: How many clusters (from the largest on), classes or sequences (drawn), or which ones, by number or name.
        samples: Sequences that are measured for each body; four times as many for the data set.
        seed: Of every draw.
    """
    path = check_out(out)
    at_least_one(samples=samples, **({"which": which} if isinstance(which, int) else {}))
    if data.given is None:
        module = load_module(ckpt)
        if by != "dataset" or not module.codebook.importance.numel():
            what = f"by {by}" if by != "dataset" else "without a codebook"
            raise UsageError(f"importance {what} is measured on data: give --data.root")
        figure, told = _of_codebook(module, ckpt, None)
    else:
        (module,), loaded = load([ckpt], data.given)
        if by == "dataset":
            known = module.codebook.importance.numel()
            figure, told = (
                _of_codebook(module, ckpt, loaded) if known else _of_data(module, ckpt, loaded, 4 * samples, seed)
            )
        else:
            figure, told = _of_groups(module, ckpt, loaded, by, which, samples, seed)
    write_figure(figure, path, told)


def _of_codebook(module: ProSLModule, ckpt: str, data: SkeletonDataModule | None) -> tuple[Figure, str]:
    stored = module.codebook.importance.double().cpu().numpy()
    values = stored.mean(axis=0) if stored.ndim == 2 else stored
    note = f"from the codebook built after {counted(int(module.codebook.epoch), 'epoch')}"
    if stored.ndim == 2:
        note += f", mean of {len(stored):,} sequences"
    pose = None if data is None else _pose_if_needed(module, data.archive, int(data.train_rows[0]))
    return joint_importance_figure(module.layout, values, pose, f"Semantic coefficients: {method_of(ckpt)}", note), note


def _of_data(module: ProSLModule, ckpt: str, data: SkeletonDataModule, samples: int, seed: int) -> tuple[Figure, str]:
    rows = _drawn(data.train_rows, samples, seed)
    values = _measure(module, data.archive, rows).mean(axis=0)
    epochs = counted(trained_epochs(ckpt), "epoch")
    note = f"measured on {len(rows):,} of {data.num_samples:,} training sequences after {epochs}"
    pose = _pose_if_needed(module, data.archive, int(rows[0]))
    return joint_importance_figure(module.layout, values, pose, f"Semantic coefficients: {method_of(ckpt)}", note), note


def _of_groups(
    module: ProSLModule,
    ckpt: str,
    data: SkeletonDataModule,
    by: By,
    which: int | Sequence[int | str],
    samples: int,
    seed: int,
) -> tuple[Figure, str]:
    archive = data.archive
    if by == "cluster":
        check_codebook(module, ckpt, data)
    groups = {"cluster": _clusters, "class": _classes, "sequence": _sequences}[by](module, data, which, seed)
    chosen = [_drawn(group.rows, samples, seed) for group in groups]
    found = _known_or_measured(module, data, np.unique(np.concatenate(chosen)))
    bodies = []
    for group, rows in zip(groups, chosen, strict=True):
        pose = _pose(archive, int(rows[0])) if by == "sequence" else _pose_if_needed(module, archive, int(rows[0]))
        bodies.append(Body(group.title, np.mean([found[int(row)] for row in rows], axis=0), pose))
    many = {"cluster": "clusters", "class": "classes", "sequence": "sequences"}[by]
    note = f"after {counted(trained_epochs(ckpt), 'epoch')}"
    if by != "sequence":
        note = f"mean of at most {counted(samples, 'sequence')} of each, {note}"
    figure = importance_grid_figure(
        module.layout, bodies, f"Semantic coefficients of {many}: {method_of(ckpt)}", note, _COLUMNS
    )
    return figure, f"{len(bodies)} {many if len(bodies) != 1 else by}; {note}"


def _clusters(
    module: ProSLModule, data: SkeletonDataModule, which: int | Sequence[int | str], seed: int
) -> list[_Group]:
    assignment, k = module.codebook.assignment.cpu().numpy(), len(module.codebook.centroids)
    labels = data.archive.labels[data.train_rows]
    table = composition(assignment, labels, k)
    wanted = by_size(table)[:which].tolist() if isinstance(which, int) else [_cluster(each, table) for each in which]
    groups = []
    for cluster in wanted:
        size = int(table[cluster].sum())
        if not size:
            continue
        title = f"cluster {cluster}: {counted(size, 'sequence')}"
        if table[cluster, :-1].any():
            label = int(table[cluster, :-1].argmax())
            share = 100 * table[cluster, label] / size
            title += f"\n{share:.0f} % {shorten(class_name(data.archive.class_names, label), 24)}"
        groups.append(_Group(title, data.train_rows[assignment == cluster]))
    return groups


def _cluster(each: int | str, table: IntArray) -> int:
    number = int(each) if str(each).isdigit() else -1
    if not 0 <= number < len(table) or not table[number].any():
        what = "is empty" if 0 <= number < len(table) else f"does not exist; the codebook has 0 to {len(table) - 1}"
        raise UsageError(f"cluster {each} {what}")
    return number


def _classes(
    module: ProSLModule, data: SkeletonDataModule, which: int | Sequence[int | str], seed: int
) -> list[_Group]:
    labels = data.archive.labels[data.train_rows]
    present = np.unique(labels[labels >= 0])
    if not len(present):
        raise DataError(f"{data.root} has no labels, so there are no classes: use --by cluster or --by sequence")
    wanted = numbers_of(data.archive, which)
    if isinstance(wanted, int):
        wanted = present[np.linspace(0, len(present) - 1, min(wanted, len(present))).round().astype(int)].tolist()
    groups = []
    for label in wanted:
        rows, name = data.train_rows[labels == label], class_name(data.archive.class_names, label)
        if not len(rows):
            raise UsageError(f"class {label} ({name}) has no training sequence")
        groups.append(_Group(f"{shorten(name, 28)}\n{counted(len(rows), 'sequence')}", rows))
    return groups


def _sequences(
    module: ProSLModule, data: SkeletonDataModule, which: int | Sequence[int | str], seed: int
) -> list[_Group]:
    archive = data.archive
    rows = _drawn(data.train_rows, which, seed) if isinstance(which, int) else rows_of(archive, which)
    groups = []
    for row in rows.tolist():
        label = int(archive.labels[row])
        known = [shorten(class_name(archive.class_names, label), 28)] if label >= 0 else []
        groups.append(_Group("\n".join([shorten(str(archive.names[row]), 28), *known]), np.array([row])))
    return groups


def _drawn(rows: IntArray, count: int, seed: int) -> IntArray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:count])


def _known_or_measured(module: ProSLModule, data: SkeletonDataModule, rows: IntArray) -> dict[int, NDArray[np.float64]]:
    """Coefficients by archive row: the codebook's where it has every sequence's own, else measured now."""
    stored = module.codebook.importance.double().cpu().numpy()
    if stored.ndim == 2 and len(stored) == data.num_samples and np.isin(rows, data.train_rows).all():
        values = stored[np.searchsorted(data.train_rows, rows)]
    else:
        values = _measure(module, data.archive, rows)
    return dict(zip(rows.tolist(), values, strict=True))


def _measure(module: ProSLModule, archive: Archive, rows: IntArray) -> NDArray[np.float64]:
    passes = len(rows) * (module.layout.num_joints + 1)
    print(f"measuring: {len(rows)} sequences, {passes:,} forward passes", file=sys.stderr, flush=True)
    return measured_importance(module, archive, rows)


def _pose(archive: Archive, row: int) -> NDArray[np.float64]:
    """The first body that is there, in the frame in the middle of those in which it is, (V, 3)."""
    clip = np.asarray(archive.clip(row), np.float64)
    there: NDArray[np.bool_] = np.asarray(clip.any(axis=(1, 2)))  # (T, M)
    body = int(there.sum(axis=0).argmax())
    times = np.flatnonzero(there[:, body])
    return clip[times[len(times) // 2] if len(times) else 0, :, :, body].T


def _pose_if_needed(module: ProSLModule, archive: Archive, row: int) -> NDArray[np.float64] | None:
    """A pose of the data where the layout's joints have no usual place on a standing body."""
    return None if can_stand(module.layout) else _pose(archive, row)
