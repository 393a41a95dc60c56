"""Fingerprints of data, checkpoints and software: what a result depends on, as plain data."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from prosl_lightning._lightning import pl
from prosl_lightning.data.datamodule import SkeletonDataModule
from prosl_lightning.version import __version__

_BLOCK = 1 << 22
_OTHERS = ("torchmetrics", "scikit-learn", "scipy", "faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12")
_NAMED = ("base", "semantic", "stream", "seed", "init_from")  # of a checkpoint's options; the rest is `options`


class Relation(NamedTuple):
    """How the data an encoder was trained on relate to those it is judged on.

    Attributes:
        same_data: Whether it is the same archive: by the checksum of its frames, or by source and normalisation where
            the checkpoint has none.
        same_split: Whether its training part was the same one.
        test_sequences_seen: Test sequences among the training sequences; None where that cannot be told.
    """

    same_data: bool
    same_split: bool
    test_sequences_seen: int | None


def training_relation(recipe: Mapping[str, Any], data: SkeletonDataModule) -> Relation:
    """Compare what a checkpoint knows of its training data with what it is judged on.

    Args:
        recipe: `SkeletonDataModule.recipe` of the training, as the checkpoint keeps it.
        data: After `setup`.
    """
    now, split = data.recipe, recipe.get("protocol")
    keys = ("frames_sha256",) if recipe.get("frames_sha256") else ("data", "normalisation")
    same_data = all(recipe.get(key) == now[key] for key in keys)
    same_split = same_data and all(recipe.get(key) == now[key] for key in ("protocol", "num_samples"))
    seen = None
    if same_data and split in data.archive.protocols:
        seen = int(np.isin(data.test_rows, data.archive.split(str(split))[0]).sum())
    return Relation(same_data, same_split, seen)


def training_note(recipe: Mapping[str, Any], data: SkeletonDataModule) -> str | None:
    """One line where an encoder was trained on another data set or split than it is judged on."""
    relation = training_relation(recipe, data)
    if relation.same_split:
        return None
    if not recipe:
        return "does not say what it was trained on"
    if not relation.same_data:
        name = recipe.get("archive") or recipe.get("data") or "unknown"
        return f"was trained on another data set: {name}, {recipe.get('protocol')}"
    note = f"was trained on another split: {recipe.get('protocol')} with {recipe.get('num_samples')} sequences"
    if relation.test_sequences_seen:
        note += f"; {relation.test_sequences_seen} of the {len(data.test_rows)} test sequences were among them"
    return note


def describe_data(data: SkeletonDataModule) -> dict[str, Any]:
    """Fingerprint of an archive: its name, what it was made from, counts, and the checksums it carries."""
    meta = data.archive.meta
    return {
        "name": data.archive.root.resolve().name,
        "root": str(data.root),
        "source": meta.get("source", ""),
        "recipe": meta.get("recipe", {}),
        "layout": data.layout.name,
        "unit": data.layout.unit,
        "num_bodies": data.num_bodies,
        "sequences": len(data.archive),
        "frames": len(data.archive.frames),
        "classes": len(data.archive.class_names),
        "frames_sha256": meta["frames"].get("sha256"),
        "index_sha256": meta["index"].get("sha256"),
    }


def describe_checkpoint(path: str | Path, data: SkeletonDataModule | None = None) -> dict[str, Any]:
    """Fingerprint of a checkpoint: checksum of the file, epochs trained, method, and the data it was trained on.

    Args:
        path: A checkpoint of `prosl fit`.
        data: What it is judged on; adds to `trained_on` how both relate, see :class:`Relation`.
    """
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    options, recipe = content.get("hyper_parameters", {}), content.get("recipe", {})
    epochs = epochs_done(content)
    return {
        "path": str(path),
        "sha256": file_sha256(path),
        "epochs": epochs,
        "base": options.get("base"),
        "semantic": _semantic_stage(options, epochs),
        "stream": options.get("stream"),
        "seed": options.get("seed"),
        "options": {name: value for name, value in options.items() if name not in _NAMED},
        "trained_on": {
            "name": recipe.get("archive"),
            "data": recipe.get("data"),
            "recipe": recipe.get("normalisation"),
            "protocol": recipe.get("protocol"),
            "sequences": recipe.get("num_samples"),
            "frames_sha256": recipe.get("frames_sha256"),
            **(training_relation(recipe, data)._asdict() if data is not None else {}),
        },
    }


def epochs_done(checkpoint: Mapping[str, Any]) -> int:
    """Whole epochs that the content of a checkpoint was trained for, also where it was saved after a fit's end."""
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    return int(progress.get("ready", int(checkpoint.get("epoch", -1)) + 1))


def _semantic_stage(options: Mapping[str, Any], epochs: int) -> str:
    """`off`, `warm-up` (the codebook has never had a say), or `on`."""
    if not options.get("semantic"):
        return "off"
    return "on" if epochs > options.get("semantic_start", 0) else "warm-up"


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computed a result; of packages that only some results need, those that are installed."""
    found = {
        "prosl-lightning": __version__,
        "torch": torch.__version__,
        pl.__name__.replace("_", "-"): pl.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    for name in _OTHERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
