"""Training on several processes equals training on one with the same global batch and the same views.

Run as a script this file is one of the processes: `python test_distributed.py TASK FOLDER`.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from prosl_lightning import CodebookCallback, ProSLModule, SkeletonDataModule
from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.data.datamodule import ArchiveRows
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.prosl import kmeans as kmeans_file
from prosl_lightning.prosl.distributed import collect_rows, gather_samples, rank, world_size
from prosl_lightning.prosl.extract import extract_share
from prosl_lightning.prosl.kmeans import kmeans
from prosl_lightning.seeds import generator

GLOBAL_BATCH = 12
EPOCHS = 3


class FixedViews(ProSLModule):
    """Views that follow from epoch and training row alone, whichever process and place in the batch a row has."""

    def draw_views(self, batch: SkeletonBatch, draw: torch.Generator) -> Any:
        """The views of each row, drawn by its own generator."""
        rows = []
        for i, row in enumerate(batch.index.tolist()):
            one = SkeletonBatch(*(field[i : i + 1] for field in batch))
            rows.append(super().draw_views(one, generator("cpu", self.current_epoch, row)))
        return tuple(torch.cat(views) if views[0] is not None else None for views in zip(*rows, strict=True))


class Watch(pl.Callback):
    """Keeps this process's own losses and confident samples of every step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Look at what `losses` returns."""
        losses = pl_module.losses

        def watched(*arguments: Any) -> Any:
            metrics = losses(*arguments)
            self.rows.append({name: float(value.detach()) for name, value in metrics.items()})
            return metrics

        pl_module.losses = watched

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Leave the module as it was."""
        del pl_module.losses


def fit(folder: Path, archive: str, options: dict[str, Any], ckpt_path: str | None = None) -> dict[str, Any]:
    """Train with a global batch of 12 on all processes there are; what the process has at the end."""
    world, number = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    # By default DDP changes the order in which it adds the gradients of more than two processes after a run's first
    # step, and a resumed run has a first step of its own.
    strategy = {1: "auto", 2: "ddp"}.get(world, "ddp_find_unused_parameters_true")
    torch.manual_seed(number)  # the processes begin differently; what rank 0 has counts
    module, watch = FixedViews(**options), Watch()
    data = SkeletonDataModule(archive, batch_size=GLOBAL_BATCH // world, eval_batch_size=5)
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    pl.Trainer(
        default_root_dir=folder, max_epochs=EPOCHS, accelerator="cpu", devices=world, enable_progress_bar=False,
        strategy=strategy, enable_model_summary=False, log_every_n_steps=1,
        callbacks=[keep, watch, CodebookCallback("torch")], logger=CSVLogger(folder, name="", version=""),
    ).fit(module, datamodule=data, ckpt_path=ckpt_path)  # fmt: skip
    return {"state": module.state_dict(), "steps": watch.rows}


def cluster(parts: tuple[int, ...]) -> dict[str, Any]:
    """A first build, a later one, and one whose start leaves clusters empty, each process with a part of the points."""
    draw = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(900, 6, generator=draw) + 2 * torch.eye(6).repeat(150, 1), dim=1)
    own = points.split(parts)[rank()] if world_size() > 1 else points
    restarts, kmeans_file.RESTART_POINTS = kmeans_file.RESTART_POINTS, 300
    try:
        first = kmeans(own, 10, seed=3, backend="torch", divided=True)
        later = kmeans(own, 10, seed=4, start=first.centroids.roll(1, dims=1), backend="torch", divided=True)
        alike = kmeans(own, 10, seed=5, start=points[:1].repeat(10, 1), backend="torch", divided=True)
    finally:
        kmeans_file.RESTART_POINTS = restarts
    return {name: found._asdict() for name, found in (("first", first), ("later", later), ("alike", alike))}


def messages() -> dict[str, Any]:
    """Refusals, and the small functions that are not seen in a training."""
    found: dict[str, Any] = {}
    for name, features, backend in (
        ("faiss", torch.eye(3), "faiss"), ("few", torch.eye(3), "torch"),
        ("nan", torch.full((12, 3), torch.nan if rank() == 1 else 1.0), "torch"),
    ):  # fmt: skip
        with pytest.raises((UsageError, DataError)) as error:
            kmeans(features, 10, seed=0, backend=backend, divided=True)
        found[name] = str(error.value)
    loader = [SkeletonBatch(torch.zeros(1, 3, 4, 2, 1), *torch.tensor([[4], [row], [0]])) for row in (0, 1, 1, 3)]
    with pytest.raises(DataError) as error:
        extract_share(pl.LightningModule(), loader, lambda batch: batch.joints.flatten(1), 4)
    found["twice"] = str(error.value)
    own = torch.arange(4.0).view(2, 2) + 10 * rank()
    found["samples"] = gather_samples({"a": own, "b": own.view(2, 2, 1)})
    found["rows"] = collect_rows(torch.tensor([rank() + 1]), torch.tensor([[rank() + 5]]), 4)
    return found


def read_once(archive: str) -> list[int]:
    """Positions that this process reads when it extracts its share, in order."""
    data, module, positions = SkeletonDataModule(archive, eval_batch_size=5), pl.LightningModule(), []
    data.setup()
    gather_rows = ArchiveRows.__getitems__

    def watched(self: ArchiveRows, wanted: Any) -> SkeletonBatch:
        positions.extend(wanted)
        return gather_rows(self, wanted)

    ArchiveRows.__getitems__ = watched  # type: ignore[method-assign]
    try:
        share = extract_share(
            module, data.feature_dataloader(), lambda batch: batch.length[:, None].float(), data.num_samples
        )
    finally:
        ArchiveRows.__getitems__ = gather_rows  # type: ignore[method-assign]
    assert share.rows.tolist() == positions
    assert len(share.features) == len(positions)
    return positions


def build_with_statistics(archive: str) -> dict[str, Any]:
    """A codebook by an encoder with batch normalisation whose statistics are each process's own."""
    data = SkeletonDataModule(archive, eval_batch_size=5)
    data.setup()
    torch.manual_seed(1)
    sizes = {"hidden_channels": 2, "feature_size": 6, "projection_size": 4}
    module = ProSLModule(**OPTIONS | {"base": "skeletonclr", "base_args": sizes, "importance_samples": 2})
    for buffer in module.key_encoder.buffers():
        if buffer.is_floating_point():
            buffer.add_(rank())
    CodebookCallback("torch").build(SimpleNamespace(datamodule=data), module, 1)  # type: ignore[arg-type]
    return module.codebook.state_dict()


