"""Writes synthetic sequences as an archive, by the same steps as real data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prosl_lightning.data.archive import ArchiveWriter
from prosl_lightning.data.recipes import normalize_bodies
from prosl_lightning.data.synthetic.generator import CLASS_NAMES, PROTOCOLS, generate
from prosl_lightning.skeleton import SkeletonLayout


def write_archive(
    root: str | Path,
    *,
    num_samples: int = 1600,
    seed: int = 0,
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> None:
    """Write an archive of synthetic sequences, normalised as 2s-AGCN does, with protocols ``x-sub`` and ``x-view``.

    Args:
        root: Folder of the archive to make.
        num_samples: How many sequences; with 1600 about 1200 train in ``x-sub``.
        seed: Of the generator.
        dtype: Number format of the coordinates.
        overwrite: Replace an archive that exists.

    Raises:
        DataError: The archive exists already or cannot be written.
        UsageError: `num_samples` or `seed` is negative.
    """
    layout = SkeletonLayout.of("kinect-v2")
    writer = ArchiveWriter(
        root,
        layout=layout,
        num_bodies=2,
        class_names=CLASS_NAMES,
        protocols=PROTOCOLS,
        recipe={"importer": "synthetic", "normalize": "agcn", "num_samples": num_samples, "seed": seed},
        source="synthetic",
        dtype=dtype,
        overwrite=overwrite,
    )
    with writer:
        for clip in generate(num_samples, seed=seed):
            writer.add(
                clip.name,
                normalize_bodies(clip.listed(), layout, 2, "agcn"),
                label=clip.label,
                setup=clip.setup,
                camera=clip.camera,
                subject=clip.subject,
                replication=clip.replication,
            )
