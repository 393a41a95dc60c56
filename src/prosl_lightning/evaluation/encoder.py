"""A trained encoder for use in one's own code: joints in, features out, with the preparation its training data had."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prosl_lightning.data.batch import SkeletonBatch
from prosl_lightning.data.normalize import FloatArray
from prosl_lightning.data.recipes import left_to_do, normalize_bodies
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.evaluation.backbone import Backbone
from prosl_lightning.evaluation.classifier import load_classifier
from prosl_lightning.evaluation.features import load_module, stored_recipe
from prosl_lightning.skeleton import SkeletonLayout
from prosl_lightning.tables import counted

Features = NDArray[np.float32]
_OTHER_LAYOUT = (
    "data of another body model: load_encoder(ckpt, layout=NAME) matches joints by name, as `prosl transfer` does"
)
_MOST_BODIES = 6  # that a Kinect tracks: a longer second axis of a bare array is rather the frames of a batch
_FRAMES = 1 << 17  # frames of a padded batch: about 80 MB for two persons of 25 joints


class SkeletonEncoder:
    """A frozen encoder with the preparation of its training data; see :func:`load_encoder`.

    Args:
        backbone: The network and its views.
        recipe: What the checkpoint knows of its training data.

    Attributes:
        layout: Body model of the joints it takes.
        num_bodies: Persons it looks at; raw sequences may hold more (the normalisation chooses) or fewer.
        normalization: How raw coordinates are normalised; None where the checkpoint does not say.
        recipe: What the checkpoint knows of its training data, e.g. `protocol` and `class_names`.
    """

    def __init__(self, backbone: Backbone, recipe: Mapping[str, Any]) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.layout, self.num_bodies = backbone.layout, backbone.num_bodies
        self.recipe = dict(recipe)
        self.normalization: str | None = (recipe.get("normalisation") or {}).get("normalize")

    @property
    def device(self) -> torch.device:
        """Where the encoder runs."""
        return next(self.backbone.parameters()).device

    def embed(self, joints: Any, *, normalized: bool = False, batch_size: int = 256) -> Features:
        """Features of sequences of any length, under the fixed centre crop of 95 %.

        Args:
            joints: NumPy or torch, in the layout's unit: one sequence ``(T, V, C)`` or, with several persons,
                ``(T, B, V, C)``; a list of such; or a batch ``(N, C, T, V, M)`` of sequences of one length. Absent
                persons are zero. A batch ``(N, T, V, C)`` looks like one sequence of several persons and goes in as
                ``list(joints)``; where it can be told by its many "persons", it is refused.
            normalized: The coordinates are already as in the archive the encoder was trained on.
            batch_size: Sequences per forward pass.

        Returns:
            ``(N, D)`` float32, not of unit length; N is 1 for one sequence.

        Raises:
            DataError: Shapes that do not fit the layout, values that are not finite, nobody in a sequence.
            UsageError: There is no sequence, or the checkpoint does not say how to normalise.

        Warns:
            UserWarning: Raw sequences hold more persons than the encoder looks at.
        """
        sequences = _as_sequences(joints, max(self.num_bodies, _MOST_BODIES))
        if not sequences:
            raise UsageError("joints is empty: give at least one sequence")
        prepared = (
            self._named(number, len(sequences), bodies, normalized) for number, bodies in enumerate(sequences, start=1)
        )
        features = np.concatenate(list(self.embed_prepared(prepared, batch_size)))
        if note := self.note_on_bodies(map(count_bodies, sequences)):
            warnings.warn(note, stacklevel=2)
        return features

    def note_on_bodies(self, bodies: Iterable[int]) -> str:
        """One line where sequences of so many persons each lose some to the encoder; else empty."""
        more = [count for count in bodies if count > self.num_bodies]
        if not more:
            return ""
        return (
            f"{counted(len(more), 'sequence')} with up to {max(more)} bodies: the encoder looks at {self.num_bodies}, "
            "the others are not used"
        )

    def _named(self, number: int, count: int, bodies: FloatArray, normalized: bool) -> NDArray[np.float32]:
        try:
            return self.prepare(bodies, normalized)
        except DataError as error:
            raise DataError(f"sequence {number} of {count}: {error}") from error

    def prepare(self, bodies: FloatArray, normalized: bool = False, already: str = "") -> NDArray[np.float32]:
        """One sequence ``(T, B, V, C)`` as the archive would hold it, ``(T, V, M, C)`` float32.

        Args:
            bodies: The sequence.
            normalized: It is as the archive holds it.
            already: The recipe by which it was normalised before, e.g. `Source.already`; empty where it was not.

        Raises:
            DataError: It does not fit the layout, is not finite, or holds nobody.
            UsageError: The checkpoint does not say how its training data were normalised, or they were normalised in
                another way than these.
        """
        found, joints = bodies.shape, self.layout.num_joints
        if bodies.ndim != 4 or found[2:] != (joints, 3):
            raise DataError(
                f"found shape {found}, expected (frames, {joints}, 3) or (frames, bodies, {joints}, 3) of layout "
                f"'{self.layout.name}'\n{_OTHER_LAYOUT}"
            )
        if normalized and found[1] > self.num_bodies:
            raise DataError(f"{found[1]} bodies; the encoder takes {self.num_bodies}")
        recipe = "none" if normalized else self.normalization
        if recipe is None:
            raise UsageError(
                "the checkpoint does not say how its training data were normalised: give joints normalised alike and "
                "normalized=True, or an archive (`prosl embed --data.root`)"
            )
        return normalize_bodies(bodies, self.layout, self.num_bodies, left_to_do(recipe, already))

    def embed_prepared(self, sequences: Iterable[NDArray[np.float32]], batch_size: int = 256) -> Iterator[Features]:
        """Features (n, D) of each batch of prepared sequences ``(T, V, M, C)``; no more than a batch is held."""
        part: list[NDArray[np.float32]] = []
        longest = 0
        for sequence in sequences:
            longest = max(longest, len(sequence))
            if part and (len(part) == batch_size or (len(part) + 1) * longest > _FRAMES):
                yield self.embed_batch(_batch(part))
                part, longest = [], len(sequence)
            part.append(sequence)
        if part:
            yield self.embed_batch(_batch(part))

    @torch.no_grad()
    def embed_batch(self, batch: SkeletonBatch) -> Features:
        """Features (N, D) of a batch of normalised sequences, e.g. of a data module's `feature_dataloader`."""
        moved = SkeletonBatch(*(tensor.to(self.device) for tensor in batch))
        return self.backbone(self.backbone.prepare(moved)).float().cpu().numpy()