def everything(folder: Path) -> None:
    """All of the above in one process of several, and a resumed training; start-up takes longest."""
    arguments = torch.load(folder / "arguments.pt")
    archive, options = str(arguments["archive"]), arguments["options"]
    dist.init_process_group("gloo")
    found = {"cluster": cluster(arguments["parts"]), "messages": messages(), "read": read_once(archive)}
    found["statistics"] = build_with_statistics(archive)
    found["whole"] = fit(folder / "whole", archive, options)
    found["resumed"] = fit(folder / "resumed", archive, options, str(folder / "whole" / "epoch=0.ckpt"))
    torch.save(found, folder / f"rank{rank()}.pt")


OPTIONS = {
    "base": "hico-gru",
    "base_args": {"hidden_size": 16, "num_layers": 1, "projection_size": 8},
    "num_frames": 16,
    "min_crop_frames": 8,
    "bank_size": 32,
    "momentum": 0.9,
    "semantic_start": 1,
    "num_clusters": 4,
    # Some samples are confident and others are not, to the very end.
    "semantic_temperature": 0.02,
    "confidence_threshold": 0.28,
    "learning_rate": 0.05,
    "importance_samples": 8,
    "milestones": (2,),
}
# Parts of 900 points; the last process of three has none.
PARTS = {2: (650, 250), 3: (500, 400, 0)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_archive) -> dict[str, Any]:
    """What one process gives."""
    folder = tmp_path_factory.mktemp("alone")
    archive = str(tiny_archive)
    found = {"whole": fit(folder, archive, OPTIONS), "statistics": build_with_statistics(archive)}
    return found | {"folder": folder, "cluster": cluster((900,))}


@pytest.fixture(scope="module", params=[2, 3], ids=["two", "three"])
def several(request, tmp_path_factory, tiny_archive, run_processes) -> dict[str, Any]:
    """What each of two or three processes gives, and the folder they trained in."""
    folder = tmp_path_factory.mktemp("several")
    arguments = {"archive": str(tiny_archive), "options": OPTIONS, "parts": PARTS[request.param]}
    ended = run_processes(__file__, "everything", folder, request.param, **arguments)
    assert [process.returncode for process in ended] == [0] * request.param, "\n".join(each.stdout for each in ended)
    ranks = [torch.load(folder / f"rank{number}.pt") for number in range(request.param)]
    return {"folder": folder, "ranks": ranks, "world": request.param}


