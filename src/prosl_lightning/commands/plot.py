"""`prosl plot WHAT`: figures of a trained encoder, its codebook, its training, or of skeletons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prosl_lightning.commands.evaluate import DataOptions, at_least_one
from prosl_lightning.commands.parsing import Component, gather_lists, run_function
from prosl_lightning.commands.plot_importance import importance
from prosl_lightning.commands.plot_inputs import (
    NO_DATA,
    DataIfAny,
    as_list,
    check_codebook,
    check_out,
    load,
    method_of,
    numbers_of,
    trained_epochs,
    write_figure,
)
from prosl_lightning.commands.plot_skeletons import animate
from prosl_lightning.commands.table import collect_results
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.features import load_module
from prosl_lightning.figures.codebook import Curve, by_size, codebook_figure, composition
from prosl_lightning.figures.curves import Curves, curves_figure, read_curves
from prosl_lightning.figures.maps import Method, check_method, feature_map, map_figure
from prosl_lightning.figures.nearest import nearest_figure, nearest_to_centroids
from prosl_lightning.figures.samples import IntArray, Part, choose_part, embedded
from prosl_lightning.figures.streams import stream_panels, streams_figure
from prosl_lightning.figures.style import MOST_CLASSES
from prosl_lightning.tables import counted

_FILES = {"--ckpt", "--baseline", "--results"}
_CHOICES = {"--classes", "--clusters", "--which"}


def streams(*, out: str, results: str | list[str] = "runs", evaluation: Literal["linear", "knn"] = "linear") -> None:
    """Accuracy by stream (Figure 3): joint, bone, motion and fused, beside the bars that the paper prints.

    Runs that differ in nothing but their seed share a bar with their deviation. The paper prints figures for the joint
    stream and for all three fused.

    Args:
        out: File to write: .png, .pdf or .svg.
        results: Folders that are searched for `results.json`, or such files.
        evaluation: Which accuracy.
    """
    path, rows = check_out(out), collect_results([str(place) for place in as_list(results)])
    panels = stream_panels(rows, evaluation)
    bars = sum(len(panel.bars) for panel in panels)
    told = f"{counted(bars, 'bar')} of {counted(len(panels), 'data set and split', 'data sets and splits')}"
    write_figure(streams_figure(panels, evaluation), path, told)


def tsne(
    *,
    ckpt: str | list[str],
    data: DataOptions,
    out: str,
    baseline: str | list[str] | None = None,
    classes: int | list[int | str] = 10,
    per_class: int = 60,
    part: Literal["test", "train"] = "test",
    method: Method = "tsne",
    seed: int = 0,
) -> None:
    """Maps of the features at chosen epochs (Figure 5), with the Davies-Bouldin index: --ckpt A.ckpt B.ckpt ...

    The same sequences in the same colours on every map. Data without labels are drawn in grey, without the index.

    Args:
        ckpt: One or several checkpoints, a map each, from left to right.
        data: The data.
        out: File to write: .png, .pdf or .svg.
        baseline: Checkpoints of a second method, in a row above.
        classes: How many classes, spread evenly over all, or which ones by name or number.
        per_class: Most sequences of a class.
        part: Side of the protocol; without a test side it is the training side.
        method: `tsne`, or `umap` where umap-learn is installed.
        seed: Of the choice of sequences and of the layout.
    """
    path, ours = check_out(out), [str(each) for each in as_list(ckpt)]
    check_method(method)
    at_least_one(per_class=per_class)
    above = [] if baseline is None else [str(each) for each in as_list(baseline)]
    modules, loaded = load([*above, *ours], data)
    archive = loaded.archive
    rows = loaded.test_rows if part == "test" and len(loaded.test_rows) else loaded.train_rows
    side = "test" if rows is loaded.test_rows else "training"
    wanted = numbers_of(archive, classes)
    count = wanted if isinstance(wanted, int) else len(wanted)
    if count > MOST_CLASSES:
        raise UsageError(f"classes is {count}; at most {MOST_CLASSES} can be told apart by colour and marker")
    chosen = choose_part(archive.labels, rows, classes=wanted, per_class=per_class, seed=seed)
    maps = []
    for file, module in zip([*above, *ours], modules, strict=True):
        features = embedded(module, archive, chosen.rows)
        semantic = ", with codebook" if module.codebook.is_built else ""
        title = f"{counted(trained_epochs(file), 'epoch')}{semantic}"
        maps.append(feature_map(features, chosen.labels, title, method=method, seed=seed))
    lines = [(method_of(ours[-1]), maps[len(above) :])]
    if above:
        name = method_of(above[-1])
        lines.insert(0, (f"{name} (baseline)" if name == lines[0][0] else name, maps[: len(above)]))
    note = f"{archive.root.resolve().name}, {loaded.protocol}, {side} side: {chosen.note or _all_of(chosen)}"
    figure = map_figure(lines, chosen.labels, archive.class_names, method=method, note=note)
    write_figure(figure, path, f"{counted(len(maps), 'map')} of {len(chosen.rows)} sequences; {note}")


def _all_of(chosen: Part) -> str:
    return f"all {counted(len(chosen.rows), 'sequence')}"


def codebook(*, ckpt: str, out: str, data: DataIfAny = NO_DATA, run: str | None = None) -> None:
    """Sizes and purity of the codebook's clusters, the classes in them, and how it changed from epoch to epoch.

    Without data, or without labels, there is no purity; without a log of the run nothing about its change.

    Args:
        ckpt: A checkpoint of the semantic stage.
        out: File to write: .png, .pdf or .svg.
        data: The data it was trained on, for the classes.
        run: Folder of the run, for its log; the folder above the checkpoint's where it is not given.
    """
    path, missing = check_out(out), []
    classes: IntArray | None = None
    names: tuple[str, ...] = ()
    if data.given is None:
        module = load_module(ckpt)
        check_codebook(module, ckpt)
        missing.append("classes not known: give --data.root")
    else:
        (module,), loaded = load([ckpt], data.given)
        check_codebook(module, ckpt, loaded)
        classes, names = loaded.archive.labels[loaded.train_rows], loaded.archive.class_names
        if not (classes >= 0).any():
            missing.append("the data have no labels, so no purity")
    curves = _codebook_curves(ckpt, run)
    if not curves:
        missing.append("no log of the run, so nothing about changes: give --run")
    assignment, k = module.codebook.assignment.cpu().numpy(), len(module.codebook.centroids)
    title = f"Codebook, built after {counted(int(module.codebook.epoch), 'epoch')}: {method_of(ckpt)}"
    figure = codebook_figure(
        assignment, k, classes=classes, class_names=names, curves=curves, title=title, note="; ".join(missing)
    )
    write_figure(figure, path, "; ".join([f"{k} clusters of {len(assignment)} sequences", *missing]))


def _codebook_curves(ckpt: str, run: str | None) -> dict[str, Curve]:
    """Metrics of the codebook by name, from the log of a run that is named, or of the one a checkpoint lies in."""
    try:
        curves = read_curves(Path(ckpt).resolve().parent.parent if run is None else run)
    except DataError:
        if run is not None:
            raise
        return {}
    return {
        name.removeprefix("codebook/"): found for name, found in curves.metrics.items() if name.startswith("codebook/")
    }


def nearest(
    *, ckpt: str, data: DataOptions, out: str, clusters: int | list[int] = 6, count: int = 3, seed: int = 0
) -> None:
    """Strips of the sequences nearest to chosen centroids of the codebook, each with its class and cosine.

    Args:
        ckpt: A checkpoint of the semantic stage.
        data: The data it was trained on.
        out: File to write: .png, .pdf or .svg.
        clusters: How many, from the largest on, or which ones by number.
        count: Most sequences of each, four in a row.
        seed: Of the draw from very large clusters.
    """
    path = check_out(out)
    at_least_one(count=count)
    (module,), loaded = load([ckpt], data)
    check_codebook(module, ckpt, loaded)
    if isinstance(clusters, int):
        at_least_one(clusters=clusters)
        table = composition(module.codebook.assignment.cpu(), None, len(module.codebook.centroids))
        clusters = [int(each) for each in by_size(table)[:clusters] if table[each].sum()]
    found = nearest_to_centroids(module, loaded.archive, loaded.train_rows, clusters, count, seed)
    title = f"Nearest to the centroids after {counted(trained_epochs(ckpt), 'epoch')}: {method_of(ckpt)}"
    sides = any(joint != other for joint, other in enumerate(module.layout.mirror))
    note = "left side blue, right side orange" if sides else ""
    figure = nearest_figure(module.layout, found, loaded.archive.class_names, title=title, note=note)
    drawn = sum(len(cluster.nearest) for cluster in found)
    write_figure(figure, path, f"{counted(len(found), 'cluster')}, {counted(drawn, 'sequence')}")


def curves(*, run: str, out: str) -> None:
    """Training curves from a run's CSV log: losses, shares, accuracies during training, codebook.

    The semantic stage, drops of the learning rate and resumed runs are marked; logs of resumed runs are joined.

    Args:
        run: Folder of the run, or a `metrics.csv`.
        out: File to write: .png, .pdf or .svg.
    """
    path = check_out(out)
    found: Curves = read_curves(run)
    joined = f", {counted(len(found.files), 'log')} joined" if len(found.files) > 1 else ""
    epochs = int(max(epochs[-1] for epochs, _ in found.metrics.values()))
    told = f"{counted(epochs, 'epoch')}, {counted(len(found.metrics), 'metric')}{joined}"
    write_figure(curves_figure(found, title=Path(run).name or str(run)), path, told)


def main(arguments: Sequence[str]) -> None:
    """Run `prosl plot`."""
    figures: dict[str, Component] = {
        "streams": streams,
        "tsne": tsne,
        "importance": importance,
        "codebook": codebook,
        "nearest": nearest,
        "curves": curves,
        "animate": animate,
    }
    run_function(figures, list(gather_lists(arguments, _FILES, _CHOICES)), "plot")