def load_encoder(
    ckpt: str | Path,
    *,
    layout: str | Path | Mapping[str, Any] | SkeletonLayout | None = None,
    device: str | None = None,
) -> SkeletonEncoder:
    """The encoder of a checkpoint, ready to be used; the checkpoint is all it needs.

    Args:
        ckpt: Checkpoint of `prosl fit`, `prosl linear` or `prosl semi`.
        layout: Body model of your data where it is another than the encoder's; joints are matched by name, those that
            do not exist are zero.
        device: Where it runs; the GPU where there is one.

    Raises:
        DataError: There is no such file, it is not a checkpoint of this library, or the body models share no joint.

    Example:
        >>> encoder = load_encoder("runs/ntu60/checkpoints/last.ckpt")  # doctest: +SKIP
        >>> encoder.embed(np.zeros((60, 25, 3)) + person).shape  # doctest: +SKIP
        (1, 4096)
    """
    changes = {} if layout is None else {"data_layout": SkeletonLayout.of(layout)}
    if checkpoint_kind(ckpt) == "classifier":
        classifier = load_classifier(ckpt)
        backbone, recipe = Backbone.of(classifier.backbone, **changes), classifier.data_recipe
    else:
        backbone, recipe = Backbone.of(load_module(ckpt), **changes), stored_recipe(ckpt)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return SkeletonEncoder(backbone.to(where), recipe)


def checkpoint_kind(ckpt: str | Path) -> Literal["encoder", "classifier", "unknown"]:
    """What a checkpoint holds, told from its keys alone; a file that cannot be read is unknown."""
    try:
        content = torch.load(ckpt, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whoever loads it says what is wrong
        return "unknown"
    if not isinstance(content, dict):
        return "unknown"
    return "classifier" if "classifier" in content else "encoder" if "hyper_parameters" in content else "unknown"


def count_bodies(bodies: FloatArray) -> int:
    """How many persons of a sequence ``(T, B, V, C)`` are there in any frame; absent ones are zero."""
    return int((bodies != 0).any(axis=(0, 2, 3)).sum())


def _as_sequences(joints: Any, most_bodies: int) -> list[FloatArray]:
    """Whatever a user has as a list of sequences (T, B, V, C)."""
    if isinstance(joints, list | tuple):
        return [_one_sequence(each) for each in joints]
    array = _as_array(joints)
    if array.ndim == 5:
        if array.shape[1] != 3:
            raise DataError(f"found a batch of shape {array.shape}, expected (N, 3, frames, joints, bodies)")
        return list(array.transpose(0, 2, 4, 3, 1))
    if array.ndim == 4 and array.shape[1] > most_bodies:
        raise DataError(
            f"found shape {array.shape}, i.e. one sequence of {array.shape[0]} frames with {array.shape[1]} bodies\n"
            "for a batch of sequences give a list, list(joints); for one with that many bodies [joints]"
        )
    return [_one_sequence(array)]


def _one_sequence(joints: Any) -> FloatArray:
    array = _as_array(joints)
    return array[:, None] if array.ndim == 3 else array


def _as_array(joints: Any) -> FloatArray:
    array = joints.detach().cpu().numpy() if isinstance(joints, Tensor) else np.asarray(joints)
    if not np.issubdtype(array.dtype, np.number):
        raise DataError(f"joints are {array.dtype}, expected numbers; sequences of different length go in a list")
    return array.astype(np.float32, copy=False)


def _batch(sequences: Sequence[NDArray[np.float32]]) -> SkeletonBatch:
    """Prepared sequences (T, V, M, C) as one padded batch, in the memory order of an archive's."""
    lengths = [len(each) for each in sequences]
    frames, (joints, bodies, coordinates) = max(lengths), sequences[0].shape[1:]
    padded = np.zeros((len(sequences), frames, coordinates, joints, bodies), np.float32)
    for target, sequence in zip(padded, sequences, strict=True):
        target[: len(sequence)] = sequence.transpose(0, 3, 1, 2)
    index = torch.arange(len(sequences))
    return SkeletonBatch(
        torch.from_numpy(padded).permute(0, 2, 1, 3, 4), torch.tensor(lengths), index, torch.full_like(index, -1)
    )