@pytest.mark.ddp
@pytest.mark.slow
def test_training_equals_one_process_with_the_same_global_batch(several, alone):
    expected, found = alone["whole"], [each["whole"] for each in several["ranks"]]
    steps = list(zip(*(each["steps"] for each in found), strict=True))
    assert len(steps) == len(expected["steps"]) == 3 * EPOCHS
    for number, (parts, whole) in enumerate(zip(steps, expected["steps"], strict=True)):
        for name, value in whole.items():
            mean = sum(part[name] for part in parts) / len(parts)
            assert mean == pytest.approx(value, abs=1e-5), (number, name)
    # The test would say nothing if processes always had equally many confident samples, or none.
    shares = [[part["confident_share_query"] for part in parts] for parts in steps if "semantic_query" in parts[0]]
    assert any(len(set(share)) > 1 for share in shares)
    assert any(0 < sum(share) / len(share) < 1 for share in shares)
    for name, value in expected["state"].items():
        ours = found[0]["state"][name]
        if value.is_floating_point():
            torch.testing.assert_close(ours, value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        else:  # what the banks hold, in which order, and the codebook's labels
            assert torch.equal(ours, value), name
    assert int(expected["state"]["codebook.epoch"]) == EPOCHS - 1


@pytest.mark.ddp
@pytest.mark.slow
def test_every_process_ends_with_the_same_bits(several):
    first, *others = (each["whole"]["state"] for each in several["ranks"])
    for other in others:
        for name, value in first.items():
            assert torch.equal(value, other[name]), name


@pytest.mark.ddp
@pytest.mark.slow
def test_a_resumed_run_on_several_processes_is_bit_identical(several):
    for each in several["ranks"]:
        for name, value in each["whole"]["state"].items():
            assert torch.equal(value, each["resumed"]["state"][name]), name


@pytest.mark.ddp
@pytest.mark.slow
def test_logs_hold_the_numbers_of_one_process(several, alone):
    def rows(folder: Path) -> list[dict[str, str]]:
        with (folder / "metrics.csv").open() as file:
            return list(csv.DictReader(file))

    expected, found = rows(alone["folder"]), rows(several["folder"] / "whole")
    assert len(expected) == len(found)
    compared = set()
    for ours, theirs in zip(found, expected, strict=True):
        for name in theirs.keys() - {"epoch/samples_per_second"}:
            assert bool(ours[name]) == bool(theirs[name]), name
            if theirs[name]:
                compared.add(name)
                assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=2e-5), name
    assert {"train/loss", "train/mean_cosine", "epoch/semantic_query", "codebook/churn", "codebook/nmi"} <= compared


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("build", ["first", "later", "alike"])
def test_clusters_of_divided_points_are_those_of_one_process(several, alone, build):
    expected, found = alone["cluster"][build], [each["cluster"][build] for each in several["ranks"]]
    assert torch.equal(torch.cat([each["assignment"] for each in found]), expected["assignment"])
    assert [len(each["assignment"]) for each in found] == list(PARTS[several["world"]])
    assert len(expected["assignment"].unique()) == 10  # also where the start left nine of ten clusters empty
    for each in found:
        torch.testing.assert_close(each["centroids"], expected["centroids"], atol=1e-5, rtol=0)
        assert torch.equal(each["centroids"], found[0]["centroids"])
        assert each["mean_cosine"] == pytest.approx(expected["mean_cosine"], abs=1e-6)


@pytest.mark.ddp
@pytest.mark.slow
def test_each_sequence_is_read_by_one_process_once(several):
    positions = [each["read"] for each in several["ranks"]]
    assert [position for own in positions for position in own] == list(range(36))
    assert all(len(own) >= 10 for own in positions)


@pytest.mark.ddp
@pytest.mark.slow
def test_a_codebook_is_built_with_the_statistics_of_the_first_process(several, alone):
    for each in several["ranks"]:
        for name, value in alone["statistics"].items():
            torch.testing.assert_close(each["statistics"][name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.ddp
@pytest.mark.slow
def test_faults_are_named_in_every_process(several):
    world = several["world"]
    for each in several["ranks"]:
        found = each["messages"]
        assert f"cannot divide points over {world} processes" in found["faiss"]
        assert f"num_clusters is 10 but there are only {3 * world} training samples" == found["few"]
        assert "not finite" in found["nan"]  # only rank 1 had such points
        assert (
            f"the feature loaders of {world} processes gave 3 of 4 samples, 1 of them more than once" in found["twice"]
        )


@pytest.mark.ddp
@pytest.mark.slow
def test_messages_are_in_the_order_of_ranks(several):
    world = several["world"]
    expected = torch.cat([torch.arange(4.0).view(2, 2) + 10 * number for number in range(world)])
    for each in several["ranks"]:
        samples = each["messages"]["samples"]
        assert torch.equal(samples["a"], expected)
        assert torch.equal(samples["b"], expected.unsqueeze(2))
        assert each["messages"]["rows"].flatten().tolist() == [0, 5, 6, *([7] if world == 3 else [0])]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"everything": everything}[sys.argv[1]](Path(sys.argv[2]))
    dist.destroy_process_group()
