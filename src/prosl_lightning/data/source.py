"""What every importer gives: a set of recordings that is opened, and read one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prosl_lightning.data.normalize import FloatArray
from prosl_lightning.errors import DataError, UsageError
from prosl_lightning.skeleton import SkeletonLayout, packaged_layouts


@dataclass(frozen=True)
class RawSequence:
    """One sequence, as it stands in its file or normalised, or the reason why it cannot be used.

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

    @classmethod
    def unusable(cls, source: str, name: str, error: Exception, path: object = None) -> RawSequence:
        """A sequence that cannot be used; a message that begins with the path of its file, as errors do, loses it."""
        return cls(source, name, error=reason(error, source if path is None else path))


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
        normalize: The normalisation that suits coordinates as they were recorded.
        already: The normalisation that the files' coordinates had when they were made; empty where they had none.
        column_names: For columns of text the values that stand for 0, 1, 2, ...
        text_labels: The files name classes by text, so that labels are only numbers of these texts.
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
    already: str = ""
    column_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text_labels: bool = False
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


def reason(error: Exception, path: object) -> str:
    """What an error says, without the path it begins with: lists of what is bad name that themselves."""
    return str(error).removeprefix(f"{path}: ")


def choose_layout(layout: str | SkeletonLayout | None, usual: str | None, path: Path) -> SkeletonLayout:
    """The user's body model, else the one that is usual for the format.

    Raises:
        UsageError: There is neither.
    """
    if layout is None and usual is None:
        raise UsageError(
            f"{path.name}: whose joints are these? give the body model with --layout NAME or FILE.yaml;\n"
            f"packaged are {', '.join(packaged_layouts())}"
        )
    return SkeletonLayout.of(layout or usual or "")


def check_joints(layout: SkeletonLayout, num_joints: int, path: Path) -> None:
    """Refuse a body model with another number of joints than the file has.

    Raises:
        DataError: They differ.
    """
    if layout.num_joints != num_joints:
        raise DataError(
            f"{path}: {num_joints} joints, but layout '{layout.name}' has {layout.num_joints}; "
            "choose another with --layout"
        )


def name_classes(source: Source, names: tuple[str, ...], file: str) -> None:
    """Take the class names that a user gives. Labels that are text are numbered anew, each by its own name.

    Args:
        source: Its classes are changed.
        names: Names in label order.
        file: Where they are from, for messages.

    Raises:
        DataError: A text that is a label is not among them.
    """
    if source.text_labels:
        missing = [name for name in source.class_names if name not in names]
        if missing:
            raise DataError(f"{file}: lacks {', '.join(missing)}, of which the set has sequences")
        assert source.read is not None
        source.read = _Renumbered(source.read, tuple(names.index(name) for name in source.class_names))
    source.class_names = names


@dataclass(frozen=True)
class _Renumbered:
    """Reads sequences and gives their labels other numbers."""

    read: Callable[[Any], RawSequence]
    numbers: tuple[int, ...]

    def __call__(self, item: Any) -> RawSequence:
        sequence = self.read(item)
        return sequence if sequence.label < 0 else replace(sequence, label=self.numbers[sequence.label])
