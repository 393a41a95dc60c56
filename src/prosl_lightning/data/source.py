"""What every importer gives: a set of recordings that is opened, and read one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prosl_lightning.data.normalize import FloatArray
from prosl_lightning.skeleton import SkeletonLayout


@dataclass(frozen=True)
class RawSequence:
    """One recorded sequence as it stands in its file, or the reason why it cannot be used.

    Attributes:
        source: File (and row) it comes from, for messages.
        name: Its name, e.g. the file's stem.
        bodies: Coordinates ``(T, B, V, C)`` = frame, list position, joint, coordinate, C = 3, in the layout's unit;
            absent bodies are zero. None when it cannot be used.
        error: The reason, empty when it can be used.
        label: Its class, -1 where unknown.
        columns: Its integers in the index, e.g. subject and camera.
    """

    source: str
    name: str
    bodies: FloatArray | None = None
    error: str = ""
    label: int = -1
    columns: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Source:
    """A set of recordings, opened but not yet read, with what is known about it.

    Attributes:
        path: File or folder it was opened from.
        format: Name of the format, as ``--format`` takes it.
        layout: The body model.
        num_bodies: Bodies worth keeping in an archive.
        items: What each sequence is read from, in the order of the archive; small and picklable.
        read: Item to sequence; picklable, so that several processes can read. Damage becomes ``RawSequence.error``.
        stream: For files that can only be read from front to back: all sequences in order, instead of ``read``.
        class_names: Names of the classes in label order.
        protocols: Split rules by name.
        official: Published sizes (train, test) by protocol.
        normalize: The normalisation that suits it.
        left_out: What was passed over on purpose: reason -> names.
        bad: Source and reason of what could not be used, found while opening.
        notes: Further lines for the user.
    """

    path: Path
    format: str
    layout: SkeletonLayout
    num_bodies: int
    items: Sequence[Any]
    read: Callable[[Any], RawSequence] | None = None
    stream: Callable[[], Iterator[RawSequence]] | None = None
    class_names: tuple[str, ...] = ()
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    official: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    normalize: str = "agcn"
    left_out: dict[str, list[str]] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.items)

    def __iter__(self) -> Iterator[RawSequence]:
        """Read all sequences in order, in this process."""
        if self.stream is not None:
            return self.stream()
        assert self.read is not None
        return map(self.read, self.items)
