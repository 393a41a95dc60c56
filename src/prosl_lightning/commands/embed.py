"""`prosl embed`: features of a user's own files or of an archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from prosl_lightning.commands.user_files import Sample, UserFiles, refuse_other_layout, run_with_list
from prosl_lightning.data.archive import Archive
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.encoder import SkeletonEncoder, load_encoder
from prosl_lightning.evaluation.feature_file import FeatureFile
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

_REMEDY = "--map_joints matches the joints by name; those that do not exist are zero"


@dataclass
class ArchivePart:
    """An archive, or a part of it.

    Attributes:
        root: Folder of the archive.
        part: all sequences, or one side of a protocol.
        protocol: Split rule; the checkpoint's own where it is not given.
    """

    root: str
    part: Literal["all", "train", "test"] = "all"
    protocol: str | None = None


def embed(
    *,
    ckpt: str,
    out: str,
    files: Sequence[str] = (),
    data: ArchivePart | None = None,
    format: str | None = None,
    layout: str | None = None,
    map_joints: bool = False,
    batch_size: int = 256,
) -> None:
    """Features of files of any format the package reads, or of an archive, as one npz: prosl embed --ckpt CKPT FILES.

    It holds `features` (N, D) float32 under the fixed centre crop, not of unit length, `names` (N,), `sources` (N,),
    the file (and row) or archive that each is from, `labels` (N,), -1 where unknown, and `class_names` where they are
    known. Sequences of two files may have the same name, but not the same source too. Raw files are normalised as the
    training data were. Files that cannot be read are listed and passed over; those of other formats in a folder are
    counted.

    Args:
        ckpt: Checkpoint of `prosl fit`, or a classifier.
        out: The npz to write.
        files: Files or folders.
        data: An archive instead of files.
        format: Format of the files; found out where it is not given.
        layout: Body model of the files, where they do not say.
        map_joints: Match the joints of another body model by name instead of refusing it.
        batch_size: Sequences per forward pass.
    """
    if bool(files) == (data is not None):
        raise UsageError("give files, or an archive with --data.root" + (", not both" if files else ""))
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    path = Path(out if out.endswith(".npz") else f"{out}.npz")
    encoder = load_encoder(ckpt)
    if data is not None:
        _embed_archive(encoder, ckpt, data, path, map_joints, batch_size)
        return
    with UserFiles(files, format, layout) as opened:
        encoder = _fitted(encoder, ckpt, opened.layout, opened.first, map_joints)
        known = {source.class_names for source in opened.sources}
        count = _write(path, encoder, opened.samples(encoder), known.pop() if len(known) == 1 else (), batch_size)
        if count == 0:
            raise opened.nothing_usable()
        opened.report_bad()


def _embed_archive(
    encoder: SkeletonEncoder, ckpt: str, data: ArchivePart, path: Path, map_joints: bool, batch_size: int
) -> None:
    archive = Archive.open(data.root)
    encoder = _fitted(encoder, ckpt, archive.layout, data.root, map_joints)
    if archive.num_bodies > encoder.num_bodies and not map_joints:
        raise DataError(
            f"{data.root} keeps {archive.num_bodies} bodies, the encoder takes {encoder.num_bodies}\n--map_joints "
            "takes the first"
        )
    samples = _of_archive(archive, _rows(archive, data, encoder), encoder)
    _write(path, encoder, samples, archive.class_names, batch_size)


def _fitted(
    encoder: SkeletonEncoder, ckpt: str, layout: SkeletonLayout, what: str, map_joints: bool
) -> SkeletonEncoder:
    """The encoder for data of a body model, by name of the joints where that is wanted and needed."""
    if not map_joints or layout.joints == encoder.layout.joints:
        refuse_other_layout(layout, encoder, what, _REMEDY)
        return encoder
    encoder = load_encoder(ckpt, layout=layout)
    assert encoder.backbone.mapping is not None
    print("\n".join(encoder.backbone.mapping.describe(encoder.backbone.stream)))
    return encoder


def _rows(archive: Archive, data: ArchivePart, encoder: SkeletonEncoder) -> Sequence[int]:
    if data.part == "all":
        return range(len(archive))
    protocol = data.protocol or encoder.recipe.get("protocol")
    if protocol is None:
        raise UsageError("the checkpoint does not name a protocol: give --data.protocol")
    train, test = archive.split(str(protocol))
    return (train if data.part == "train" else test).tolist()


def _of_archive(archive: Archive, rows: Sequence[int], encoder: SkeletonEncoder) -> Iterator[Sample]:
    archive.verify()
    for row in rows:
        bodies = np.asarray(archive.clip(row)[..., : encoder.num_bodies], np.float32).transpose(0, 3, 2, 1)
        try:
            joints = encoder.prepare(bodies, normalized=True)
        except DataError as error:
            raise DataError(f"{archive.root}, sequence {archive.names[row]}: {error}") from error
        yield Sample(str(archive.names[row]), str(archive.root), int(archive.labels[row]), joints)


def _write(
    path: Path, encoder: SkeletonEncoder, samples: Iterator[Sample], class_names: Sequence[str], batch_size: int
) -> int:
    """Write the npz and say so; nothing is written where there is no sample. Returns the number of samples."""
    names: list[str] = []
    sources: list[str] = []
    labels: list[int] = []

    def joints() -> Iterator[np.ndarray]:
        for sample in samples:
            names.append(sample.name)
            sources.append(sample.source)
            labels.append(sample.label)
            yield sample.joints

    with FeatureFile(path) as file:
        for features in encoder.embed_prepared(joints(), batch_size):
            file.add(features)
        if names:
            extra = {"class_names": np.array(class_names)} if class_names else {}
            columns = {"names": np.array(names), "sources": np.array(sources), "labels": np.array(labels, np.int64)}
            file.finish(**columns, **extra)
            print(f"{path}: features of {counted(file.num_rows, 'sequence')}, {file.num_columns} each")
    return len(names)


def main(arguments: Sequence[str]) -> None:
    """Run `prosl embed`."""
    run_with_list(embed, arguments, "embed", "files", "files or folders of any format the package reads")
